//! Child processes: workers and participants, each the same binary as this process.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
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

/// Time in which a child must say where it listens.
const START_SECONDS_MAX: u64 = 15;
/// Time between SIGTERM and SIGKILL.
const STOP_SECONDS_MAX: u64 = 2;
/// Bytes of a log that are shown when its process ended by itself.
const LOG_BYTES_SHOWN: usize = 4096;

/// The running children. They end with this process, however it ends.
#[derive(Debug)]
pub struct Fleet {
    pgsaga: PathBuf,
    database_url: String,
    children: Vec<Process>,
}

/// A child process, with its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// The process id.
    pub pid: u32,
    child: Child,
    /// A file without a name, so that nothing is left of it when this process is killed.
    log: File,
}

impl Fleet {
    /// A fleet without children. Each child will work on this database.
    ///
    /// # Errors
    /// When the system cannot name this program's file.
    pub fn new(database_url: &str) -> Result<Fleet, Error> {
        Ok(Fleet { pgsaga: binary()?, database_url: database_url.to_owned(), children: Vec::new() })
    }

    /// Starts a worker that may call participants on this machine, with these further flags, and
    /// does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_worker(&mut self, flags: &[&str]) -> Result<&mut Process, Error> {
        let common =
            ["work", "--listen", "127.0.0.1:0", "--log-format", "json", "--allow-address", "127.0.0.0/8,::1"];
        self.start(format!("worker-{}", self.children.len() + 1), &[&common, flags].concat())
    }

    /// Starts `pgsaga` with these arguments, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, name: String, arguments: &[&str]) -> Result<&mut Process, Error> {
        let starting = format!("start {name}");
        let log = tempfile::tempfile().map_err(io(&starting))?;
        let stderr = log.try_clone().map_err(io(&starting))?;
        let parent = std::process::id().to_string();
        let mut command = Command::new(&self.pgsaga);
        // Through the child that dies with us: kill_on_drop does nothing for a process that is
        // itself killed. The thread that starts it counts as the parent; that is the one in
        // `block_on`, so do not move this into a task.
        command
            .args(["child", "--parent", &parent, "--"])
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
        self.children.push(Process { name, pid: child.id().unwrap_or_default(), child, log });
        let last = self.children.len() - 1;
        Ok(&mut self.children[last])
    }

    /// Kills a child with SIGKILL and reaps it. It is no longer expected to run.
    ///
    /// # Errors
    /// When the process is no child of this fleet, or cannot be killed.
    pub async fn kill(&mut self, pid: u32) -> Result<(), Error> {
        let killing = format!("kill process {pid}");
        let Some(index) = self.children.iter().position(|process| process.pid == pid) else {
            return Err(io(&killing)(io::Error::other("it is not one of ours")));
        };
        self.children.swap_remove(index).child.kill().await.map_err(io(&killing))
    }

    /// Complains when a child ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> Result<(), Error> {
        self.children.iter_mut().try_for_each(Process::check)
    }

    /// Stops all children with SIGTERM, then with SIGKILL. No child is left when this returns.
    pub async fn stop(mut self) {
        for process in &mut self.children {
            // After a child's end and reaping, its pid may be somebody else's.
            if let Ok(None) = process.child.try_wait() {
                let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGTERM);
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        for process in &mut self.children {
            if tokio::time::timeout_at(deadline, process.child.wait()).await.is_err() {
                let _ = process.child.kill().await;
            }
        }
    }
}

impl Process {
    /// Waits for the first line on its standard output.
    ///
    /// # Errors
    /// When no line comes in time; the error holds the end of its log.
    pub async fn first_line(&mut self) -> Result<String, Error> {
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
    /// When the event does not come in time; the error holds the end of its log.
    pub async fn listens_at(&mut self) -> Result<String, Error> {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while tokio::time::Instant::now() < deadline {
            tick.tick().await;
            let address = self.log_from(0).lines().find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                let fields = event.get("fields")?;
                let is_listening = fields.get("message")? == "listening";
                is_listening.then(|| fields.get("address")?.as_str().map(str::to_owned))?
            });
            if let Some(address) = address {
                return Ok(address);
            }
            self.check()?;
        }
        Err(self.ended("it did not listen in time"))
    }

    fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.ended(&format!("it ended by itself: {status}"))),
            _ => Ok(()),
        }
    }

    fn ended(&self, how: &str) -> Error {
        let length = self.log.metadata().map_or(0, |data| data.len());
        let tail = self.log_from(length.saturating_sub(LOG_BYTES_SHOWN as u64));
        let what = format!("{how}; the end of its log:\n{}", tail.trim_end());
        io(&format!("run {}, process {}", self.name, self.pid))(io::Error::other(what))
    }

    /// A piece of the log. Not by `seek`: the position in the file is shared with the child, which
    /// writes there.
    fn log_from(&self, offset: u64) -> String {
        let mut piece = [0; LOG_BYTES_SHOWN];
        let length = self.log.read_at(&mut piece, offset).unwrap_or(0);
        String::from_utf8_lossy(&piece[..length]).into_owned()
    }
}

/// The file of this program, as children are started from it and as a person would start it again.
///
/// # Errors
/// When the system cannot say.
pub fn binary() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(io("find this program's file"))
}

fn is_ours(name: &OsStr) -> bool {
    name == "DATABASE_URL" || name.as_encoded_bytes().starts_with(b"PGSAGA_")
}

fn io(doing: &str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { doing: doing.to_owned(), source }
}
