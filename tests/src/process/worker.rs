//! A worker: `pgsaga work` as a real process.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::child::{self, Spawned};
use crate::{eventually, pgsaga};

const READY_SECONDS_MAX: u64 = 20;
/// Of all workers of a test that failed: what it failed of must not drown in them.
const LOG_LINES_SHOWN: usize = 40;
thread_local! {
    static LOG_LINES_LEFT: Cell<usize> = const { Cell::new(LOG_LINES_SHOWN) };
}

/// A running `pgsaga work`. Dropping it kills it, and shows the end of its log when the test has
/// failed.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    log_ended: Arc<AtomicBool>,
}

impl Worker {
    /// Starts a worker with further flags, such as `&["--lease-seconds", "2"]`, and does not wait
    /// for it. Participants of tests are on loopback, so it may be called unless the flags name
    /// what else may.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(database_url: &str, flags: &[&str]) -> Self {
        Self::spawn_with_env(database_url, flags, &[])
    }

    /// The same with further environment variables, such as `LD_PRELOAD`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_with_env(database_url: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn_program(pgsaga(), database_url, flags, env)
    }

    /// The same of another build of `pgsaga`, such as [`crate::binary::failing`].
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_program(program: &Path, database_url: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut args =
            vec!["work", "--database-url", database_url, "--listen", "127.0.0.1:0", "--log-format", "json"];
        if !flags.contains(&"--allow-address") {
            args.extend(["--allow-address", "127.0.0.0/8,::1"]);
        }
        args.extend(flags);
        let Spawned { child, log, log_ended } = child::spawn(program, &args, env, Stdio::null());
        Self { child, log, log_ended }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The first line that contains the text, once it is there.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_for_log(&self, text: &str, deadline: Duration) -> String {
        eventually(deadline, &format!("a log line with {text:?}"), async || {
            self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
        })
        .await
    }

    /// Where it serves `/readyz` and `/metrics`: it chose a free port and logged it.
    ///
    /// # Panics
    /// When it has not logged it in time.
    pub async fn address(&self) -> SocketAddr {
        eventually(Duration::from_secs(READY_SECONDS_MAX), "the worker logs its address", async || {
            self.log.lock().unwrap().iter().find_map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                let fields = &event["fields"];
                if fields["message"] == "listening" { fields["address"].as_str()?.parse().ok() } else { None }
            })
        })
        .await
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn ready(&self) -> &Self {
        let address = self.address().await;
        eventually(Duration::from_secs(READY_SECONDS_MAX), "the worker is ready", async || {
            get(address, "/readyz").await.ok().filter(|(status, _)| *status == 200)
        })
        .await;
        self
    }

    /// The status and body of a GET of one of its own pages.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> io::Result<(u16, String)> {
        get(self.address().await, path).await
    }

    /// The text of `/metrics`.
    ///
    /// # Panics
    /// When it does not answer 200.
    pub async fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics").await.unwrap();
        assert_eq!(status, 200, "/metrics answered: {body}");
        body
    }

    /// The value of one series, named exactly as it is printed, labels included: `up{zone="a"}`.
    ///
    /// # Panics
    /// When `/metrics` does not answer.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics().await;
        metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// SIGTERM: finish what runs, hand back the rest. Does not wait.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGSTOP: it lives, but does nothing until [`Self::continue_signal`].
    pub fn stop_signal(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn continue_signal(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Panics
    /// When its end cannot be waited for.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Waits for its end, and until its log has been read to the end.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let exit = eventually(deadline, "the worker ends", async || self.child.try_wait().unwrap()).await;
        let log_ended = &self.log_ended;
        eventually(deadline, "its log ends", async || log_ended.load(Ordering::Acquire).then_some(())).await;
        exit
    }

    /// Whether it runs, stopped or not.
    ///
    /// # Panics
    /// When the system cannot say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Only while it is ours: after its end the pid may be somebody else's.
    fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // What libfaketime leaves of a process that was killed: another one with its number would
        // have no clock of its own.
        for left in ["faketime_shm_", "sem.faketime_sem_"] {
            drop(std::fs::remove_file(format!("/dev/shm/{left}{}", self.pid())));
        }
        if thread::panicking() {
            let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!("the end of the log of worker {}:", self.pid());
            let shown = log.len().min(LOG_LINES_LEFT.get() / 2);
            LOG_LINES_LEFT.set(LOG_LINES_LEFT.get() - shown);
            for line in &log[log.len() - shown..] {
                eprintln!("  {line}");
            }
        }
    }
}

/// The status and body of a GET. Written by hand: HTTP/1.0 has no chunks and no connections to
/// keep, and needs no TLS provider.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok((status, body.to_owned()))
}
