use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Pid, Uid, getppid, setgid, setuid};

/// The hidden subcommand `postgres-child`: becomes the given program, as another user, and dies with its parent.
///
/// A server that is a plain child outlives a parent that is killed. Only the child itself can ask the kernel for a
/// signal at its parent's death, before it becomes the server, and without `unsafe` that takes a program of its own:
/// this one. The *thread* that started it counts as the parent, so it has to live as long.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// Become this user first
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// Become this group first
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// The process to die with; it has to be the one that starts this
    #[arg(long)]
    parent: i32,
    // SIGQUIT is Postgres's immediate shutdown: nobody will read the data again, so it should neither write a
    // checkpoint nor wait for a session, and unlike SIGKILL it frees the shared memory.
    /// What to die of
    #[arg(long, default_value = "SIGQUIT")]
    signal: Signal,
    /// The program and its arguments
    #[arg(last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

/// Becomes the program that the arguments name, so it returns only the reason why it could not.
///
/// Call it on the main thread, before any other thread exists. Signals that are blocked by then are unblocked.
pub fn run_child(args: ChildArgs) -> io::Error {
    match exec(args) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn exec(args: ChildArgs) -> io::Result<Infallible> {
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        // The user last: after it we may no longer change the groups.
        drop_groups()?;
        setgid(Gid::from_raw(gid))?;
        setuid(Uid::from_raw(uid))?;
    }
    // Only now: a change of user forgets the signal.
    die_with_parent(args.signal)?;
    if getppid() != Pid::from_raw(args.parent) {
        return Err(io::Error::other(format!("the parent, process {}, is gone already", args.parent)));
    }
    // A mask outlives exec, and `main` begins by blocking signals.
    SigSet::empty().thread_set_mask()?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(io::Error::other("a program is needed after --"));
    };
    Err(Command::new(program).args(arguments).exec())
}

#[cfg(target_os = "linux")]
fn die_with_parent(signal: Signal) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)
}

/// Other systems have no such signal: there a server outlives a parent that is killed.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: Signal) -> nix::Result<()> {
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn drop_groups() -> nix::Result<()> {
    nix::unistd::setgroups(&[])
}

/// On Apple's systems groups belong to the user, not to the process.
#[cfg(target_vendor = "apple")]
fn drop_groups() -> nix::Result<()> {
    Ok(())
}
