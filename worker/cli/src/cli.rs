//! The command line: flags, environment, logging, and which command runs.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::error::Error;
use crate::{bench, demo, echo, operate, output, signals, ui, words, work};
use pgsaga_test::child::{ChildArgs, run_child};
use pgsaga_worker::db::Hosts;

const URL_FLAG: &str = "--database-url";
/// The level of the log, by default.
const INFO: &str = "info";

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `work`: stopped by a signal and drained
  1  something is wrong (doctor, demo, health, verify), or a saga's state forbids a decision
  2  a flag, a variable or a file is not as it must be
  3  the schema does not fit this release: run `pgsaga migrate`, or upgrade
  4  no saga has that gid, no step that name, or no saga was ever in that queue
  5  the database answered with an error, or not at all
  6  anything else
  130  ended at once by a second signal";

/// Keeps data in many services consistent with nothing but Postgres.
#[derive(Debug, Parser)]
#[command(name = "pgsaga", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

/// Options of the log, which goes to standard error.
#[derive(Debug, Args)]
struct Log {
    /// Format of the log on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "PGSAGA_LOG_FORMAT",
        help_heading = "Logging"
    )]
    log_format: LogFormat,
    /// error, warn, info, debug or trace; or per target, such as `info,pgsaga_worker::settle=debug`
    #[arg(long, global = true, default_value = INFO, env = "PGSAGA_LOG_LEVEL", help_heading = "Logging")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object for each line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create or upgrade the schema `pgsaga` in a database
    Migrate(operate::migrate::Migrate),
    /// Run a worker: claim steps, call participants, compensate
    Work(work::Work),
    Show(operate::show::Show),
    List(operate::list::List),
    #[command(flatten)]
    Decide(operate::decide::Command),
    Queues(operate::queues::Queues),
    Pause(operate::queues::Pause),
    Resume(operate::queues::Resume),
    /// Validate a file of steps without a database
    Check(operate::check::Check),
    Verify(operate::verify::Verify),
    /// Check every invariant of a database in one snapshot
    Doctor(operate::doctor::Doctor),
    Health(operate::health::Health),
    Ui(ui::Ui),
    /// Run a participant that accepts every call, to try pgsaga without services of your own
    Echo(echo::Echo),
    /// Run sagas that succeed and compensate, in a temporary environment
    Demo(demo::Demo),
    /// Measure throughput, latency and cost, and compare them with this machine's limits
    Bench(bench::Bench),
    /// Run a process of a demo or a bench, which ends with it
    #[command(hide = true)]
    Child(ChildArgs),
    /// Run one of the demo's two banks
    #[command(hide = true)]
    DemoBank(demo::bank::Bank),
}

/// Runs the command of this process and returns its exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| with_example(error).exit());
    let access = cli.command.access();
    let result =
        unknown_variables().and_then(|()| start_log(&cli.log, &cli.command)).and_then(|()| run(cli.command));
    let result = result.map_err(|error| match access {
        Some((user, role)) => error.explain(&user, role),
        None => error,
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it, which is no error.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Adds to an error about the database's URL where the URL may come from, and how it looks.
fn with_example(mut error: clap::Error) -> clap::Error {
    let is_about_url = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(flags)) => flags.iter().any(|flag| flag.starts_with(URL_FLAG)),
        Some(ContextValue::String(flag)) => flag.starts_with(URL_FLAG),
        _ => false,
    };
    if is_about_url {
        let tip =
            format!("set DATABASE_URL, or give {URL_FLAG}, such as postgres://user:password@host:5432/name");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

impl Command {
    /// The user that the command logs in as, and the role whose rights it needs.
    fn access(&self) -> Option<(String, &'static str)> {
        const READER: &str = "pgsaga_reader";
        const OPERATOR: &str = "pgsaga_operator";
        let (database, role) = match self {
            Command::Show(show) => (&show.database, READER),
            Command::List(list) => (&list.database, READER),
            Command::Queues(queues) => (&queues.database, READER),
            Command::Doctor(doctor) => (&doctor.database, READER),
            Command::Decide(decide) => (decide.database(), OPERATOR),
            Command::Pause(pause) => (&pause.database, OPERATOR),
            Command::Resume(resume) => (&resume.database, OPERATOR),
            _ => return None,
        };
        // A URL that cannot be read is refused when the command connects.
        let hosts = Hosts::read(&database.database_url, true, Duration::ZERO).ok()?;
        Some((hosts.user().to_owned(), role))
    }
}

fn run(command: Command) -> Result<(), Error> {
    // Before any thread is started.
    if let Command::Child(child) = command {
        return Err(Error::Io { doing: "run a child".to_owned(), source: run_child(child) });
    }
    // The TLS build has no default provider, so one must be installed before the first client is
    // built. A second installation is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let handles_signals = match &command {
        Command::Work(_)
        | Command::Ui(_)
        | Command::Echo(_)
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::DemoBank(_)
        | Command::Verify(_) => true,
        Command::List(list) => list.is_watching(),
        _ => false,
    };
    if !handles_signals {
        signals::release();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    runtime.block_on(async {
        match command {
            Command::Work(work) => work.run(signals::stop_on_signal()?).await,
            Command::Ui(ui) => ui.run(signals::stop_on_signal()?).await,
            Command::Echo(echo) => echo.run(signals::stop_on_signal()?).await,
            Command::Demo(demo) => demo.run(signals::stop_on_signal()?).await,
            Command::Bench(bench) => bench.run(signals::stop_on_signal()?).await,
            Command::DemoBank(bank) => bank.run(signals::stop_on_signal()?).await,
            Command::Verify(verify) => verify.run(signals::stop_on_signal()?).await,
            Command::Migrate(migrate) => migrate.run().await,
            Command::Show(show) => show.run().await,
            Command::List(list) => list.run().await,
            Command::Decide(decide) => decide.run().await,
            Command::Queues(queues) => queues.run().await,
            Command::Pause(pause) => pause.run().await,
            Command::Resume(resume) => resume.run().await,
            Command::Check(check) => check.run(),
            Command::Doctor(doctor) => doctor.run().await,
            Command::Health(health) => health.run().await,
            Command::Child(_) => Ok(()),
        }
    })
}

/// Kubernetes sets these variables in every pod for a Service named `pgsaga` or `pgsaga-…`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// Refuses unknown variables, because a misspelt variable would silently leave a default in force.
fn unknown_variables() -> Result<(), Error> {
    let mut known = BTreeSet::from(["PGSAGA_PG_BIN".to_owned(), ui::TOKEN_VARIABLE.to_owned()]);
    let command = Cli::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        known.extend(
            command
                .get_arguments()
                .filter_map(|arg| arg.get_env())
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("PGSAGA_") && !known.contains(&*name) && !is_service_link(&name) {
            let allowed: Vec<&str> =
                known.iter().map(String::as_str).filter(|name| name.starts_with("PGSAGA_")).collect();
            return Err(Error::Usage(format!(
                "the environment variable {name} is unknown; allowed: {}",
                allowed.join(", ")
            )));
        }
    }
    Ok(())
}

fn start_log(log: &Log, command: &Command) -> Result<(), Error> {
    // Its workers are cut off on purpose, and would say so.
    let is_quiet = matches!(command, Command::Verify(_)) && log.log_level == INFO;
    let level = if is_quiet { "warn,pgsaga_worker=off" } else { &log.log_level };
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Error::Usage(format!("--log-level {:?} cannot be read: {error}; allowed: error, warn, info, debug, trace, or target=level, comma separated", level))
    })?;
    // Warnings of libraries about errors that are reported anyway, one with whole span stacks, one
    // with lines of Postgres' C source.
    let quiet = ["reqwest_retry=off", "sqlx_core::pool::connection=off"].map(str::parse);
    let filter = quiet.into_iter().flatten().fold(filter, EnvFilter::add_directive);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.log_format {
        LogFormat::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => subscriber.json().with_writer(|| JsonLog).init(),
    }
    Ok(())
}

/// Standard error for JSON lines. People read logs on terminals, and a log contains text of
/// participants.
struct JsonLog;

impl std::io::Write for JsonLog {
    /// Each call writes one whole event.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let event_shown = words::printable_json(&String::from_utf8_lossy(event));
        std::io::stderr().write_all(event_shown.as_bytes()).map(|()| event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
