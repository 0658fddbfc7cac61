//! `pgsaga ui` as a real process, and somebody who asks it for pages without a browser.

use std::net::SocketAddr;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::child::{self, Spawned};
use crate::{eventually, pgsaga};

const READY_SECONDS_MAX: u64 = 20;
/// A token for tests.
pub const TOKEN: &str = "correct-horse-battery-staple";

/// A running `pgsaga ui`. Dropping it kills it.
#[derive(Debug)]
pub struct Ui {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    log_ended: Arc<AtomicBool>,
}

impl Ui {
    /// Starts it with further flags and environment variables, on a free port, and does not wait
    /// for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(database_url: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut args = vec!["ui", "--listen", "127.0.0.1:0", "--log-format", "json"];
        args.extend(flags);
        let env: Vec<(&str, &str)> =
            [("DATABASE_URL", database_url)].into_iter().chain(env.iter().copied()).collect();
        let Spawned { child, log, log_ended } = child::spawn(pgsaga(), &args, &env, Stdio::null());
        Self { child, log, log_ended }
    }

    /// Without a token.
    pub fn read_only(database_url: &str) -> Self {
        Self::spawn(database_url, &[], &[])
    }

    /// With [`TOKEN`].
    pub fn with_token(database_url: &str) -> Self {
        Self::spawn(database_url, &[], &[("PGSAGA_UI_TOKEN", TOKEN)])
    }

    /// Where it listens: it chose a free port and logged it.
    ///
    /// # Panics
    /// When it has not logged it in time.
    pub async fn address(&self) -> SocketAddr {
        eventually(Duration::from_secs(READY_SECONDS_MAX), "the page's address is logged", async || {
            self.log().iter().find_map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                let fields = &event["fields"];
                if fields["message"] == "listening" { fields["address"].as_str()?.parse().ok() } else { None }
            })
        })
        .await
    }

    /// The lines logged so far.
    ///
    /// # Panics
    /// Never.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM. Does not wait.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end, and until its log has been read to the end.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let exit = eventually(deadline, "the page ends", async || self.child.try_wait().unwrap()).await;
        let log_ended = &self.log_ended;
        eventually(deadline, "its log ends", async || log_ended.load(Ordering::Acquire).then_some(())).await;
        exit
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for line in log.iter().rev().take(20).rev() {
                eprintln!("  ui: {line}");
            }
        }
    }
}
