//! The environment of a measurement: a server, its databases, and workers.

use std::time::Duration;

use pgsaga_test::embedded::Options;
use pgsaga_test::fleet::Fleet;
use pgsaga_test::scratch::ScratchDatabase;
use pgsaga_worker::db;
use sqlx::postgres::PgPool;
use tokio::time::Instant;

use super::screen::Screen;
use super::usage;
use crate::error::Error;
use crate::operate::migrate::migrate;

/// Settings of a private server, as in production on such a machine. Durability stays on.
const SETTINGS: [(&str, &str); 6] = [
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
    ("max_connections", "300"),
    ("track_io_timing", "off"),
];

pub(crate) struct Rig {
    server: ScratchDatabase,
}

impl Rig {
    /// Uses the given server or starts a private one. The private server counts the buffers of
    /// statements if `counts_buffers`.
    pub(crate) async fn set_up(server_url: Option<String>, counts_buffers: bool) -> Result<Rig, Error> {
        let counts = counts_buffers.then_some(("shared_preload_libraries", "pg_stat_statements"));
        let settings = SETTINGS.into_iter().chain(counts);
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let options = Options { settings, ..Options::default() };
        Ok(Rig { server: ScratchDatabase::prepare(server_url, options).await? })
    }

    pub(crate) fn description(&self) -> &str {
        &self.server.description
    }

    /// The process of a private server.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        self.server.postmaster()
    }

    /// Measures in a migrated database of its own, and drops the database in any case.
    pub(crate) async fn in_database<T>(
        &self,
        measure: impl AsyncFnOnce(&Database) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let place = ScratchDatabase::prepare(Some(self.server.url.clone()), Options::default()).await?;
        let url = place.url.clone();
        let measured = async {
            migrate(&url, false).await?;
            let database = Database { pool: db::connect(&url).await?, url };
            if self.postmaster().is_some() {
                // A checkpoint for each measurement, because full-page images are written once
                // after each checkpoint.
                sqlx::raw_sql("checkpoint").execute(&database.pool).await?;
            }
            let measured = measure(&database).await;
            database.pool.close().await;
            measured
        };
        let measured = measured.await;
        let cleared = place.clear_away().await;
        let measured = measured?;
        cleared?;
        Ok(measured)
    }

    pub(crate) async fn clear_away(self) -> Result<(), Error> {
        Ok(self.server.clear_away().await?)
    }
}

pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) url: String,
}

impl Database {
    /// Inserts this many due sagas with these steps in one statement.
    pub(crate) async fn fill(&self, steps: &str, sagas: i64) -> Result<(), Error> {
        sqlx::query(include_str!("sql/setup/fill.sql")).bind(steps).bind(sagas).execute(&self.pool).await?;
        Ok(())
    }

    /// Analyses the tables and writes their pages, as would happen some time after a bulk insert.
    pub(crate) async fn settle_down(&self) -> Result<(), Error> {
        for statement in include_str!("sql/setup/settle_down.sql").split(';') {
            sqlx::raw_sql(statement).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Measures with this many workers, and stops them in any case.
    pub(crate) async fn with_workers<T>(
        &self,
        workers: usize,
        flags: &[String],
        measure: impl AsyncFnOnce(&mut Workers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut workers = Workers::start(&self.url, workers, flags).await?;
        let measured = measure(&mut workers).await;
        workers.stop().await;
        measured
    }
}

/// Upper bound on the time until workers are ready.
const READY_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Workers {
    fleet: Fleet,
    pids: Vec<u32>,
    metrics: Vec<String>,
}

impl Workers {
    /// Starts workers and waits until they are ready.
    pub(crate) async fn start(url: &str, workers: usize, flags: &[String]) -> Result<Workers, Error> {
        let mut started = Workers { fleet: Fleet::new(url)?, pids: Vec::new(), metrics: Vec::new() };
        match started.start_all(workers, flags).await {
            Ok(()) => Ok(started),
            Err(error) => {
                started.stop().await;
                Err(error)
            }
        }
    }

    async fn start_all(&mut self, workers: usize, flags: &[String]) -> Result<(), Error> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        for _ in 0..workers {
            let worker = self.fleet.start_worker(&flags)?;
            self.pids.push(worker.pid);
            let address = worker.listens_at().await?;
            self.metrics.push(format!("http://{address}/metrics"));
        }
        let deadline = Instant::now() + READY_MAX;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            self.check()?;
            if self.read().await?.iter().all(|metrics| metrics.value("pgsaga_ready") > 0.0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let late = format!("not ready within {} s", READY_MAX.as_secs());
                return Err(Error::other("start the workers", late));
            }
        }
    }

    pub(crate) fn check(&mut self) -> Result<(), Error> {
        Ok(self.fleet.check()?)
    }

    pub(crate) async fn read(&self) -> Result<Vec<Metrics>, Error> {
        let mut all = Vec::new();
        for url in &self.metrics {
            all.push(Metrics::read(url).await?);
        }
        Ok(all)
    }

    /// Average tasks of a claim and of a settle since an earlier reading.
    pub(crate) async fn groups(&self, before: &[Metrics]) -> Result<Groups, Error> {
        Ok(groups(before, &self.read().await?))
    }

    /// Seconds of CPU that all workers have used.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        self.pids.iter().map(|pid| usage::cpu_seconds(*pid)).sum()
    }

    /// Peak memory in bytes of the worker that used most.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| usage::peak_memory_bytes(*pid)).max()
    }

    /// Current memory in bytes of the worker that uses most.
    pub(crate) fn memory_now_bytes(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| usage::memory_now_bytes(*pid)).max()
    }

    pub(crate) async fn stop(self) {
        self.fleet.stop().await;
    }
}

/// Average sizes of a worker's groups, in tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) claim: f64,
    pub(crate) settle: f64,
}

/// Average tasks of a claim and of a settle between two readings of the same workers.
pub(crate) fn groups(before: &[Metrics], now: &[Metrics]) -> Groups {
    let sum =
        |metrics: &[Metrics], name: &str| metrics.iter().map(|metrics| metrics.value(name)).sum::<f64>();
    let mean = |name: &str| {
        let grown = |suffix| {
            let name = format!("{name}_{suffix}");
            sum(now, &name) - sum(before, &name)
        };
        let (sum, count) = (grown("sum"), grown("count"));
        if count > 0.0 { sum / count } else { 0.0 }
    };
    Groups { claim: mean("pgsaga_claim_tasks"), settle: mean("pgsaga_settle_group_tasks") }
}

pub(crate) struct Metrics(String);

impl Metrics {
    /// Reads the metrics of a worker.
    pub(crate) async fn read(url: &str) -> Result<Metrics, Error> {
        let read = async { reqwest::get(url).await?.text().await };
        Ok(Metrics(read.await.map_err(|error| Error::other(format!("read {url}"), error))?))
    }

    /// A metric without labels; 0 if the worker has not reported it yet.
    fn value(&self, name: &str) -> f64 {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .find_map(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    }
}

/// Waits until a phase ends, and regularly checks the workers and shows the number of sagas or
/// calls.
pub(crate) async fn pass(
    screen: &mut Screen,
    phase: &str,
    duration: Duration,
    mut look: impl FnMut() -> Result<u64, Error>,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while started.elapsed() < duration {
        tokio::select! {
            () = tokio::time::sleep_until(started + duration) => {}
            _ = tick.tick() => {}
        }
        screen.show(phase, started.elapsed(), Some(duration), look()?);
    }
    Ok(())
}
