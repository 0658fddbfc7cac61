//! The hidden subcommand that ties a program to the process that starts it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;
#[cfg(target_os = "linux")]
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Arguments of the hidden subcommand `child`, which executes a program that ends with its parent.
///
/// A child process normally survives a killed parent. Only the child can ask the kernel for a
/// signal at its parent's death, and only before it executes the program. Without `unsafe`, this
/// needs a separate program: this subcommand. The kernel treats the *thread* that started the child
/// as its parent, so that thread must live as long as the program.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// Process whose death ends the program; must be the parent
    #[arg(long)]
    parent: i32,
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
    die_with_parent()?;
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
fn die_with_parent() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Other systems have no such signal. There a child survives a killed parent.
#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> nix::Result<()> {
    Ok(())
}
