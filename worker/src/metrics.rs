//! The worker's metrics. The recorder is installed first thing in `main`: a handle made before it is dead for ever.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::db::Class;
use crate::outcome::Outcome;
use crate::plan::Op;

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const TASKS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];

/// The tables whose dead rows are counted.
pub const TABLES: [&str; 3] = ["task", "saga", "history"];

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
#[derive(Clone)]
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
    finished: [Counter; 3],
    /// Unwinds begun.
    pub unwinds: Counter,
    /// Calls running.
    pub in_flight: Gauge,
    /// Tasks held, running or not.
    pub held: Gauge,
    /// Age of the oldest due and unclaimed task that the last claim saw.
    pub oldest_due_seconds: Gauge,
    /// Dead rows of [`TABLES`], where this worker samples.
    pub dead_rows: [Gauge; 3],
    /// Age of the oldest open transaction, where this worker samples.
    pub oldest_transaction_seconds: Gauge,
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
}

/// What the exporter says of each metric: name, kind, help.
pub const TABLE: &[(&str, &str, &str)] = &[
    ("pgsaga_claimed_total", "counter", "Tasks that this worker claimed."),
    (
        "pgsaga_claims_total",
        "counter",
        "Claims by result: hit, empty (a look that found nothing due counts too), error.",
    ),
    ("pgsaga_claim_seconds", "histogram", "Duration of a claim statement."),
    (
        "pgsaga_claim_tasks",
        "histogram",
        "Tasks that one claim found (claims that found none are not counted).",
    ),
    ("pgsaga_wait_seconds", "histogram", "From a task's due time to its claim, by the database's clock."),
    ("pgsaga_attempts_total", "counter", "Finished tries by op and outcome."),
    ("pgsaga_call_seconds", "histogram", "Duration of a call to a participant, by op."),
    (
        "pgsaga_sagas_finished_total",
        "counter",
        "Sagas that this worker brought to an end, by status: succeeded, failed, stuck.",
    ),
    ("pgsaga_unwinds_total", "counter", "Sagas that this worker turned back."),
    (
        "pgsaga_dead_rows",
        "gauge",
        "Dead rows of a table that vacuum has not removed yet; from one worker, 0 from the others.",
    ),
    (
        "pgsaga_oldest_transaction_seconds",
        "gauge",
        "Age of the oldest open transaction in the database; from one worker, 0 from the others.",
    ),
    ("pgsaga_calls_in_flight", "gauge", "Calls running now."),
    ("pgsaga_tasks_held", "gauge", "Tasks that this worker holds, running or waiting for their turn."),
    (
        "pgsaga_oldest_due_seconds",
        "gauge",
        "Age of the oldest due task that nobody has claimed, as the last claim saw it.",
    ),
    ("pgsaga_settle_seconds", "histogram", "Duration of a settle statement."),
    ("pgsaga_settle_group_tasks", "histogram", "Tasks settled by one statement."),
    (
        "pgsaga_settled_total",
        "counter",
        "Settled tasks by answer: applied, gone (another worker has it), locked (tried again).",
    ),
    ("pgsaga_rescued_total", "counter", "Tasks of dead workers that this worker requeued."),
    ("pgsaga_dead_workers_total", "counter", "Workers that this worker declared dead."),
    ("pgsaga_heartbeats_total", "counter", "Heartbeats that the database acknowledged."),
    (
        "pgsaga_reconciled_total",
        "counter",
        "Tasks that the database said this worker held and it did not know, handed back.",
    ),
    (
        "pgsaga_parked_total",
        "counter",
        "Due tasks that this worker put off because their participant gets no call now.",
    ),
    ("pgsaga_breakers_open", "gauge", "Participants whose circuit breaker is open in this worker."),
    (
        "pgsaga_purged_sagas_total",
        "counter",
        "Finished sagas that this worker deleted because they were older than --retention.",
    ),
    (
        "pgsaga_purged_history_rows_total",
        "counter",
        "Rows of history that this worker deleted one by one after their saga.",
    ),
    (
        "pgsaga_dropped_partitions_total",
        "counter",
        "History partitions that this worker dropped because no saga of theirs was left.",
    ),
    ("pgsaga_wakeups_total", "counter", "Looks at the queue by source: notify, poll."),
    ("pgsaga_listener_up", "gauge", "1 while the worker can be woken by NOTIFY, else 0 (it polls)."),
    ("pgsaga_ready", "gauge", "1 while the lease holds and work may start, else 0."),
    (
        "pgsaga_database_errors_total",
        "counter",
        "Failed statements by class: connection, conflict, data, other.",
    ),
    ("pgsaga_build_info", "gauge", "Always 1; labels say the version and the schema version."),
];

impl Metrics {
    /// Makes and touches every handle. Call it after [`install`].
    pub fn new() -> Metrics {
        for (name, kind, help) in TABLE {
            match *kind {
                "counter" => describe_counter!(*name, *help),
                "gauge" => describe_gauge!(*name, *help),
                _ => describe_histogram!(*name, *help),
            }
        }
        gauge!("pgsaga_build_info", "version" => env!("CARGO_PKG_VERSION"),
            "schema_version" => pgsaga_sql::SCHEMA_VERSION.to_string())
        .set(1.0);
        let zeroed = |counter: Counter| {
            counter.absolute(0);
            counter
        };
        let labelled = |name: &'static str, label: &'static str, value: &'static str| {
            zeroed(counter!(name, label => value))
        };
        Metrics {
            claimed: zeroed(counter!("pgsaga_claimed_total")),
            claims: ["hit", "empty", "error"].map(|result| labelled("pgsaga_claims_total", "result", result)),
            claim_seconds: histogram!("pgsaga_claim_seconds"),
            claim_tasks: histogram!("pgsaga_claim_tasks"),
            wait_seconds: histogram!("pgsaga_wait_seconds"),
            attempts: Op::ALL.map(|op| {
                Outcome::ALL.map(|outcome| {
                    zeroed(
                        counter!("pgsaga_attempts_total", "op" => op.as_str(), "outcome" => outcome.as_str()),
                    )
                })
            }),
            call_seconds: Op::ALL.map(|op| histogram!("pgsaga_call_seconds", "op" => op.as_str())),
            finished: ["succeeded", "failed", "stuck"]
                .map(|status| labelled("pgsaga_sagas_finished_total", "status", status)),
            unwinds: zeroed(counter!("pgsaga_unwinds_total")),
            in_flight: gauge!("pgsaga_calls_in_flight"),
            held: gauge!("pgsaga_tasks_held"),
            oldest_due_seconds: gauge!("pgsaga_oldest_due_seconds"),
            dead_rows: TABLES.map(|table| gauge!("pgsaga_dead_rows", "table" => table)),
            oldest_transaction_seconds: gauge!("pgsaga_oldest_transaction_seconds"),
            settle_seconds: histogram!("pgsaga_settle_seconds"),
            settle_group_tasks: histogram!("pgsaga_settle_group_tasks"),
            settled: ["applied", "gone", "locked"]
                .map(|answer| labelled("pgsaga_settled_total", "answer", answer)),
            rescued: zeroed(counter!("pgsaga_rescued_total")),
            dead_workers: zeroed(counter!("pgsaga_dead_workers_total")),
            heartbeats: zeroed(counter!("pgsaga_heartbeats_total")),
            reconciled: zeroed(counter!("pgsaga_reconciled_total")),
            parked: zeroed(counter!("pgsaga_parked_total")),
            breakers_open: gauge!("pgsaga_breakers_open"),
            purged_sagas: zeroed(counter!("pgsaga_purged_sagas_total")),
            purged_history_rows: zeroed(counter!("pgsaga_purged_history_rows_total")),
            dropped_partitions: zeroed(counter!("pgsaga_dropped_partitions_total")),
            wakeups: ["notify", "poll"].map(|source| labelled("pgsaga_wakeups_total", "source", source)),
            listener_up: gauge!("pgsaga_listener_up"),
            ready: gauge!("pgsaga_ready"),
            database_errors: Class::ALL
                .map(|class| labelled("pgsaga_database_errors_total", "class", class.as_str())),
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

    /// A saga came to an end.
    pub fn finished(&self, status: &str) {
        match status {
            "succeeded" => self.finished[0].increment(1),
            "failed" => self.finished[1].increment(1),
            "stuck" => self.finished[2].increment(1),
            _ => {}
        }
    }

    /// A statement failed.
    pub fn database_error(&self, class: Class) {
        self.database_errors[class as usize].increment(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
