//! `pgsaga demo`: real sagas between two banks, with every kind of fault.

use std::time::{Duration, Instant};

use clap::Args;
use pgsaga_test::embedded::Options;
use pgsaga_test::fleet::{Fleet, binary};
use pgsaga_test::scratch::ScratchDatabase;
use pgsaga_worker::db;
use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::operate::migrate::migrate;
use crate::output::out;
use crate::words::count;

pub(crate) mod bank;
mod mishap;
mod producers;
mod report;
mod screen;
mod transfer;
mod watch;

use bank::Name;
use producers::Producers;
use report::Report;
use screen::Screen;
use transfer::Urls;
use watch::Watch;

/// Upper bound on the time of the demo, so that with cleaning up it takes less than a minute.
const DEADLINE_SECONDS: u64 = 55;
/// Up to this number of transfers the deadline is the same. Each further transfer adds this many
/// milliseconds.
const DEADLINE_TRANSFERS: u64 = 5_000;
const DEADLINE_MS_PER_TRANSFER: u64 = 10;
const WORKERS: usize = 2;
const WORKERS_READY_SECONDS_MAX: u64 = 15;

/// Runs thousands of transfers between two banks that fail in every way, kills a worker halfway,
/// and checks that no money is lost and no invariant is broken.
///
/// Needs no preparation: the demo starts a private Postgres, two banks and two workers, and removes
/// everything at the end. With DATABASE_URL it creates a scratch database on that server and drops
/// it afterwards. The roles pgsaga_* stay, because all databases of a server share them.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Number of transfers, 100 to 1,000,000
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    transfers: u64,
    /// Seed that selects the transfers and the faults; random by default
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one flat JSON object as the last line instead of a table
    #[arg(long)]
    json: bool,
    /// Keep everything running until a signal, to look around
    #[arg(long)]
    keep: bool,
    /// A Postgres server to use instead of a private one, such as
    /// postgres://user:password@host:5432/name; the user may create databases and roles
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

impl Demo {
    /// Runs the demo and cleans up in any case.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let started = Instant::now();
        let server_url = self.database_url.clone().filter(|url| !url.is_empty());
        let scratch = ScratchDatabase::prepare(server_url, Options::default()).await?;
        let result = self.run_at(&scratch, started, &stop).await;
        let cleared = scratch.clear_away().await;
        result.and(cleared.map_err(Error::from))
    }

    async fn run_at(
        &self,
        scratch: &ScratchDatabase,
        started: Instant,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut fleet = Fleet::new(&scratch.url)?;
        let result = tokio::select! {
            // First, because with `--keep` the signal is the normal end.
            biased;
            result = self.play(scratch, &mut fleet, started, stop) => result,
            // Unfinished work that is dropped here is dropped together with its database.
            () = stop.cancelled() => Err(Error::stopped("run the demo to its end")),
        };
        fleet.stop().await;
        result
    }

    async fn play(
        &self,
        scratch: &ScratchDatabase,
        fleet: &mut Fleet,
        started: Instant,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let seed = self.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let mut screen = Screen::new(self.transfers);
        screen.say(&scratch.description);
        migrate(&scratch.url, false).await?;
        let pool = db::connect(&scratch.url).await?;
        sqlx::raw_sql(include_str!("sql/orders_table.sql")).execute(&pool).await?;
        // One after the other, because both create the barrier's schema.
        let (pid_a, bank_a) = start_bank(fleet, Name::BankA, seed).await?;
        let (pid_b, bank_b) = start_bank(fleet, Name::BankB, seed).await?;
        screen.say(&format!("bank_a: process {pid_a} at {bank_a}; bank_b: process {pid_b} at {bank_b}"));
        let workers = start_workers(fleet, &pool).await?;
        screen.say(&format!("workers: processes {} and {}", workers[0], workers[1]));
        let money_before = report::money(&pool).await?;
        screen.say(&format!(
            "{} transfers, half through the crate and half in plain SQL, seed {seed};\n\
             one call in ten meets a 500, a 425, a hang, or a connection lost after the work",
            count(self.transfers.cast_signed())
        ));

        let producers_stop = stop.child_token();
        let producers = Producers {
            pool: db::connect(&scratch.url).await?,
            urls: Urls { bank_a, bank_b },
            seed,
            stop: producers_stop.clone(),
        };
        let _stops_with_us = producers_stop.drop_guard();
        let producing = tokio::spawn(producers.submit(self.transfers));
        let deadline = started + self.time_max();
        let watch = Watch { fleet, pool: &pool, screen: &mut screen, transfers: self.transfers };
        let rolled_back = watch.until(deadline, producing).await?;
        let mut report = Report::make(&pool, &scratch.url, seed, money_before, rolled_back).await?;
        report.took(started.elapsed().as_secs_f64());
        pool.close().await;
        self.tell(&report, &scratch.url)?;
        if self.keep {
            tokio::select! {
                () = stop.cancelled() => {}
                failed = watch_over(fleet) => return Err(failed),
            }
        }
        match report.wrongs().as_slice() {
            [] => Ok(()),
            wrongs => Err(Error::Found(format!("the demo found: {}", wrongs.join("; ")))),
        }
    }

    fn time_max(&self) -> Duration {
        let further = self.transfers.saturating_sub(DEADLINE_TRANSFERS);
        Duration::from_secs(DEADLINE_SECONDS) + Duration::from_millis(further * DEADLINE_MS_PER_TRANSFER)
    }

    fn tell(&self, report: &Report, url: &str) -> Result<(), Error> {
        let pgsaga = binary()?;
        let pgsaga = pgsaga.display();
        let next = if self.keep {
            let gid = report.gid().unwrap_or("transfer-1");
            format!(
                "everything keeps running until Ctrl-C; try next, in another terminal:\n  \
                 {pgsaga} list --status failed --database-url '{url}'\n  \
                 {pgsaga} show {gid} --database-url '{url}'\n  \
                 psql '{url}' -c 'select * from pgsaga.queue_stats'"
            )
        } else {
            format!(
                "try next:\n  \
                 {pgsaga} demo --keep              # the same, and it stays for you to look around\n  \
                 {pgsaga} demo --transfers 10000   # more of it\n  \
                 {pgsaga} help                     # what else there is"
            )
        };
        if !self.json {
            return out(format_args!("{}\n{}\n\n{next}", report.table(), report.verdict()));
        }
        if self.keep {
            eprintln!("{next}");
        }
        out(report.json())
    }
}

/// Starts a bank and waits until it listens. Returns its process id and its URL.
async fn start_bank(fleet: &mut Fleet, bank: Name, seed: u64) -> Result<(u32, String), Error> {
    let (name, seed) = (bank.as_str(), seed.to_string());
    let arguments = ["demo-bank", "--log-level", "warn", "--name", name, "--seed", &seed];
    let bank = fleet.start(name.to_owned(), &arguments)?;
    Ok((bank.pid, bank.first_line().await?))
}

/// Starts a worker and does not wait for it. Returns its process id.
fn start_worker(fleet: &mut Fleet) -> Result<u32, Error> {
    // More concurrent calls would queue in the banks until they time out. The shortest lease makes
    // the death of a worker visible soonest.
    Ok(fleet.start_worker(&["--concurrency", "48", "--lease-seconds", "2", "--grace-seconds", "1"])?.pid)
}

/// Starts the workers and waits until they have registered.
async fn start_workers(fleet: &mut Fleet, pool: &PgPool) -> Result<[u32; WORKERS], Error> {
    let pids = [start_worker(fleet)?, start_worker(fleet)?];
    let deadline = Instant::now() + Duration::from_secs(WORKERS_READY_SECONDS_MAX);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while sqlx::query(include_str!("sql/workers.sql")).fetch_all(pool).await?.len() < WORKERS {
        fleet.check()?;
        if Instant::now() > deadline {
            let late = format!("the workers were not ready within {WORKERS_READY_SECONDS_MAX} s");
            return Err(Error::other("start the workers", late));
        }
        tick.tick().await;
    }
    Ok(pids)
}

/// Returns only if a child ends by itself.
async fn watch_over(fleet: &mut Fleet) -> Error {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        if let Err(error) = fleet.check() {
            return error.into();
        }
    }
}
