//! A private Postgres server for `pgsaga demo`, `pgsaga bench` and the tests.
//!
//! It runs the Postgres installed on the machine, and keeps its data in a temporary directory. It
//! ends with the process that started it, however that process ends. It is not for production,
//! where a server outlives its clients.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lock;

mod account;
mod binaries;
mod directory;
mod download;
mod error;
mod options;
mod process;

use account::Account;
use directory::Directory;
use process::Process;

pub use binaries::find_binaries;
pub use error::Error;
pub use options::Options;

/// Upper bound on the time for a start, including recovery after a crash.
const START_SECONDS_MAX: u64 = 60;
/// Upper bound on the time for a fast shutdown. After it, the shutdown becomes immediate.
const FAST_STOP_SECONDS_MAX: u64 = 10;
/// Upper bound on the time for an immediate shutdown. Postgres kills its children after five
/// seconds.
const IMMEDIATE_STOP_SECONDS_MAX: u64 = 8;
/// Interval between reads of `postmaster.pid`. A start takes about 50 ms.
const POLL: Duration = Duration::from_millis(5);
/// Pause between two starts while children of a killed server are alive. Each start costs a process
/// and four log lines. A child notices the death of its parent at its next wait, which a long query
/// delays.
const RETRY: Duration = Duration::from_millis(50);

const SHELL: &str = "sh";
/// Becomes the program of the arguments, and ends it with SIGQUIT when standard input ends without
/// a line. Standard input is a pipe of the process that starts the program, which the kernel closes
/// at the end of that process, however it ends. SIGQUIT is Postgres' immediate shutdown: the server
/// writes no checkpoint and waits for no session, but frees its shared memory, as it does not after
/// SIGKILL. The shell that waits is no child of the program, which would wonder about it.
const BECOME: &str = r#"exec 3<&0 </dev/null
( { read -r _ <&3 || kill -s QUIT $$; } >/dev/null 2>&1 & )
exec "$@" 3<&-"#;

/// A running private Postgres. Dropping it stops the server and deletes its data.
#[derive(Debug)]
pub struct Server {
    options: Options,
    binaries: PathBuf,
    account: Option<Account>,
    process: Mutex<Process>,
    directory: Directory,
}

impl Server {
    /// Creates an empty cluster and starts it. Blocks for one to three seconds.
    ///
    /// If this process is root, the server runs as the user `postgres` or `nobody`, because
    /// Postgres refuses to run as root.
    ///
    /// # Errors
    /// No Postgres is installed, or `initdb` or the server fails. The error contains their output.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let binaries = find_binaries(options.binaries.as_deref())?;
        let account = account::unprivileged()?;
        let directory = Directory::new(account)?;
        initdb(&binaries, &directory, account)?;
        Self::start_on(directory, options, binaries, account)
    }

    /// Copies a running server and starts the copy as its standby, with streaming replication over
    /// the primary's socket.
    ///
    /// The standby needs the settings of the primary, and its own TCP port if the primary has one.
    ///
    /// # Errors
    /// The copy fails, or the standby does not start. The error contains their output.
    pub fn standby_of(primary: &Server, options: &Options) -> Result<Self, Error> {
        let (binaries, account) = (primary.binaries.clone(), primary.account);
        let directory = Directory::new(account)?;
        copy(primary, &directory)?;
        Self::start_on(directory, options, binaries, account)
    }

    fn start_on(
        directory: Directory,
        options: &Options,
        binaries: PathBuf,
        account: Option<Account>,
    ) -> Result<Self, Error> {
        let process = launch(options, &binaries, account, &directory)?;
        Ok(Self { options: options.clone(), binaries, account, process: Mutex::new(process), directory })
    }

    /// Returns a Unix socket URL that sqlx, libpq (psql, psycopg) and node-postgres accept.
    pub fn url(&self, database: &str) -> String {
        let socket = escape(&self.directory.socket().to_string_lossy());
        format!("postgres://postgres@localhost:{}/{}?host={socket}", self.port(), escape(database))
    }

    /// Returns a TCP URL if [`Options::tcp_port`] is set.
    pub fn tcp_url(&self, database: &str) -> Option<String> {
        let port = self.options.tcp_port?;
        Some(format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", escape(database)))
    }

    /// Returns the process id of the current or last postmaster.
    pub fn pid(&self) -> u32 {
        self.process().id()
    }

    /// Whether the postmaster process is running.
    pub fn is_running(&self) -> bool {
        self.process().status().is_none()
    }

    /// Returns the data directory of Postgres.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.data()
    }

    /// Returns the server's log file, shared by all starts.
    pub fn log(&self) -> PathBuf {
        self.directory.log()
    }

    /// Returns the directory of the Postgres programs.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Stops the server with a fast shutdown, or an immediate one if that takes too long. Does
    /// nothing if the server is stopped.
    ///
    /// # Errors
    /// The server cannot be signalled or does not end.
    pub fn stop(&self) -> Result<(), Error> {
        stop(&self.process(), &[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL])
    }

    /// Kills the postmaster with SIGKILL, like the kernel's out-of-memory killer. Its children end
    /// soon after.
    ///
    /// # Errors
    /// The server cannot be signalled or does not end.
    pub fn kill(&self) -> Result<(), Error> {
        stop(&self.process(), &[Signal::SIGKILL])
    }

    /// Starts the server on the same data after [`Self::stop`] or [`Self::kill`]. Does nothing if
    /// the server is running.
    ///
    /// # Errors
    /// The server fails to start. The error contains the end of its log.
    pub fn start_again(&self) -> Result<(), Error> {
        self.start_if_stopped(&mut self.process())
    }

    /// Crashes the server like `pg_ctl restart -m immediate`, and starts it again. The server
    /// recovers from its WAL.
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
            *process = launch(&self.options, &self.binaries, self.account, &self.directory)?;
        }
        Ok(())
    }

    fn port(&self) -> u16 {
        port(&self.options)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort. The next server that starts deletes the remaining files.
        drop(self.stop());
    }
}

/// The socket's name contains a port, so a port is needed even without TCP.
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

/// Copies the primary's data. The option `-R` writes the connection settings of a standby.
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

/// Runs a program that fills the data directory.
fn make(
    mut command: Command,
    program: &str,
    directory: &Directory,
    account: Option<Account>,
) -> Result<Output, Error> {
    command
        // The server's user may not be allowed to enter our working directory, and initdb would
        // print a warning.
        .current_dir(directory.path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command.output().map_err(|source| Error::Run { program: program.into(), source })
}

/// Starts the server. Retries while children of a killed server hold its shared memory.
fn launch(
    options: &Options,
    binaries: &Path,
    account: Option<Account>,
    directory: &Directory,
) -> Result<Process, Error> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    loop {
        let log = directory.open_log()?;
        let log_from = log.metadata().map_or(0, |data| data.len());
        let command = server_command(options, binaries, account, directory, log);
        let process =
            Process::spawn(command).map_err(|source| Error::Run { program: SHELL.into(), source })?;
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

    let mut command = Command::new(SHELL);
    command.args(["-c", BECOME, SHELL]).args(postgres);
    if let Some(account) = account {
        account.apply(&mut command);
    }
    // `launch` parses the log, so its language must be fixed. The server's user may not be allowed
    // to enter our working directory.
    command.env("LC_ALL", "C").current_dir(directory.path());
    // A separate process group, because Ctrl-C in a terminal must not stop the server before this
    // process.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdout(Stdio::null()).stderr(log);
    command
}

/// Reads the file that the server writes for `pg_ctl`: line 1 is its pid, line 8 its state. A
/// connection is no substitute. The server accepts connections during recovery, and a stale socket
/// may belong to another server.
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

/// Sends one signal after another until the process ends.
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

/// Percent-encodes all characters that are not unreserved in a URL.
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
