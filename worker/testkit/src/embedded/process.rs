use std::io::{self, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lock;

/// A child process with a dedicated thread, which starts, outlives and reaps it.
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
        lock(&self.status)
    }
}

impl Process {
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let end = Arc::new(End::default());
        let (send, receive) = mpsc::channel();
        let seen = Arc::clone(&end);
        thread::Builder::new().name("pgsaga-postgres".into()).spawn(move || {
            let mut child = match command.stdin(Stdio::piped()).spawn() {
                Ok(child) => child,
                Err(error) => return drop(send.send(Err(error))),
            };
            let lifeline = child.stdin.take();
            let pid = Pid::from_raw(child.id().cast_signed());
            drop(send.send(Ok(pid)));
            // The pid stays reserved until the process is reaped, which happens under the lock. A
            // holder of the lock therefore cannot signal another process with the same pid.
            let reaped = if await_exit(pid) { None } else { Some(child.wait()) };
            let mut status = seen.lock();
            // The wait fails only if SIGCHLD is ignored. The status is then lost.
            *status = Some(reaped.unwrap_or_else(|| child.wait()).unwrap_or_default());
            seen.changed.notify_all();
            // Whoever waits for our end has nobody to signal any more.
            drop(lifeline.map(|mut lifeline| lifeline.write_all(b"\n")));
        })?;
        let pid = receive.recv().map_err(io::Error::other)??;
        Ok(Self { pid, end })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Returns the exit status, or `None` while the process runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        *self.end.lock()
    }

    /// Sends a signal. Does nothing if the process has ended.
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

/// Waits for the end of the process without reaping it. Returns false if the system does not
/// support this.
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
