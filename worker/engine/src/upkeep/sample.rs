//! Numbers about the whole database. The duty worker asks for them: the living worker with the
//! lowest id, which every worker knows from its heartbeats. So no election is needed, also behind a
//! pooler. The views of sql/schema/0001_baseline.sql show people the same numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::db::Db;
use crate::db::PoolKind;
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::metrics::handle::MetricSet as _;
use crate::telemetry::metrics::{Metrics, QueueMetrics};
use crate::wake::share::Share;

const EVERY: Duration = Duration::from_secs(15);
/// Interval at which a worker checks whether sampling is its duty.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Upper bound on the share of time: one part in 100. Counting millions of tasks takes a second.
const PART: u32 = 100;

/// The loop that samples the database.
pub(crate) struct Sample {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) shutdown: Shutdown,
}

impl Sample {
    /// Samples while this is the worker's duty, until the worker has drained. The other workers
    /// export 0, so queries use the `max` over workers.
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = Instant::now();
        let mut sampled = false;
        let mut share = Share::one_in(PART);
        loop {
            self.metrics.ticks.sample.increment(1);
            tokio::select! {
                () = self.shutdown.done.cancelled() => return,
                _ = tick.tick() => {}
            }
            let started = Instant::now();
            if !self.membership.is_duty_worker() || !self.membership.fits() || !self.membership.lease.holds()
            {
                // This worker is no longer the sampler, or is cut off from the database. It exports
                // 0 as soon as it knows, so that two samplers overlap only briefly.
                if std::mem::take(&mut sampled) {
                    self.clear();
                    due = started;
                }
            } else if due <= started {
                sampled = true;
                match self.sample().await {
                    Ok(()) => {
                        self.metrics.sampled.sampler.set(1.0);
                        due = started + EVERY.max(share.pause_after(started.elapsed()));
                    }
                    Err(error) => {
                        // The last values stay, and no worker counts as the sampler.
                        self.metrics.sampled.sampler.set(0.0);
                        self.db.failed("sample", &error);
                        tracing::warn!("the database was not sampled: pgsaga_sampler is 0 until it is");
                        due = Instant::now() + EVERY;
                    }
                }
            }
        }
    }

    async fn sample(&self) -> Result<(), sqlx::Error> {
        let gauges = &self.metrics.sampled;
        for row in self.db.run(PoolKind::Control, sqlx::query(query::SAMPLE)).await? {
            let (dead_rows, bytes) = (&gauges.dead_rows, &gauges.table_bytes);
            let (dead_rows, bytes) = match row.try_get("table_name")? {
                "task" => (&dead_rows.task, &bytes.task),
                "saga" => (&dead_rows.saga, &bytes.saga),
                _ => (&dead_rows.history, &bytes.history),
            };
            dead_rows.set(row.try_get::<i64, _>("dead_rows")? as f64);
            bytes.set(row.try_get::<i64, _>("bytes")? as f64);
            gauges.oldest_transaction_seconds.set(row.try_get::<f64, _>("oldest_transaction")?);
        }
        if let Some(row) = self.db.run(PoolKind::Control, sqlx::query(query::SAMPLE_SAGAS)).await?.first() {
            gauges.sagas_open.set(row.try_get::<i64, _>("open")? as f64);
            gauges.sagas_stuck.set(row.try_get::<i64, _>("stuck")? as f64);
            gauges.oldest_open_saga_seconds.set(row.try_get::<f64, _>("oldest_open")?);
            gauges.oldest_stuck_saga_seconds.set(row.try_get::<f64, _>("longest_stuck")?);
            gauges.longest_retry_seconds.set(row.try_get::<f64, _>("longest_retry")?);
            gauges.workers_alive.set(row.try_get::<i64, _>("workers")? as f64);
        }
        let rows = self.db.run(PoolKind::Control, sqlx::query(query::SAMPLE_QUEUES)).await?;
        let mut seen: Vec<(Arc<QueueMetrics>, Depth)> = Vec::new();
        for row in &rows {
            let queue = self.metrics.queue(row.try_get("queue")?);
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

    /// Sets the sampled gauges to 0, because another worker samples now.
    fn clear(&self) {
        self.metrics.sampled.clear();
        for queue in self.metrics.all_queues() {
            queue.clear();
        }
    }
}

/// The tasks of a queue, or of several queues that share a name.
#[derive(Default)]
struct Depth {
    due: i64,
    waiting: i64,
    running: i64,
    oldest_due_seconds: f64,
    unserved: i64,
    awaiting: i64,
}

impl Depth {
    fn read(row: &PgRow) -> Result<Depth, sqlx::Error> {
        Ok(Depth {
            due: row.try_get("due")?,
            waiting: row.try_get("waiting")?,
            running: row.try_get("running")?,
            oldest_due_seconds: row.try_get("oldest_due")?,
            unserved: row.try_get("unserved")?,
            awaiting: row.try_get("awaiting")?,
        })
    }

    fn add(&mut self, other: &Depth) {
        self.due += other.due;
        self.waiting += other.waiting;
        self.running += other.running;
        self.unserved += other.unserved;
        self.awaiting += other.awaiting;
        self.oldest_due_seconds = self.oldest_due_seconds.max(other.oldest_due_seconds);
    }

    fn show(&self, queue: &QueueMetrics) {
        queue.tasks.due.set(self.due as f64);
        queue.tasks.waiting.set(self.waiting as f64);
        queue.tasks.running.set(self.running as f64);
        queue.oldest_due_seconds.set(self.oldest_due_seconds);
        queue.unserved.set(self.unserved as f64);
        queue.awaiting.set(self.awaiting as f64);
    }
}
