//! A private Postgres server for `pgsaga demo`, `pgsaga bench` and the tests.
//!
//! It uses a Postgres that is installed on the machine, keeps its data in a temporary folder, and ends with
//! the process that started it, however that process ends: see [`ChildArgs`]. It is not for production, where
//! a server outlives its clients.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

mod account;
mod binaries;
mod child;
mod directory;
mod download;
mod error;
mod process;

use account::Account;
use directory::Directory;
use process::Process;

pub use binaries::find_binaries;
pub use child::{ChildArgs, run_child};
pub use error::Error;

/// How long a start may take; recovery after a crash is part of it.
const START_SECONDS_MAX: u64 = 60;
/// How long a fast shutdown may take before it becomes an immediate one.
const FAST_STOP_SECONDS_MAX: u64 = 10;
/// An immediate shutdown kills what is left after five seconds by itself.
const IMMEDIATE_STOP_SECONDS_MAX: u64 = 8;
/// A look at a file, cheap enough to be frequent: a start takes some 50 ms.
const POLL: Duration = Duration::from_millis(5);
/// Between two starts while a killed server's children live: each costs a process and four lines in the log. A
/// session notices the death when it next waits for something, so a long query can take a while.
const RETRY: Duration = Duration::from_millis(50);

/// How a [`Server`] is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that holds `initdb` and `postgres`; `None` looks for one, see [`find_binaries`].
    pub binaries: Option<PathBuf>,
    /// Whether commits survive a crash of the machine. Off is faster, and makes every claim about durability
    /// or speed empty.
    pub fsync: bool,
    /// Further settings, such as `("max_connections", "300")`. They win over those made here.
    pub settings: Vec<(String, String)>,
    /// Listen on this port of 127.0.0.1 as well, **without a password**, so for every user of the machine.
    /// `None` is a Unix socket only, which nobody but root and the user that starts the server can open.
    pub tcp_port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { binaries: None, fsync: true, settings: Vec::new(), tcp_port: None }
    }
}

/// A running Postgres of our own; dropping it stops the server and removes its data.
#[derive(Debug)]
pub struct Server {
    options: Options,
    binaries: PathBuf,
    pgsaga: PathBuf,
    account: Option<Account>,
    process: Mutex<Process>,
    directory: Directory,
}

impl Server {
    /// Makes a new, empty cluster and starts it; blocks for one to three seconds.
    ///
    /// `pgsaga_binary` is the `pgsaga` executable, whose hidden subcommand `postgres-child` becomes the server.
    /// As root the server runs as the user `postgres`, else `nobody`, for Postgres refuses to run as root.
    ///
    /// # Errors
    /// When no Postgres is installed, or `initdb` or the server fails; the error holds what they said.
    pub fn start(options: &Options, pgsaga_binary: &Path) -> Result<Self, Error> {
        let binaries = find_binaries(options.binaries.as_deref())?;
        let account = account::unprivileged()?;
        let directory = Directory::new(account)?;
        initdb(&binaries, &directory, account)?;
        Self::start_on(directory, options, binaries, pgsaga_binary, account)
    }

    /// Copies a running server and starts the copy as its standby, by streaming replication over the primary's socket.
    ///
    /// It needs the primary's own settings, and a TCP port of its own where the primary has one.
    ///
    /// # Errors
    /// When the copy fails, or the standby does not start; the error holds what they said.
    pub fn standby_of(primary: &Server, options: &Options) -> Result<Self, Error> {
        let (binaries, account) = (primary.binaries.clone(), primary.account);
        let directory = Directory::new(account)?;
        copy(primary, &directory)?;
        Self::start_on(directory, options, binaries, &primary.pgsaga, account)
    }

    fn start_on(
        directory: Directory,
        options: &Options,
        binaries: PathBuf,
        pgsaga: &Path,
        account: Option<Account>,
    ) -> Result<Self, Error> {
        let process = launch(options, &binaries, pgsaga, account, &directory)?;
        Ok(Self {
            options: options.clone(),
            binaries,
            pgsaga: pgsaga.to_owned(),
            account,
            process: Mutex::new(process),
            directory,
        })
    }

    /// A URL over the Unix socket, for sqlx, libpq (psql, psycopg) and node-postgres alike.
    pub fn url(&self, database: &str) -> String {
        let socket = escape(&self.directory.socket().to_string_lossy());
        format!("postgres://postgres@localhost:{}/{}?host={socket}", self.port(), escape(database))
    }

    /// A URL over TCP, when [`Options::tcp_port`] asked for it.
    pub fn tcp_url(&self, database: &str) -> Option<String> {
        let port = self.options.tcp_port?;
        Some(format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", escape(database)))
    }

    /// The process id of the running, or last running, postmaster.
    pub fn pid(&self) -> u32 {
        self.process().id()
    }

    /// Whether the postmaster runs.
    pub fn is_running(&self) -> bool {
        self.process().status().is_none()
    }

    /// Postgres's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.data()
    }

    /// The server's log, of all its starts.
    pub fn log(&self) -> PathBuf {
        self.directory.log()
    }

    /// The folder of the Postgres programs in use.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Stops the server with a fast shutdown, and with a harder one if that takes too long. Quiet when it is stopped.
    ///
    /// # Errors
    /// When the server cannot be signalled or does not end.
    pub fn stop(&self) -> Result<(), Error> {
        stop(&self.process(), &[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL])
    }

    /// Kills the postmaster with SIGKILL, as an out-of-memory killer would. Its children end soon after.
    ///
    /// # Errors
    /// When the server cannot be signalled or does not end.
    pub fn kill(&self) -> Result<(), Error> {
        stop(&self.process(), &[Signal::SIGKILL])
    }

    /// Starts the server again on the same data, after [`Self::stop`] or [`Self::kill`]. Quiet when it runs.
    ///
    /// # Errors
    /// When the server fails to start; the error holds the end of its log.
    pub fn start_again(&self) -> Result<(), Error> {
        self.start_if_stopped(&mut self.process())
    }

    /// Crashes the server, as `pg_ctl restart -m immediate` does, and starts it again: it recovers from its WAL.
    ///
    /// # Errors
    /// As for [`Self::kill`] and [`Self::start_again`].
    pub fn restart_immediate(&self) -> Result<(), Error> {
        let mut process = self.process();
        stop(&process, &[Signal::SIGQUIT, Signal::SIGKILL])?;
        self.start_if_stopped(&mut process)
    }

    fn start_if_stopped(&self, process: &mut Process) -> Result<(), Error> {
        if process.status().is_some() {
            *process = launch(&self.options, &self.binaries, &self.pgsaga, self.account, &self.directory)?;
        }
        Ok(())
    }

    fn port(&self) -> u16 {
        port(&self.options)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: what is left is swept by the next server that starts.
        drop(self.stop());
    }
}

/// The socket's name holds the port too, so there is always one.
fn port(options: &Options) -> u16 {
    options.tcp_port.unwrap_or(5432)
}

fn initdb(binaries: &Path, directory: &Directory, account: Option<Account>) -> Result<(), Error> {
    let mut command = Command::new(binaries.join("initdb"));
    command
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(directory.data());
    let output = make(command, "initdb", directory, account)?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Initdb { status: output.status, output: directory::tail(&text) })
}

/// A copy that starts as a standby: `-R` writes down whom it follows.
fn copy(primary: &Server, directory: &Directory) -> Result<(), Error> {
    let mut command = Command::new(primary.binaries.join("pg_basebackup"));
    command
        .args([
            "--username=postgres",
            "--no-password",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--no-sync",
            "-R",
        ])
        .arg("--host")
        .arg(primary.directory.socket())
        .arg(format!("--port={}", primary.port()))
        .arg("-D")
        .arg(directory.data());
    let output = make(command, "pg_basebackup", directory, primary.account)?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Copy { status: output.status, output: directory::tail(&text) })
}

/// Runs a program that fills the data folder.
fn make(
    mut command: Command,
    program: &str,
    directory: &Directory,
    account: Option<Account>,
) -> Result<Output, Error> {
    command
        // Without it, initdb complains that it cannot enter our own working folder as another user.
        .current_dir(directory.path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command.output().map_err(|source| Error::Run { program: program.into(), source })
}

/// Starts the server, and starts it again while the children of a killed one hold its shared memory.
fn launch(
    options: &Options,
    binaries: &Path,
    pgsaga: &Path,
    account: Option<Account>,
    directory: &Directory,
) -> Result<Process, Error> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        let log = directory.open_log()?;
        let log_from = log.metadata().map_or(0, |data| data.len());
        let command = server_command(options, binaries, pgsaga, account, directory, log);
        let process =
            Process::spawn(command).map_err(|source| Error::Run { program: pgsaga.to_owned(), source })?;
        if await_ready(&process, &directory.data().join("postmaster.pid"), deadline) {
            return Ok(process);
        }
        let status = process.status();
        drop(stop(&process, &[Signal::SIGQUIT, Signal::SIGKILL]));
        let log = directory.log_tail(log_from);
        if !log.contains("is still in use") || Instant::now() > deadline {
            let ended = status.map_or_else(
                || format!("it was not ready within {START_SECONDS_MAX} s"),
                |status| format!("it ended with {status}"),
            );
            return Err(Error::Start { ended, log });
        }
        thread::sleep(RETRY);
    }
}

fn server_command(
    options: &Options,
    binaries: &Path,
    pgsaga: &Path,
    account: Option<Account>,
    directory: &Directory,
    log: File,
) -> Command {
    let mut postgres: Vec<OsString> = vec![binaries.join("postgres").into()];
    postgres.extend(["-D".into(), directory.data().into()]);
    postgres.extend(["-k".into(), directory.socket().into()]);
    postgres.extend(["-p".into(), port(options).to_string().into()]);
    let on_off = if options.fsync { "on" } else { "off" };
    let ours = [
        ("listen_addresses", if options.tcp_port.is_some() { "127.0.0.1" } else { "" }),
        ("unix_socket_permissions", "0700"),
        ("fsync", on_off),
        ("full_page_writes", on_off),
    ];
    let theirs = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in ours.into_iter().chain(theirs) {
        postgres.extend(["-c".into(), format!("{name}={value}").into()]);
    }

    let mut command = Command::new(pgsaga);
    command.arg("postgres-child").arg("--parent").arg(std::process::id().to_string());
    if let Some(account) = account {
        command.args(account.flags());
    }
    command.arg("--").args(postgres);
    // Meant for us; `pgsaga` refuses those that it does not know.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PGSAGA_")) {
        command.env_remove(name);
    }
    // Locale: `launch` reads the log. Working folder: ours may be closed to the server's user.
    command.env("LC_ALL", "C").current_dir(directory.path());
    // A group of its own: Ctrl-C in a terminal is for us, and we stop the server when we no longer need it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// Reads what the server writes for `pg_ctl`: line 1 is its pid, line 8 its state. A connection says less: it is
/// accepted while the server still recovers, and a stale socket may be another server's.
fn await_ready(process: &Process, postmaster_pid: &Path, deadline: Instant) -> bool {
    let pid = process.id().to_string();
    while process.status().is_none() && Instant::now() < deadline {
        let text = fs::read_to_string(postmaster_pid).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        if lines.next() == Some(pid.as_str()) && matches!(lines.nth(6), Some("ready" | "standby")) {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

/// Sends one signal after the other until the process ends.
fn stop(process: &Process, signals: &[Signal]) -> Result<(), Error> {
    for &signal in signals {
        process.signal(signal).map_err(|source| Error::Signal { pid: process.id(), source })?;
        let seconds =
            if signal == Signal::SIGINT { FAST_STOP_SECONDS_MAX } else { IMMEDIATE_STOP_SECONDS_MAX };
        if process.wait(Duration::from_secs(seconds)).is_some() {
            return Ok(());
        }
    }
    Err(Error::Stop { pid: process.id() })
}

/// Percent-encodes all but what is unreserved in a URL.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
