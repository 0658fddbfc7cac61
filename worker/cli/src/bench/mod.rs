//! `pgsaga bench`: how fast it is on this machine, beside what the machine could do at best.

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
use screen::Screen;

/// Measures sagas a second, latencies and costs, with real workers, a real Postgres and real HTTP
/// on this machine, and beside them what its parts could do at best in the same run. Needs no
/// preparation, and leaves nothing behind.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// What is measured
    #[arg(long, value_enum, default_value = "steady", value_name = "NAME")]
    scenario: Scenario,
    /// Steps of a saga, 1 to 100 [default: 2; rollback: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    steps: Option<u16>,
    /// Bytes of payload of a step, 0 to 100,000
    #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    payload_bytes: u32,
    /// Worker processes, 1 to 32 [default: 1; latency: 3; idle: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    workers: Option<u16>,
    /// Calls at once of each worker; without it, they run as `pgsaga work` comes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Option<u32>,
    /// Connections that insert, 1 to 128 [default: 2; producers: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    producers: Option<u16>,
    /// Sagas of one INSERT through the crate, 1 to 1,000; 1 is the crate's single INSERT
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// How long the load is measured, 1 to 36,000 seconds [default: 30; held-snapshot: 600; idle:
    /// 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=36_000))]
    duration_seconds: Option<u64>,
    /// How many sagas there are before the workers start, for backlog (default 1,000,000), or have
    /// finished, for history (default 5,000,000)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    sagas: Option<u64>,
    /// Print one flat JSON object as the only line instead of a table
    #[arg(long)]
    json: bool,
    /// A Postgres server to use instead of one of its own, such as
    /// postgres://user:password@host:5432/name; the user may create databases and roles. It is
    /// measured as it is set up; its own has fsync and synchronous_commit on
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Sagas inserted in batches as fast as they end: the ratio to the machine's limit (two
    /// minutes)
    Steady,
    /// The same with 1, 2 and 4 worker processes (three minutes)
    SteadyWorkers,
    /// Every saga is refused at its last step and undone (two minutes)
    Rollback,
    /// One transaction held open all the time, beside the same without (25 minutes)
    HeldSnapshot,
    /// Millions of finished sagas in the tables, while retention deletes them, beside empty tables
    /// (ten minutes)
    History,
    /// A million due sagas before the workers start (six minutes)
    Backlog,
    /// One saga at a time into an idle fleet (a minute)
    Latency,
    /// Half of the steady rate (two minutes)
    HalfLoad,
    /// Single INSERTs of many clients beside the same into a bare table (four minutes)
    Producers,
    /// A fifth of all sagas go to an address that does not answer (two minutes)
    DeadParticipant,
    /// Workers with nothing to do (two minutes)
    Idle,
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
            Scenario::Backlog => scenario::backlog::measure(self, rig, screen).await,
            Scenario::Latency => scenario::latency::measure(self, rig, screen).await,
            Scenario::Producers => scenario::producers::measure(self, rig, screen).await,
            Scenario::Idle => scenario::idle::measure(self, rig, screen).await,
        }
    }
}
