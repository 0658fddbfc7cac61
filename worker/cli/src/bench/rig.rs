//! What everything is measured on: a server, and databases and workers on it.

use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::time::Instant;

use super::screen::Screen;
use super::usage;
use crate::error::Error;
use crate::fleet::{Fleet, LOOPBACK, binary};
use crate::operate::migrate::migrate;
use pgsaga_test::scratch::ScratchDatabase;
use pgsaga_worker::db;

/// How the server of our own is set up: as one in production on a machine like this. Durability is not touched.
const SETTINGS: [(&str, &str); 6] = [
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
    ("max_connections", "300"),
    ("track_io_timing", "off"),
];
/// How long workers may take until they are ready.
const READY_MAX: Duration = Duration::from_secs(30);

/// The server.
pub(crate) struct Rig {
    server: ScratchDatabase,
}

impl Rig {
    /// A server of our own, which may have to count the buffers of statements, or the one given.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) async fn set_up(server_url: Option<String>, counts_buffers: bool) -> Result<Rig, Error> {
        let counts = counts_buffers.then_some(("shared_preload_libraries", "pg_stat_statements"));
        let settings: Vec<_> = SETTINGS.into_iter().chain(counts).collect();
        Ok(Rig { server: ScratchDatabase::prepare(server_url, &binary()?, &settings).await? })
    }

    /// Which server this is, in words.
    pub(crate) fn description(&self) -> &str {
        &self.server.description
    }

    /// Its process, if it is our own.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        self.server.postmaster()
    }

    /// Measures in a database of its own, with our schema, and drops it, whatever happens.
    ///
    /// # Errors
    /// What `measure` says, and what the server says.
    pub(crate) async fn in_database<T>(
        &self,
        measure: impl AsyncFnOnce(&Database) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let database = self.database().await?;
        let measured = measure(&database).await;
        let cleared = database.clear_away().await;
        let measured = measured?;
        cleared.map(|()| measured)
    }

    async fn database(&self) -> Result<Database, Error> {
        let place = ScratchDatabase::prepare(Some(self.server.url.clone()), &binary()?, &[]).await?;
        let made = async {
            migrate(&place.url, false).await?;
            let pool = db::connect(&place.url).await?;
            if self.postmaster().is_some() {
                // Full-page images are written once a checkpoint: each measurement has its own.
                sqlx::raw_sql("checkpoint").execute(&pool).await?;
            }
            Ok(pool)
        };
        match made.await {
            Ok(pool) => Ok(Database { pool, place }),
            Err(error) => {
                place.clear_away().await?;
                Err(error)
            }
        }
    }

    /// Stops the server, if it is ours.
    ///
    /// # Errors
    /// When it does not stop.
    pub(crate) async fn clear_away(self) -> Result<(), Error> {
        Ok(self.server.clear_away().await?)
    }
}

/// One database.
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    place: ScratchDatabase,
}

impl Database {
    /// How to connect to it.
    pub(crate) fn url(&self) -> &str {
        &self.place.url
    }

    /// Inserts so many due sagas with these steps at once.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) async fn fill(&self, steps: &str, sagas: i64) -> Result<(), Error> {
        sqlx::query(include_str!("sql/fill.sql")).bind(steps).bind(sagas).execute(&self.pool).await?;
        Ok(())
    }

    /// After a bulk insert: analysed, and its pages written, as they would be after a while.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) async fn settle_down(&self) -> Result<(), Error> {
        for statement in include_str!("sql/settle_down.sql").split(';') {
            sqlx::raw_sql(statement).execute(&self.pool).await?;
        }
        Ok(())
    }

    async fn clear_away(self) -> Result<(), Error> {
        self.pool.close().await;
        Ok(self.place.clear_away().await?)
    }
}

/// Running workers, as they come.
pub(crate) struct Workers {
    fleet: Fleet,
    pids: Vec<u32>,
    metrics: Vec<String>,
}

impl Workers {
    /// Starts them and waits until they are ready.
    ///
    /// # Errors
    /// When one does not start.
    pub(crate) async fn start(url: &str, workers: usize, flags: &[String]) -> Result<Workers, Error> {
        let mut started = Workers { fleet: Fleet::new(url)?, pids: Vec::new(), metrics: Vec::new() };
        let result = started.start_all(workers, flags).await;
        match result {
            Ok(()) => Ok(started),
            Err(error) => {
                started.stop().await;
                Err(error)
            }
        }
    }

    async fn start_all(&mut self, workers: usize, flags: &[String]) -> Result<(), Error> {
        let mut arguments =
            vec!["work", "--listen", "127.0.0.1:0", "--log-format", "json", "--allow-address", LOOPBACK];
        arguments.extend(flags.iter().map(String::as_str));
        for number in 1..=workers {
            let worker = self.fleet.spawn(format!("worker-{number}"), &arguments)?;
            self.pids.push(worker.pid);
            let address = worker.listens_at().await?;
            self.metrics.push(format!("http://{address}/metrics"));
        }
        let deadline = Instant::now() + READY_MAX;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            self.fleet.check()?;
            let mut ready = 0;
            for metrics in self.read().await? {
                ready += usize::from(metrics.value("pgsaga_ready") > 0.0);
            }
            if ready == workers {
                return Ok(());
            }
            if Instant::now() > deadline {
                let late = std::io::Error::other(format!("not ready within {} s", READY_MAX.as_secs()));
                return Err(Error::Io { doing: "start the workers".to_owned(), source: late });
            }
        }
    }

    /// Complains when one ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        self.fleet.check()
    }

    /// What each says of itself.
    ///
    /// # Errors
    /// When one does not answer.
    pub(crate) async fn read(&self) -> Result<Vec<Metrics>, Error> {
        let mut all = Vec::new();
        for url in &self.metrics {
            let read = async { reqwest::get(url).await?.text().await };
            let text = read.await.map_err(|error| Error::Io {
                doing: format!("read {url}"),
                source: std::io::Error::other(error),
            })?;
            all.push(Metrics(text));
        }
        Ok(all)
    }

    /// Tasks of a claim and of a settle, on average since a former reading.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub(crate) async fn groups(&self, before: &[Metrics]) -> Result<Groups, Error> {
        let now = self.read().await?;
        let mean = |name: &str| {
            let grown = |suffix: &str| {
                let sum = |metrics: &[Metrics]| -> f64 {
                    metrics.iter().map(|metrics| metrics.value(&format!("{name}_{suffix}"))).sum()
                };
                sum(&now) - sum(before)
            };
            let (sum, count) = (grown("sum"), grown("count"));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        Ok(Groups { claim: mean("pgsaga_claim_tasks"), settle: mean("pgsaga_settle_group_tasks") })
    }

    /// Seconds of CPU that they have used.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        self.pids.iter().map(|pid| usage::cpu_seconds(*pid)).sum()
    }

    /// The most memory that one of them has had, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| usage::peak_memory_bytes(*pid)).max()
    }

    /// The most memory that one of them has now, in bytes.
    pub(crate) fn memory_now_bytes(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| usage::memory_now_bytes(*pid)).max()
    }

    /// Stops them.
    pub(crate) async fn stop(self) {
        self.fleet.stop().await;
    }
}

/// How large a worker's groups are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) claim: f64,
    pub(crate) settle: f64,
}

/// One reading of a worker's /metrics.
pub(crate) struct Metrics(String);

impl Metrics {
    /// A metric without labels; 0 where it is not there yet.
    fn value(&self, name: &str) -> f64 {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .find_map(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    }
}

/// Waits while a phase runs, and looks every so often whether all is well.
///
/// # Errors
/// What `look` says.
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
        let sagas = look()?;
        screen.show(phase, started.elapsed(), Some(duration), sagas);
    }
    Ok(())
}
