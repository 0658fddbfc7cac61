//! The child processes of `demo` and `bench`: workers and participants, each this same binary.

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

use crate::error::Error;

/// Where the participants of `demo` and `bench` are.
pub(crate) const LOOPBACK: &str = "127.0.0.0/8,::1";

/// How long a child may take until it says where it listens.
const START_SECONDS_MAX: u64 = 15;
/// After SIGTERM; then SIGKILL.
const STOP_SECONDS_MAX: u64 = 2;
/// How much of a log is shown when its process ended by itself.
const LOG_BYTES_SHOWN: usize = 4096;

/// The running children. They end with this process, however it ends.
#[derive(Debug)]
pub(crate) struct Fleet {
    pgsaga: PathBuf,
    database_url: String,
    helpers: Vec<Helper>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Helper {
    name: String,
    pub(crate) pid: u32,
    child: Child,
    /// Has no name, so nothing is left of it when this process is killed.
    log: File,
}

impl Fleet {
    /// No children yet; each will work on this database.
    ///
    /// # Errors
    /// As for [`binary`].
    pub(crate) fn new(database_url: &str) -> Result<Fleet, Error> {
        Ok(Fleet { pgsaga: binary()?, database_url: database_url.to_owned(), helpers: Vec::new() })
    }

    /// How many were started and not killed by us.
    pub(crate) fn len(&self) -> usize {
        self.helpers.len()
    }

    /// Starts `pgsaga` with these arguments, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(&mut self, name: String, arguments: &[&str]) -> Result<&mut Helper, Error> {
        let starting = format!("start {name}");
        let log = tempfile::tempfile().map_err(io(&starting))?;
        let stderr = log.try_clone().map_err(io(&starting))?;
        let mut command = Command::new(&self.pgsaga);
        // Through the child that dies with us: kill_on_drop does nothing for a process that is itself killed. The thread
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
            // Ctrl-C is for us, who then stop our children.
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
    pub(crate) async fn kill(&mut self, pid: u32) -> Result<(), Error> {
        let killing = format!("kill process {pid}");
        let Some(place) = self.helpers.iter().position(|helper| helper.pid == pid) else {
            return Err(io(&killing)(std::io::Error::other("it is not one of ours")));
        };
        let mut helper = self.helpers.swap_remove(place);
        helper.child.kill().await.map_err(io(&killing))
    }

    /// Complains when one ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        for helper in &mut self.helpers {
            if let Ok(Some(status)) = helper.child.try_wait() {
                return Err(helper.ended(&format!("it ended by itself: {status}")));
            }
        }
        Ok(())
    }

    /// Stops all: asks first, then kills. None is left when it returns.
    pub(crate) async fn stop(mut self) {
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
    /// Waits for the first line that it prints.
    ///
    /// # Errors
    /// When it prints none in time; the error holds the end of its log.
    pub(crate) async fn first_line(&mut self) -> Result<String, Error> {
        let Some(stdout) = self.child.stdout.take() else {
            return Err(self.ended("it has no standard output"));
        };
        let mut lines = BufReader::new(stdout).lines();
        match timeout(Duration::from_secs(START_SECONDS_MAX), lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(_) => Err(self.ended("it ended before it listened")),
            Err(_) => Err(self.ended("it did not listen in time")),
        }
    }

    /// Waits for the event `listening` in its log of JSON, and gives the address.
    ///
    /// # Errors
    /// When it does not say so in time; the error holds the end of its log.
    pub(crate) async fn listens_at(&mut self) -> Result<String, Error> {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while tokio::time::Instant::now() < deadline {
            tick.tick().await;
            let mut head = vec![0; LOG_BYTES_SHOWN];
            let length = self.log.read_at(&mut head, 0).unwrap_or(0);
            let address = String::from_utf8_lossy(&head[..length]).lines().find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                let fields = event.get("fields")?;
                (fields.get("message")? == "listening")
                    .then(|| fields.get("address")?.as_str().map(str::to_owned))?
            });
            if let Some(address) = address {
                return Ok(address);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.ended(&format!("it ended by itself: {status}")));
            }
        }
        Err(self.ended("it did not listen in time"))
    }

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
pub(crate) fn binary() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(io("find this program's file"))
}

fn is_ours(name: &OsStr) -> bool {
    name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"PGSAGA_")
}

fn io(doing: &str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { doing: doing.to_owned(), source }
}
