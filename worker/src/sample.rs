//! Numbers about the whole database, for which one worker asks: the living one with the lowest id, which every worker knows
//! from its heartbeats, so that nobody has to be elected.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Row as _;

use crate::db::Lane;
use crate::worker::Worker;

const EVERY: Duration = Duration::from_secs(15);

/// Samples until everything is done, while it is this worker's turn. The others export 0: take the `max` over workers.
pub async fn run(worker: Arc<Worker>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = worker.done.cancelled() => return,
            _ = tick.tick() => {}
        }
        let sampled = if worker.is_first() { sample(&worker).await } else { Ok(Sample::default()) };
        match sampled {
            Ok(Sample { dead_rows, oldest_transaction }) => {
                for (gauge, rows) in worker.metrics.dead_rows.iter().zip(dead_rows) {
                    gauge.set(rows as f64);
                }
                worker.metrics.oldest_transaction_seconds.set(oldest_transaction);
            }
            Err(error) => drop(worker.database_failed("sample", &error)),
        }
    }
}

#[derive(Default)]
struct Sample {
    /// In the order of [`crate::metrics::TABLES`].
    dead_rows: [i64; 3],
    /// Seconds.
    oldest_transaction: f64,
}

async fn sample(worker: &Worker) -> Result<Sample, sqlx::Error> {
    let rows = worker.db.run(Lane::Control, sqlx::query(query::SAMPLE)).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut dead_rows = [0; 3];
    for (rows, table) in dead_rows.iter_mut().zip(crate::metrics::TABLES) {
        *rows = row.try_get(table)?;
    }
    Ok(Sample { dead_rows, oldest_transaction: row.try_get("oldest_transaction")? })
}
