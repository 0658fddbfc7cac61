//! Commands of `pgsaga` as a person runs them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Database, binary, eventually};

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The lines of standard output that contain the text.
    pub fn lines_with<'a>(&'a self, text: &str) -> Vec<&'a str> {
        self.out.lines().filter(|line| line.contains(text)).collect()
    }

    /// Its standard output, where it ended well.
    ///
    /// # Panics
    /// When it did not.
    pub fn fine(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

/// Runs a command against a database, with the URL at its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(db: &Database, args: &[&str]) -> Said {
    run_as(db.url(), args)
}

/// The same with a URL of the test's own, such as another user's.
///
/// # Panics
/// When it cannot be started.
pub fn run_as(url: &str, args: &[&str]) -> Said {
    let output = binary::command()
        .env_remove("DATABASE_URL")
        .args(args)
        .args(["--database-url", url])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A command that goes on until it is ended. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

impl Running {
    /// Starts it and reads what it says.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(db: &Database, args: &[&str]) -> Running {
        Self::start_with(db, args, Stdio::piped())
    }

    /// The same with a standard output of the test's own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_with(db: &Database, args: &[&str], stdout: Stdio) -> Running {
        let mut child = binary::command()
            .env_remove("DATABASE_URL")
            .args(args)
            .args(["--database-url", db.url()])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = collect(child.stderr.take());
        let out = collect(child.stdout.take());
        Running { child, out, err }
    }

    /// What it has written so far.
    ///
    /// # Panics
    /// Never.
    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// What it has complained of so far.
    ///
    /// # Panics
    /// Never.
    pub fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Waits until it has written this.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_for_out(&self, text: &str, deadline: Duration) {
        eventually(deadline, &format!("{text:?} is written"), async || {
            self.out().contains(text).then_some(())
        })
        .await;
    }

    /// Waits until it has complained of this.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_for_err(&self, text: &str, deadline: Duration) {
        let said = async || self.err.lock().unwrap().contains(text).then_some(());
        eventually(deadline, &format!("{text:?} is complained of"), said).await;
    }

    /// Whether it goes on.
    ///
    /// # Panics
    /// When the system cannot say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGINT, as Ctrl-C sends it.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        eventually(deadline, "the command ends", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What comes through a pipe, line by line.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut collected = collected.lock().unwrap();
                collected.push_str(&String::from_utf8_lossy(&line));
                collected.push('\n');
            }
        });
    }
    text
}
