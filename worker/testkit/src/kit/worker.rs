//! A worker of the shipped engine, in the test's process.

use std::time::{Duration, Instant};

use pgsaga_sql::query;
use pgsaga_worker::{Error as WorkerError, not_ready};
use sqlx::postgres::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How often the kit looks whether something has happened.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    /// Starts a worker, and waits until it works.
    pub(super) async fn start(builder: pgsaga_worker::Builder, patience: Duration) -> Result<Running, Error> {
        let worker = builder.build()?;
        let status = worker.status();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let ended = tokio::spawn(worker.run_until(async move { stopped.cancelled().await }));
        let mut running = Running { stop, ended };
        let started = Instant::now();
        while !not_ready(&status).is_empty() {
            if running.ended.is_finished() {
                return Err(running.end().await.err().unwrap_or(Error::NoWorker("it ended".to_owned())));
            }
            if started.elapsed() > patience {
                let why = not_ready(&status).join("; ");
                running.kill().await;
                return Err(Error::NoWorker(why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(running)
    }

    /// Stops it, as SIGTERM stops a worker.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        self.end().await
    }

    async fn end(&mut self) -> Result<(), Error> {
        match (&mut self.ended).await {
            Ok(ended) => Ok(ended?),
            Err(error) => Err(Error::NoWorker(error.to_string())),
        }
    }

    /// Ends it at once, as SIGKILL ends a process.
    pub(super) async fn kill(mut self) {
        self.ended.abort();
        // That it was cancelled is what was asked for.
        drop((&mut self.ended).await);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.abort();
    }
}

/// Declares the workers dead that cannot come back. Others would find out after a lease.
pub(super) async fn declare_dead(pool: &PgPool, patience: Duration) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let living: Vec<(i64, i64)> =
            sqlx::query_as(include_str!("sql/living_workers.sql")).fetch_all(pool).await?;
        if living.is_empty() {
            return Ok(());
        }
        // A statement of a dead worker may still run in the server. Its row is skipped until then.
        for (id, beat) in living {
            sqlx::query(query::DECLARE_DEAD).bind(id).bind(beat).execute(pool).await?;
        }
        if started.elapsed() > patience {
            return Err(Error::NoWorker("a statement of a worker that has ended does not end".to_owned()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
