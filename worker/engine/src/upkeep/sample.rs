//! Numbers about the whole database, for which one worker asks: the living one with the lowest id, which every worker knows
//! from its heartbeats, so that nobody has to be elected, also behind a pooler. The same numbers are views for people
//! (sql/migrations/0009).

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::db::Lane;
use crate::telemetry::metrics::{Loop, OfQueue, TABLES};
use crate::worker::Worker;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(15);
/// How often a worker looks whether it is its turn: heartbeats tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Counting millions of tasks takes a second: it takes at most one part in so many of the time.
const PART: u32 = 100;

/// Samples until everything is done, while it is this worker's turn. The others export 0: take the `max` over workers.
pub async fn run(worker: Arc<Worker>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due = Instant::now();
    let mut sampled = false;
    loop {
        worker.metrics.tick(Loop::Sample);
        tokio::select! {
            () = worker.done.cancelled() => return,
            _ = tick.tick() => {}
        }
        let started = Instant::now();
        if !worker.is_first() || !worker.schema.fits() || !worker.lease.holds() {
            // Soon after another worker has begun: two that sample are two that believe to be the first. And one that is cut off
            // from the database knows nothing of it.
            if std::mem::take(&mut sampled) {
                clear(&worker);
                due = started;
            }
        } else if due <= started {
            sampled = true;
            match sample(&worker).await {
                Ok(()) => {
                    worker.metrics.sampled.sampler.set(1.0);
                    due = started + EVERY.max(started.elapsed() * PART);
                }
                Err(error) => {
                    // The numbers stay as they were, and are nobody's.
                    worker.metrics.sampled.sampler.set(0.0);
                    worker.database_failed("sample", &error);
                    tracing::warn!(%error, "the database was not sampled: pgsaga_sampler is 0 until it is");
                    due = Instant::now() + EVERY;
                }
            }
        }
    }
}

async fn sample(worker: &Worker) -> Result<(), sqlx::Error> {
    let gauges = &worker.metrics.sampled;
    for row in worker.db.run(Lane::Control, sqlx::query(query::SAMPLE)).await? {
        let table: &str = row.try_get("table_name")?;
        if let Some(nth) = TABLES.iter().position(|name| *name == table) {
            gauges.dead_rows[nth].set(row.try_get::<i64, _>("dead_rows")? as f64);
            gauges.table_bytes[nth].set(row.try_get::<i64, _>("bytes")? as f64);
        }
        gauges.oldest_transaction_seconds.set(row.try_get::<f64, _>("oldest_transaction")?);
    }
    if let Some(row) = worker.db.run(Lane::Control, sqlx::query(query::SAMPLE_SAGAS)).await?.first() {
        gauges.sagas_open.set(row.try_get::<i64, _>("open")? as f64);
        gauges.sagas_stuck.set(row.try_get::<i64, _>("stuck")? as f64);
        gauges.oldest_open_saga_seconds.set(row.try_get::<f64, _>("oldest_open")?);
        gauges.oldest_stuck_saga_seconds.set(row.try_get::<f64, _>("longest_stuck")?);
        gauges.workers_alive.set(row.try_get::<i64, _>("workers")? as f64);
    }
    let rows = worker.db.run(Lane::Control, sqlx::query(query::SAMPLE_QUEUES)).await?;
    let mut seen: Vec<(Arc<OfQueue>, Depth)> = Vec::new();
    for row in &rows {
        let queue = worker.metrics.queue(row.try_get("queue")?);
        let depth = Depth::read(row)?;
        match seen.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &queue)) {
            Some((_, sum)) => sum.add(&depth),
            None => seen.push((queue, depth)),
        }
    }
    for (queue, depth) in &seen {
        depth.show(queue);
    }
    Ok(())
}

/// Another worker samples now.
fn clear(worker: &Worker) {
    worker.metrics.sampled.clear();
    for queue in worker.metrics.all_queues() {
        Depth::default().show(&queue);
    }
}

/// What lies in a queue, or in several that share a name.
#[derive(Default)]
struct Depth {
    /// Due, waiting, running.
    tasks: [i64; 3],
    /// Seconds.
    oldest_due: f64,
}

impl Depth {
    fn read(row: &PgRow) -> Result<Depth, sqlx::Error> {
        let tasks = [row.try_get("due")?, row.try_get("waiting")?, row.try_get("running")?];
        Ok(Depth { tasks, oldest_due: row.try_get("oldest_due")? })
    }

    fn add(&mut self, other: &Depth) {
        for (sum, tasks) in self.tasks.iter_mut().zip(other.tasks) {
            *sum += tasks;
        }
        self.oldest_due = self.oldest_due.max(other.oldest_due);
    }

    fn show(&self, queue: &OfQueue) {
        for (gauge, tasks) in queue.tasks.iter().zip(self.tasks) {
            gauge.set(tasks as f64);
        }
        queue.oldest_due_seconds.set(self.oldest_due);
    }
}
