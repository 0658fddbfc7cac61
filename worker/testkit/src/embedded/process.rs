use std::io;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child process with a thread of its own, which starts it, lives as long, and reaps it.
///
/// The thread is needed because a parent-death signal follows the thread that started the child: started from a
/// pool's thread, the server would end when the pool has nothing to do.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct End {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let end = Arc::new(End::default());
        let (send, receive) = mpsc::channel();
        let seen = Arc::clone(&end);
        thread::Builder::new().name("pgsaga-postgres".into()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(send.send(Err(error))),
            };
            let pid = Pid::from_raw(child.id().cast_signed());
            drop(send.send(Ok(pid)));
            // The pid stays ours until it is reaped, and it is reaped under the lock: so nobody who holds the lock
            // can signal another process that was given the same pid.
            let reaped = if await_exit(pid) { None } else { Some(child.wait()) };
            let mut status = seen.lock();
            // Waiting fails only where SIGCHLD is ignored, and then the status is lost.
            *status = Some(reaped.unwrap_or_else(|| child.wait()).unwrap_or_default());
            seen.changed.notify_all();
        })?;
        let pid = receive.recv().map_err(io::Error::other)??;
        Ok(Self { pid, end })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// How the process ended, or `None` while it runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        *self.end.lock()
    }

    /// Quiet when the process has ended.
    pub(super) fn signal(&self, signal: Signal) -> nix::Result<()> {
        let status = self.end.lock();
        if status.is_none() { kill(self.pid, signal) } else { Ok(()) }
    }

    pub(super) fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let status = self.end.lock();
        let waited = self.end.changed.wait_timeout_while(status, timeout, |status| status.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Waits until the process has ended without reaping it; `false` where the system cannot.
#[cfg(target_os = "linux")]
fn await_exit(pid: Pid) -> bool {
    use nix::errno::Errno;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Err(Errno::EINTR) => {}
            other => return other.is_ok(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn await_exit(_: Pid) -> bool {
    false
}
