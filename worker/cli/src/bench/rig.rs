//! What everything is measured on: a server, and databases on it.

use std::time::Duration;

use pgsaga_test::fleet::binary;
use pgsaga_test::scratch::ScratchDatabase;
use pgsaga_worker::db;
use sqlx::postgres::PgPool;
use tokio::time::Instant;

use super::screen::Screen;
use super::workers::Workers;
use crate::error::Error;
use crate::operate::migrate::migrate;

/// Settings of a server of our own: as in production on a machine like this. Durability is not
/// touched.
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
    /// A server of our own, or the given one. Ours counts the buffers of statements if
    /// `counts_buffers`.
    pub(crate) async fn set_up(server_url: Option<String>, counts_buffers: bool) -> Result<Rig, Error> {
        let counts = counts_buffers.then_some(("shared_preload_libraries", "pg_stat_statements"));
        let settings: Vec<_> = SETTINGS.into_iter().chain(counts).collect();
        Ok(Rig { server: ScratchDatabase::prepare(server_url, &binary()?, &settings).await? })
    }

    pub(crate) fn description(&self) -> &str {
        &self.server.description
    }

    /// The process of a server of our own.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        self.server.postmaster()
    }

    /// Measures in a migrated database of its own, and drops the database whatever happens.
    pub(crate) async fn in_database<T>(
        &self,
        measure: impl AsyncFnOnce(&Database) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let place = ScratchDatabase::prepare(Some(self.server.url.clone()), &binary()?, &[]).await?;
        let url = place.url.clone();
        let measured = async {
            migrate(&url, false).await?;
            let database = Database { pool: db::connect(&url).await?, url };
            if self.postmaster().is_some() {
                // Full-page images are written once a checkpoint: each measurement has its own.
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
    /// Inserts so many due sagas with these steps at once.
    pub(crate) async fn fill(&self, steps: &str, sagas: i64) -> Result<(), Error> {
        sqlx::query(include_str!("sql/fill.sql")).bind(steps).bind(sagas).execute(&self.pool).await?;
        Ok(())
    }

    /// After a bulk insert: analysed, and its pages written, as they would be after a while.
    pub(crate) async fn settle_down(&self) -> Result<(), Error> {
        for statement in include_str!("sql/settle_down.sql").split(';') {
            sqlx::raw_sql(statement).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Measures with so many workers, and stops them whatever happens.
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

/// Waits while a phase runs, and looks every so often whether all is well and how many sagas or
/// calls there were.
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
