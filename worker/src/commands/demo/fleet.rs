//! The demo's child processes: banks and workers, each this same binary.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::bank::Name;
use crate::error::Error;

/// A bank has to make its tables first.
const START_SECONDS_MAX: u64 = 15;
/// After SIGTERM; then SIGKILL.
const STOP_SECONDS_MAX: u64 = 2;
/// How much of a log is shown when its process ended by itself.
const LOG_BYTES_SHOWN: usize = 4096;
/// Calls at once of one worker: more would queue up in the banks until they time out.
const CONCURRENCY: &str = "48";
/// The shortest: a dead worker is noticed after so long.
const LEASE_SECONDS: &str = "2";

/// The running children. They end with the demo, however it ends.
#[derive(Debug)]
pub(super) struct Fleet {
    pgsaga: PathBuf,
    database_url: String,
    helpers: Vec<Helper>,
}

#[derive(Debug)]
struct Helper {
    name: String,
    pid: u32,
    child: Child,
    /// Has no name, so nothing is left of it when the demo is killed.
    log: File,
}

impl Fleet {
    /// No children yet; each will work on this database.
    ///
    /// # Errors
    /// As for [`binary`].
    pub(super) fn new(database_url: &str) -> Result<Fleet, Error> {
        Ok(Fleet { pgsaga: binary()?, database_url: database_url.to_owned(), helpers: Vec::new() })
    }

    /// Starts a bank and waits until it listens. Returns its process id and its URL.
    ///
    /// # Errors
    /// When it does not start; the error holds the end of its log.
    pub(super) async fn start_bank(&mut self, bank: Name, seed: u64) -> Result<(u32, String), Error> {
        let seed = seed.to_string();
        let arguments = ["demo-bank", "--log-level", "warn", "--name", bank.as_str(), "--seed", &seed];
        let helper = self.spawn(bank.as_str().to_owned(), &arguments)?;
        let Some(stdout) = helper.child.stdout.take() else {
            return Err(helper.ended("it has no standard output"));
        };
        let mut lines = BufReader::new(stdout).lines();
        match timeout(Duration::from_secs(START_SECONDS_MAX), lines.next_line()).await {
            Ok(Ok(Some(url))) => Ok((helper.pid, url)),
            Ok(_) => Err(helper.ended("it ended before it listened")),
            Err(_) => Err(helper.ended("it did not listen in time")),
        }
    }

    /// Starts a worker and does not wait for it. Returns its process id.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start_worker(&mut self) -> Result<u32, Error> {
        let name = format!("worker-{}", self.helpers.len());
        #[rustfmt::skip]
        let arguments = [
            "work", "--listen", "127.0.0.1:0", "--log-format", "json", "--concurrency", CONCURRENCY,
            "--lease-seconds", LEASE_SECONDS, "--grace-seconds", "1",
        ];
        Ok(self.spawn(name, &arguments)?.pid)
    }

    fn spawn(&mut self, name: String, arguments: &[&str]) -> Result<&mut Helper, Error> {
        let starting = format!("start {name}");
        let log = tempfile::tempfile().map_err(io(&starting))?;
        let stderr = log.try_clone().map_err(io(&starting))?;
        let mut command = Command::new(&self.pgsaga);
        // Through the child that dies with us: kill_on_drop does nothing for a demo that is itself killed. The thread
        // that starts it counts as the parent; that is the one in `block_on`, so do not move this into a task.
        command
            .args([
                "postgres-child",
                "--signal",
                "SIGKILL",
                "--parent",
                &std::process::id().to_string(),
                "--",
            ])
            .arg(&self.pgsaga)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C is for the demo, which then stops its children.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        // Not a flag: everybody can read the flags of a process, and a URL may hold a password.
        command.env("DATABASE_URL", &self.database_url);
        let child = command.spawn().map_err(io(&starting))?;
        let pid = child.id().unwrap_or_default();
        self.helpers.push(Helper { name, pid, child, log });
        self.helpers.last_mut().ok_or_else(|| Error::Usage("no child was started".to_owned()))
    }

    /// Kills one with SIGKILL and reaps it. It is no longer expected to run.
    ///
    /// # Errors
    /// When it is none of ours, or cannot be killed.
    pub(super) async fn kill(&mut self, pid: u32) -> Result<(), Error> {
        let killing = format!("kill process {pid}");
        let Some(place) = self.helpers.iter().position(|helper| helper.pid == pid) else {
            return Err(io(&killing)(std::io::Error::other("it is not one of the demo's")));
        };
        let mut helper = self.helpers.swap_remove(place);
        helper.child.kill().await.map_err(io(&killing))
    }

    /// Complains when one ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        for helper in &mut self.helpers {
            if let Ok(Some(status)) = helper.child.try_wait() {
                return Err(helper.ended(&format!("it ended by itself: {status}")));
            }
        }
        Ok(())
    }

    /// Stops all: asks first, then kills. None is left when it returns.
    pub(super) async fn stop(mut self) {
        for helper in &mut self.helpers {
            // Only while it is ours: after its end the pid may be somebody else's.
            if let Ok(None) = helper.child.try_wait() {
                let _ = kill(Pid::from_raw(helper.pid.cast_signed()), Signal::SIGTERM);
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        for helper in &mut self.helpers {
            if tokio::time::timeout_at(deadline, helper.child.wait()).await.is_err() {
                let _ = helper.child.kill().await;
            }
        }
    }
}

impl Helper {
    fn ended(&self, how: &str) -> Error {
        let mut tail = [0; LOG_BYTES_SHOWN];
        let from = self.log.metadata().map_or(0, |data| data.len()).saturating_sub(LOG_BYTES_SHOWN as u64);
        // Not `seek`: the place in the file is shared with the child, which writes there.
        let length = self.log.read_at(&mut tail, from).unwrap_or(0);
        let tail = String::from_utf8_lossy(&tail[..length]);
        let what = format!("{how}; the end of its log:\n{}", tail.trim_end());
        io(&format!("run {}, process {}", self.name, self.pid))(std::io::Error::other(what))
    }
}

/// This program, as its children are started and as a person would start it again.
///
/// # Errors
/// When the system cannot say.
pub(super) fn binary() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(io("find this program's file"))
}

fn is_ours(name: &OsStr) -> bool {
    name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"PGSAGA_")
}

fn io(doing: &str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { doing: doing.to_owned(), source }
}
