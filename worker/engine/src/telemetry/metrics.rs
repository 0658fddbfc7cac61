//! The worker's metrics. The recorder is installed first thing in `main`: a handle made before it is dead for ever.

mod series;
mod table;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::db::Class;
use pgsaga_plan::Op;
use pgsaga_plan::Outcome;
use series::{Named, PARTICIPANTS_MAX, QUEUES_MAX};
pub use series::{OfParticipant, OfQueue, Series};
pub use table::TABLE;

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const TASKS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];

/// The tables whose dead rows and sizes are sampled.
pub const TABLES: [&str; 3] = ["task", "saga", "history"];

/// The loops whose rounds are counted.
#[derive(Debug, Clone, Copy)]
pub enum Loop {
    /// Looks for what is due: at least every three seconds while there is room.
    Claim,
    /// Writes what came back.
    Settle,
    /// Every two seconds, or an eighth of a lease.
    Heartbeat,
    /// Whenever a worker is dead.
    Rescue,
    /// Whenever memory and database may differ.
    Reconcile,
    /// Every second.
    Park,
    /// Whenever it is told something, at least every 30 seconds.
    Listen,
    /// Every 15 seconds, or less often where that costs too much.
    Sample,
    /// Every 30 seconds.
    Partitions,
    /// Every minute or more often, with `--retention`.
    Retention,
}

const LOOPS: [&str; 10] = [
    "claim",
    "settle",
    "heartbeat",
    "rescue",
    "reconcile",
    "park",
    "listen",
    "sample",
    "partitions",
    "retention",
];

/// The queue of sagas that name none: its numbers are there from the start.
pub const DEFAULT_QUEUE: &str = "default";

/// Installs the recorder of the process. Buckets are explicit: without them the exporter renders summaries, which
/// cannot be added across replicas.
///
/// # Errors
/// When a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_tasks".to_owned()), TASKS)?
        .install_recorder()
}

/// Keeps the recorder's memory bounded; nothing else drains its histograms.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}

/// Handles to every metric, touched with 0 at start so that none is absent.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Tasks claimed.
    pub claimed: Counter,
    /// Claims that found something, found nothing, failed.
    pub claims: [Counter; 3],
    /// Duration of a claim statement.
    pub claim_seconds: Histogram,
    /// Tasks a claim found.
    pub claim_tasks: Histogram,
    /// From due to claimed, in the database's time.
    pub wait_seconds: Histogram,
    attempts: [[Counter; 5]; 2],
    call_seconds: [Histogram; 2],
    saga_seconds: [Histogram; 2],
    queues: Arc<Named<Arc<OfQueue>>>,
    participants: Arc<Named<OfParticipant>>,
    /// Unwinds begun.
    pub unwinds: Counter,
    /// Calls that may run at once.
    pub slots: Gauge,
    /// Calls running.
    pub in_flight: Gauge,
    /// Tasks held, running or not.
    pub held: Gauge,
    /// Age of the oldest due and unclaimed task that the last claim saw.
    pub oldest_due_seconds: Gauge,
    /// What one worker samples for all.
    pub sampled: Sampled,
    /// Duration of a settle statement.
    pub settle_seconds: Histogram,
    /// Tasks in one settle.
    pub settle_group_tasks: Histogram,
    /// Settled tasks by answer: applied, gone, locked.
    pub settled: [Counter; 3],
    /// Tasks of dead workers requeued.
    pub rescued: Counter,
    /// Workers declared dead.
    pub dead_workers: Counter,
    /// Heartbeats acknowledged.
    pub heartbeats: Counter,
    /// Tasks handed back by reconciling.
    pub reconciled: Counter,
    /// Tasks put off because their participant cannot take them.
    pub parked: Counter,
    /// Calls that were not made, because their address is not allowed.
    pub denied_calls: Counter,
    /// Tasks that could not be read.
    pub unreadable: Counter,
    /// Breakers that are open.
    pub breakers_open: Gauge,
    /// Finished sagas deleted by retention.
    pub purged_sagas: Counter,
    /// Rows of their history deleted one by one.
    pub purged_history_rows: Counter,
    /// History partitions dropped.
    pub dropped_partitions: Counter,
    /// Wake-ups by notify, by poll.
    pub wakeups: [Counter; 2],
    /// 1 while LISTEN stands.
    pub listener_up: Gauge,
    /// 1 while the lease holds and work may start.
    pub ready: Gauge,
    database_errors: [Counter; 4],
    ticks: [Counter; 10],
}

/// What one worker samples for all; the others export 0.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// 1 where this worker does.
    pub sampler: Gauge,
    /// Neither finished nor stuck.
    pub sagas_open: Gauge,
    /// Waiting for a person.
    pub sagas_stuck: Gauge,
    /// Age of the oldest open saga, seconds.
    pub oldest_open_saga_seconds: Gauge,
    /// How long the longest stuck saga waits, seconds.
    pub oldest_stuck_saga_seconds: Gauge,
    /// Workers whose lease is alive.
    pub workers_alive: Gauge,
    /// Dead rows of [`TABLES`].
    pub dead_rows: [Gauge; 3],
    /// Bytes of [`TABLES`] with indexes and TOAST.
    pub table_bytes: [Gauge; 3],
    /// Age of the oldest open transaction, seconds.
    pub oldest_transaction_seconds: Gauge,
}

impl Sampled {
    /// Another worker samples.
    pub fn clear(&self) {
        let alone = [
            &self.sampler,
            &self.sagas_open,
            &self.sagas_stuck,
            &self.oldest_open_saga_seconds,
            &self.oldest_stuck_saga_seconds,
            &self.workers_alive,
            &self.oldest_transaction_seconds,
        ];
        for gauge in alone.into_iter().chain(&self.dead_rows).chain(&self.table_bytes) {
            gauge.set(0.0);
        }
    }
}

impl Metrics {
    /// Makes and touches every handle. Call it after [`install`].
    pub fn new(series: &Series) -> Metrics {
        for (name, kind, help) in TABLE {
            match *kind {
                "counter" => describe_counter!(*name, *help),
                "gauge" => describe_gauge!(*name, *help),
                _ => describe_histogram!(*name, *help),
            }
        }
        let schema_version = pgsaga_sql::SCHEMA_VERSION.to_string();
        let build = [("version", env!("CARGO_PKG_VERSION")), ("schema_version", &schema_version)];
        series.gauge("pgsaga_build_info", &build).set(1.0);
        let queues = Named::new(QUEUES_MAX, series, OfQueue::new);
        queues.get(DEFAULT_QUEUE);
        let counter = |name| series.counter(name, &[]);
        let gauge = |name| series.gauge(name, &[]);
        let histogram = |name| series.histogram(name, &[]);
        Metrics {
            claimed: counter("pgsaga_claimed_total"),
            claims: ["hit", "empty", "error"]
                .map(|result| series.counter("pgsaga_claims_total", &[("result", result)])),
            claim_seconds: histogram("pgsaga_claim_seconds"),
            claim_tasks: histogram("pgsaga_claim_tasks"),
            wait_seconds: histogram("pgsaga_wait_seconds"),
            attempts: Op::ALL.map(|op| {
                Outcome::ALL.map(|outcome| {
                    let own = [("op", op.as_str()), ("outcome", outcome.as_str())];
                    series.counter("pgsaga_attempts_total", &own)
                })
            }),
            call_seconds: Op::ALL.map(|op| series.histogram("pgsaga_call_seconds", &[("op", op.as_str())])),
            saga_seconds: ["succeeded", "failed"]
                .map(|status| series.histogram("pgsaga_saga_seconds", &[("status", status)])),
            queues,
            participants: Named::new(PARTICIPANTS_MAX, series, OfParticipant::new),
            unwinds: counter("pgsaga_unwinds_total"),
            slots: gauge("pgsaga_slots"),
            in_flight: gauge("pgsaga_calls_in_flight"),
            held: gauge("pgsaga_tasks_held"),
            oldest_due_seconds: gauge("pgsaga_oldest_due_seconds"),
            sampled: Sampled {
                sampler: gauge("pgsaga_sampler"),
                sagas_open: gauge("pgsaga_sagas_open"),
                sagas_stuck: gauge("pgsaga_sagas_stuck"),
                oldest_open_saga_seconds: gauge("pgsaga_oldest_open_saga_seconds"),
                oldest_stuck_saga_seconds: gauge("pgsaga_oldest_stuck_saga_seconds"),
                workers_alive: gauge("pgsaga_workers_alive"),
                dead_rows: TABLES.map(|table| series.gauge("pgsaga_dead_rows", &[("table", table)])),
                table_bytes: TABLES.map(|table| series.gauge("pgsaga_table_bytes", &[("table", table)])),
                oldest_transaction_seconds: gauge("pgsaga_oldest_transaction_seconds"),
            },
            settle_seconds: histogram("pgsaga_settle_seconds"),
            settle_group_tasks: histogram("pgsaga_settle_group_tasks"),
            settled: ["applied", "gone", "locked"]
                .map(|answer| series.counter("pgsaga_settled_total", &[("answer", answer)])),
            rescued: counter("pgsaga_rescued_total"),
            dead_workers: counter("pgsaga_dead_workers_total"),
            heartbeats: counter("pgsaga_heartbeats_total"),
            reconciled: counter("pgsaga_reconciled_total"),
            parked: counter("pgsaga_parked_total"),
            denied_calls: counter("pgsaga_denied_calls_total"),
            unreadable: counter("pgsaga_unreadable_total"),
            breakers_open: gauge("pgsaga_breakers_open"),
            purged_sagas: counter("pgsaga_purged_sagas_total"),
            purged_history_rows: counter("pgsaga_purged_history_rows_total"),
            dropped_partitions: counter("pgsaga_dropped_partitions_total"),
            wakeups: ["notify", "poll"]
                .map(|source| series.counter("pgsaga_wakeups_total", &[("source", source)])),
            listener_up: gauge("pgsaga_listener_up"),
            ready: gauge("pgsaga_ready"),
            database_errors: Class::ALL
                .map(|class| series.counter("pgsaga_database_errors_total", &[("class", class.as_str())])),
            ticks: LOOPS.map(|name| series.counter("pgsaga_loop_ticks_total", &[("loop", name)])),
        }
    }

    /// A finished try.
    pub fn attempt(&self, op: Op, outcome: Outcome) {
        self.attempts[op as usize][outcome as usize].increment(1);
    }

    /// A call's duration.
    pub fn called(&self, op: Op, duration: Duration) {
        self.call_seconds[op as usize].record(duration.as_secs_f64());
    }

    /// A saga of this queue came to an end, so long after its INSERT. Other statuses are none.
    pub fn finished(&self, queue: &OfQueue, status: &str, age: Duration) {
        let nth = match status {
            "succeeded" => 0,
            "failed" => 1,
            "stuck" => 2,
            _ => return,
        };
        queue.finished[nth].increment(1);
        // A stuck saga is not over.
        if let Some(seconds) = self.saga_seconds.get(nth) {
            seconds.record(age.as_secs_f64());
        }
    }

    /// What is counted of a queue.
    pub fn queue(&self, name: &str) -> Arc<OfQueue> {
        self.queues.get(name)
    }

    /// All queues of which something was counted, or that were sampled.
    pub fn all_queues(&self) -> Vec<Arc<OfQueue>> {
        self.queues.all()
    }

    /// What is counted of a participant.
    pub fn participant(&self, name: &str) -> OfParticipant {
        self.participants.get(name)
    }

    /// A loop goes on with its next round.
    pub fn tick(&self, of: Loop) {
        self.ticks[of as usize].increment(1);
    }

    /// A statement failed.
    pub fn database_error(&self, class: Class) {
        self.database_errors[class as usize].increment(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new(&Series::default())
    }
}
