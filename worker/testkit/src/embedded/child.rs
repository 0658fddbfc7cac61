use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Pid, Uid, getppid, setgid, setuid};

/// Arguments of the hidden subcommand `postgres-child`, which executes a program as another user
/// and ends with its parent.
///
/// A child process normally survives a killed parent. Only the child can ask the kernel for a
/// signal at its parent's death, and only before it executes the server. Without `unsafe`, this
/// needs a separate program: this subcommand. The kernel treats the *thread* that started the child
/// as its parent, so that thread must live as long as the server.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// User id that the server runs as
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// Group id that the server runs as
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// Process whose death ends the program; must be the parent
    #[arg(long)]
    parent: i32,
    // SIGQUIT is the immediate shutdown of Postgres. The data is not needed again, so the server
    // writes no checkpoint and waits for no session. Unlike SIGKILL, SIGQUIT also frees the shared
    // memory.
    /// Signal at the parent's death
    #[arg(long, default_value = "SIGQUIT")]
    signal: Signal,
    /// The program and its arguments
    #[arg(last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

/// Executes the program in the arguments. Returns only if that fails, with the reason.
///
/// Must be called on the main thread before any other thread exists. Unblocks all signals.
pub fn run_child(args: ChildArgs) -> io::Error {
    match exec(args) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn exec(args: ChildArgs) -> io::Result<Infallible> {
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        // The user is changed last, because an unprivileged user cannot change groups.
        drop_groups()?;
        setgid(Gid::from_raw(gid))?;
        setuid(Uid::from_raw(uid))?;
    }
    // A change of user would clear this setting, so it comes afterwards.
    die_with_parent(args.signal)?;
    if getppid() != Pid::from_raw(args.parent) {
        return Err(io::Error::other(format!("the parent, process {}, is gone already", args.parent)));
    }
    // The signal mask survives exec, and `main` begins by blocking signals.
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

/// Other systems have no such signal. There a server survives a killed parent.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: Signal) -> nix::Result<()> {
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn drop_groups() -> nix::Result<()> {
    nix::unistd::setgroups(&[])
}

/// On Apple systems, groups belong to the user and not to the process.
#[cfg(target_vendor = "apple")]
fn drop_groups() -> nix::Result<()> {
    Ok(())
}
