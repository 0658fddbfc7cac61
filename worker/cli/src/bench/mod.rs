//! `pgsaga bench`: measures pgsaga on this machine, beside the machine's limits.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::output::out;
use crate::words::span;

mod limits;
mod load;
mod report;
mod rig;
mod run;
mod scenario;
mod screen;
mod stub;
mod times;
mod usage;

use report::Report;
use rig::Rig;
use scenario::backlog::Backlog;
use scenario::jobs;
use screen::Screen;

/// Measures sagas per second, latencies and costs with real workers, a real Postgres and real HTTP
/// on this machine. The same run measures the upper limit of each part. Needs no preparation, and
/// leaves nothing behind.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// Scenario to measure
    #[arg(long, value_enum, default_value = "steady", value_name = "NAME")]
    scenario: Scenario,
    /// Steps of a saga, 1 to 100 [default: 2; rollback: 3; one-step-http: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    steps: Option<u16>,
    /// Bytes of payload in each step, 0 to 100,000
    #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    payload_bytes: u32,
    /// Worker processes, 1 to 32 [default: 1; latency: 3; idle: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    workers: Option<u16>,
    /// Upper bound on the concurrent calls of each worker; by default that of `pgsaga work`, and 16
    /// for transactional
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Option<u32>,
    /// Connections that insert sagas, 1 to 128 [default: 2; producers: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    producers: Option<u16>,
    /// Sagas in one INSERT of the producer crate, 1 to 1,000; 1 uses the crate's INSERT of one saga
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Duration of the measurement, 1 to 36,000 seconds [default: 30; held-snapshot: 600; idle:
    /// 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=36_000))]
    duration_seconds: Option<u64>,
    /// Number of sagas that wait before the workers start, for backlog (default 1,000,000),
    /// one-step, one-step-http and transactional (200,000), or that have finished, for history
    /// (5,000,000)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    sagas: Option<u64>,
    /// Print one flat JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// A Postgres server to use instead of a private one, such as
    /// postgres://user:password@host:5432/name. The user may create databases and roles. The server
    /// is measured with its own settings; the private one has fsync and synchronous_commit on
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Insert sagas in batches as fast as sagas end, and compare with the machine's limit (two
    /// minutes)
    Steady,
    /// Like steady, with 1, 2 and 4 worker processes (three minutes)
    SteadyWorkers,
    /// Refuse every saga at its last step, so that it is compensated (two minutes)
    Rollback,
    /// Hold one transaction open all the time, and compare with a run without it (25 minutes)
    HeldSnapshot,
    /// Run with millions of finished sagas in the tables while retention deletes them, and compare
    /// with empty tables (ten minutes)
    History,
    /// Start workers with a million due sagas (six minutes)
    Backlog,
    /// Insert one saga at a time while all workers are idle (one minute)
    Latency,
    /// Insert at half of the steady rate (two minutes)
    HalfLoad,
    /// Insert single sagas from many clients, and compare with INSERTs into a bare table (four
    /// minutes)
    Producers,
    /// Send a fifth of all sagas to an address that does not answer (two minutes)
    DeadParticipant,
    /// Run workers with nothing to do (two minutes)
    Idle,
    /// Start a worker with 200,000 due sagas of one step, whose handler does nothing, in the same
    /// process (one minute)
    OneStep,
    /// The same with a participant behind HTTP (two minutes)
    OneStepHttp,
    /// The same with a handler that writes one row in its transaction, and compare with such
    /// transactions without sagas (two minutes)
    Transactional,
}

impl Bench {
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let started = Instant::now();
        let server_url = self.database_url.clone().filter(|url| !url.is_empty());
        let rig = Rig::set_up(server_url, self.scenario == Scenario::HeldSnapshot).await?;
        let mut screen = Screen::new();
        screen.say(rig.description());
        let result = tokio::select! {
            result = self.measure(&rig, &mut screen) => result,
            () = stop.cancelled() => Err(Error::stopped("measure")),
        };
        screen.finish();
        let cleared = rig.clear_away().await;
        let report = result?;
        cleared?;
        if self.json {
            return out(report.json());
        }
        out(report.table())?;
        out(format_args!(
            "\n{} ({})",
            report.verdict(),
            span(Duration::from_secs(started.elapsed().as_secs()))
        ))
    }

    async fn measure(&self, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
        match self.scenario {
            Scenario::Steady => scenario::steady::steady(self, rig, screen).await,
            Scenario::SteadyWorkers => scenario::steady::workers(self, rig, screen).await,
            Scenario::Rollback => scenario::steady::rollback(self, rig, screen).await,
            Scenario::HalfLoad => scenario::steady::half_load(self, rig, screen).await,
            Scenario::DeadParticipant => scenario::steady::dead_participant(self, rig, screen).await,
            Scenario::HeldSnapshot => scenario::held_snapshot::measure(self, rig, screen).await,
            Scenario::History => scenario::history::measure(self, rig, screen).await,
            Scenario::Backlog => {
                let backlog = Backlog { steps: 2, sagas: 1_000_000 };
                scenario::backlog::measure(self, rig, screen, backlog).await
            }
            Scenario::OneStepHttp => {
                let backlog = Backlog { steps: 1, sagas: jobs::SAGAS };
                scenario::backlog::measure(self, rig, screen, backlog).await
            }
            Scenario::OneStep => jobs::one_step(self, rig, screen).await,
            Scenario::Transactional => jobs::transactional(self, rig, screen).await,
            Scenario::Latency => scenario::latency::measure(self, rig, screen).await,
            Scenario::Producers => scenario::producers::measure(self, rig, screen).await,
            Scenario::Idle => scenario::idle::measure(self, rig, screen).await,
        }
    }
}
