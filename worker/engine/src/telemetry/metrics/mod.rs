//! The worker's metrics, one line a metric. The recorder is installed first thing in `main`: a
//! handle made before the recorder stays dead.

#[macro_use]
pub(crate) mod handle;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use pgsaga_plan::{Op, Outcome, StatusChange};

pub use handle::Series;
use handle::{ByName, Handle, MetricSet as _, Own, describe};

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const TASKS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];

/// Upper bound on the values of the label `participant`.
const PARTICIPANTS_MAX: usize = 100;
/// Upper bound on the values of the label `queue`.
const QUEUES_MAX: usize = 50;

/// The queue of sagas that name none. Its series exist from the start.
pub(crate) const DEFAULT_QUEUE: &str = "default";

/// Installs the recorder of the process. The buckets are explicit, because the exporter would
/// otherwise render summaries, which cannot be aggregated across replicas.
///
/// # Errors
/// A recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_tasks".to_owned()), TASKS)?
        .install_recorder()
}

/// Keeps the recorder's memory bounded. Nothing else drains its histograms.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}

/// Name, kind and help of every metric of a worker. grafana/README.md says more.
pub fn table() -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
    [
        WorkerMetrics::TABLE,
        SampledMetrics::TABLE,
        QueueMetrics::TABLE,
        ParticipantMetrics::TABLE,
        PoolMetrics::TABLE,
        DatabaseMetrics::TABLE,
        &[("pgsaga_build_info", "gauge", "Always 1; labels say the version and the schema version.")],
    ]
    .into_iter()
    .flatten()
}

by_label! {
    struct Claims(Counter) by "result" { hit: "hit", empty: "empty", error: "error" }
}

by_label! {
    struct Settled(Counter) by "result" { applied: "applied", gone: "gone", locked: "locked" }
}

by_label! {
    struct Wakeups(Counter) by "source" { notify: "notify", poll: "poll" }
}

by_label! {
    struct SagaSeconds(Histogram) by "status" { succeeded: "succeeded", failed: "failed" }
}

by_label! {
    /// Rounds of the worker's loops.
    struct Ticks(Counter) by "loop" {
        claim: "claim",
        settle: "settle",
        heartbeat: "heartbeat",
        rescue: "rescue",
        reconcile: "reconcile",
        defer: "defer",
        handlers: "handlers",
        listen: "listen",
        sample: "sample",
        partitions: "partitions",
        retention: "retention",
    }
}

by_label! {
    struct ByOp(Histogram) by "op" { action: "action", compensate: "compensate" }
}

by_label! {
    struct ByTable(Gauge) by "table" { task: "task", saga: "saga", history: "history" }
}

by_label! {
    struct Finished(Counter) by "status" { succeeded: "succeeded", failed: "failed", stuck: "stuck" }
}

by_label! {
    struct TaskCounts(Gauge) by "state" { due: "due", waiting: "waiting", running: "running" }
}

by_label! {
    struct RetentionRefused(Gauge) by "what" { saga: "saga", history: "history", partition: "partition" }
}

by_label! {
    struct Responses(Counter) by "class" {
        handler: "handler",
        none: "none",
        informational: "1xx",
        success: "2xx",
        redirection: "3xx",
        client_error: "4xx",
        server_error: "5xx",
    }
}

by_label! {
    struct PoolConnections(Gauge) by "state" { idle: "idle", used: "used" }
}

by_label! {
    struct DatabaseErrors(Counter) by "class" {
        connection: "connection",
        conflict: "conflict",
        data: "data",
        other: "other",
    }
}

/// Attempts by op and outcome.
#[derive(Debug, Clone)]
pub(crate) struct Attempts(Vec<(Op, Outcome, Counter)>);

impl Attempts {
    pub(crate) fn count(&self, op: Op, outcome: Outcome) {
        if let Some((.., counter)) = self.0.iter().find(|(o, u, _)| (*o, *u) == (op, outcome)) {
            counter.increment(1);
        }
    }
}

impl Handle for Attempts {
    const KIND: &str = Counter::KIND;

    fn new(series: &Series, name: &'static str, own: &[Own]) -> Attempts {
        let pairs = Op::ALL.into_iter().flat_map(|op| Outcome::ALL.map(|outcome| (op, outcome)));
        let counter = |(op, outcome): (Op, Outcome)| {
            let labels = [own, &[("op", op.as_str()), ("outcome", outcome.as_str())]].concat();
            (op, outcome, Counter::new(series, name, &labels))
        };
        Attempts(pairs.map(counter).collect())
    }
}

metrics! {
    pub(crate) struct WorkerMetrics {
        claimed: Counter = "pgsaga_claimed_total", "Tasks that this worker claimed.";
        claims: Claims = "pgsaga_claims_total",
            "Claims by result: hit, empty (also a peek that found nothing due), error.";
        claim_seconds: Histogram = "pgsaga_claim_seconds", "Duration of a claim statement.";
        claim_tasks: Histogram = "pgsaga_claim_tasks",
            "Tasks that one claim found (claims that found none are not counted).";
        wait_seconds: Histogram = "pgsaga_wait_seconds",
            "From a task's due time to its claim, by the database's clock.";
        attempts: Attempts = "pgsaga_attempts_total", "Finished attempts by op and outcome.";
        call_seconds: ByOp = "pgsaga_call_seconds", "Duration of a call to a participant, by op.";
        saga_seconds: SagaSeconds = "pgsaga_saga_seconds",
            "From a saga's INSERT to its end, by the database's clock, by status: succeeded, failed.";
        unwinds: Counter = "pgsaga_unwinds_total", "Sagas that this worker began to unwind.";
        call_slots: Gauge = "pgsaga_call_slots", "Calls that this worker may run at once (--concurrency).";
        in_flight: Gauge = "pgsaga_calls_in_flight", "Calls running now.";
        held: Gauge = "pgsaga_tasks_held",
            "Tasks that this worker holds, in flight or waiting for a call slot.";
        oldest_due_seconds: Gauge = "pgsaga_oldest_due_seconds",
            "Age of the oldest due task that nobody has claimed, as the last claim saw it.";
        settle_seconds: Histogram = "pgsaga_settle_seconds", "Duration of a settle statement.";
        settle_group_tasks: Histogram = "pgsaga_settle_group_tasks", "Tasks settled by one statement.";
        settled: Settled = "pgsaga_settled_total",
            "Settled tasks by result: applied, gone (another worker has it), locked (tried again).";
        rescued: Counter = "pgsaga_rescued_total", "Tasks of dead workers that this worker requeued.";
        dead_workers: Counter = "pgsaga_dead_workers_total", "Workers that this worker declared dead.";
        heartbeats: Counter = "pgsaga_heartbeats_total", "Heartbeats that the database acknowledged.";
        reconciled: Counter = "pgsaga_reconciled_total",
            "Tasks unknown to this worker's memory that it released.";
        deferred: Counter = "pgsaga_deferred_total",
            "Due tasks that this worker deferred because their participant gets no call now.";
        denied_calls: Counter = "pgsaga_denied_calls_total",
            "Calls that were not made: this worker may not call the address, or does not know the participant.";
        calls_sent_again: Counter = "pgsaga_calls_sent_again_total",
            "Calls sent again within their attempt, because the participant said it did not process them.";
        unreadable: Counter = "pgsaga_unreadable_total",
            "Tasks with a row or a saga that could not be read. The saga became stuck.";
        breakers_open: Gauge = "pgsaga_breakers_open",
            "Participants whose circuit breaker is open in this worker.";
        purged_sagas: Counter = "pgsaga_purged_sagas_total",
            "Finished sagas that this worker deleted because they were older than --retention.";
        purged_history_rows: Counter = "pgsaga_purged_history_rows_total",
            "Rows of history that this worker deleted one by one after their saga.";
        dropped_partitions: Counter = "pgsaga_dropped_partitions_total",
            "History partitions that this worker dropped because no saga of theirs was left.";
        retention_refused: RetentionRefused = "pgsaga_retention_refused",
            "What the last pass of retention had to leave because the database refused to delete it: saga, history, partition.";
        partition_missing: Gauge = "pgsaga_history_partition_missing",
            "1 while this worker cannot record outcomes because the history has no partition for a saga, else 0.";
        wakeups: Wakeups = "pgsaga_wakeups_total", "Wake-ups of the claim loop by source: notify, poll.";
        listener_up: Gauge = "pgsaga_listener_up",
            "1 while the worker can be woken by NOTIFY, else 0 (it polls).";
        clock_skew_seconds: Gauge = "pgsaga_clock_skew_seconds",
            "By how many seconds this worker's clock is ahead of the database's; negative if behind.";
        ready: Gauge = "pgsaga_ready", "1 while the lease holds and work may start, else 0.";
        ticks: Ticks = "pgsaga_loop_ticks_total",
            "Rounds of each loop of this worker: claim, heartbeat, defer, sample and partitions tick by themselves.";
    }
}

metrics! {
    /// Metrics that one worker samples for all; the others export 0.
    pub(crate) struct SampledMetrics {
        sampler: Gauge = "pgsaga_sampler", "1 on the worker that samples the database for all, else 0.";
        sagas_open: Gauge = "pgsaga_sagas_open",
            "Sagas that are neither finished nor stuck; from one worker, 0 from the others.";
        sagas_stuck: Gauge = "pgsaga_sagas_stuck",
            "Stuck sagas, which wait for a person; from one worker, 0 from the others.";
        oldest_open_saga_seconds: Gauge = "pgsaga_oldest_open_saga_seconds",
            "Age of the oldest open saga, those for later included; from one worker, 0 from the others.";
        oldest_stuck_saga_seconds: Gauge = "pgsaga_oldest_stuck_saga_seconds",
            "How long the longest stuck saga has waited for a person; from one worker, 0 from the others.";
        longest_retry_seconds: Gauge = "pgsaga_longest_retry_seconds",
            "How long ago the first attempt of the longest retried op ended; from one worker, 0 from the others.";
        workers_alive: Gauge = "pgsaga_workers_alive",
            "Workers that the database has heard of within their lease; from one worker, 0 from the others.";
        table_bytes: ByTable = "pgsaga_table_bytes",
            "Size of a table with its indexes and TOAST; from one worker, 0 from the others.";
        dead_rows: ByTable = "pgsaga_dead_rows",
            "Dead rows of a table that vacuum has not removed yet; from one worker, 0 from the others.";
        oldest_transaction_seconds: Gauge = "pgsaga_oldest_transaction_seconds",
            "Age of the oldest open transaction in the database; from one worker, 0 from the others.";
    }
}

metrics! {
    /// What is counted of each queue, by this worker and in the database.
    pub(crate) struct QueueMetrics {
        started: Counter = "pgsaga_sagas_started_total",
            "Sagas of which this worker was the first to claim the first step, by queue.";
        finished: Finished = "pgsaga_sagas_finished_total",
            "Sagas that this worker brought to an end, by queue and status: succeeded, failed, stuck.";
        tasks: TaskCounts = "pgsaga_tasks",
            "Tasks by queue and state: due, waiting, running; from one worker, 0 from the others.";
        oldest_due_seconds: Gauge = "pgsaga_oldest_due_task_seconds",
            "Age of the oldest due task that nobody has claimed, by queue; from one worker, 0 from the others.";
        unserved: Gauge = "pgsaga_unserved_tasks",
            "Due tasks that no living worker serves, because of their queue or named participant, by queue, without paused queues; from one worker, 0 from the others.";
        awaiting: Gauge = "pgsaga_awaiting_tasks",
            "Tasks that wait for a completion, by queue, of those that wait; from one worker, 0 from the others.";
    }
}

metrics! {
    pub(crate) struct ParticipantMetrics {
        responses: Responses = "pgsaga_responses_total",
            "Calls by participant (at most 100, then other) and class of the response: 1xx to 5xx, none; handler: a handler of this process returned.";
        breaker: Gauge = "pgsaga_breaker_open",
            "1 while this worker's breaker for a participant is open, else 0.";
    }
}

metrics! {
    /// What is counted of each pool of connections.
    pub(crate) struct PoolMetrics {
        connections: PoolConnections = "pgsaga_pool_connections",
            "Connections to Postgres by pool and state: idle, used.";
        wait_seconds: Histogram = "pgsaga_pool_wait_seconds",
            "Wait for a connection that was not at hand, by pool.";
    }
}

metrics! {
    /// What is counted of the statements of a worker.
    pub(crate) struct DatabaseMetrics {
        errors: DatabaseErrors = "pgsaga_database_errors_total",
            "Failed statements by class: connection, conflict, data, other.";
    }
}

/// All metrics of one worker. The metrics without a label of their own are fields of the target.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    worker: Arc<WorkerMetrics>,
    pub(crate) sampled: Arc<SampledMetrics>,
    queues: Arc<ByName<Arc<QueueMetrics>>>,
    participants: Arc<ByName<Arc<ParticipantMetrics>>>,
}

impl std::ops::Deref for Metrics {
    type Target = WorkerMetrics;

    fn deref(&self) -> &WorkerMetrics {
        &self.worker
    }
}

impl Metrics {
    /// Creates all handles and sets them to 0. Must be called after [`install`].
    pub(crate) fn new(series: &Series) -> Metrics {
        table().copied().for_each(describe);
        let schema_version = pgsaga_sql::SCHEMA_VERSION.to_string();
        let build = [("version", env!("CARGO_PKG_VERSION")), ("schema_version", &schema_version)];
        Gauge::new(series, "pgsaga_build_info", &build).set(1.0);
        let queues = ByName::new(QUEUES_MAX, series, |series, queue| {
            Arc::new(QueueMetrics::of(series, &[("queue", queue)]))
        });
        queues.get(DEFAULT_QUEUE);
        let participants = ByName::new(PARTICIPANTS_MAX, series, |series, participant| {
            Arc::new(ParticipantMetrics::of(series, &[("participant", participant)]))
        });
        Metrics {
            worker: Arc::new(WorkerMetrics::of(series, &[])),
            sampled: Arc::new(SampledMetrics::of(series, &[])),
            queues,
            participants,
        }
    }

    pub(crate) fn called(&self, op: Op, duration: Duration) {
        let seconds = match op {
            Op::Action => &self.call_seconds.action,
            Op::Compensate => &self.call_seconds.compensate,
        };
        seconds.record(duration.as_secs_f64());
    }

    /// Counts a saga of this queue that changed its status, `age` after its INSERT.
    pub(crate) fn status_changed(&self, queue: &QueueMetrics, status: StatusChange, age: Duration) {
        match status {
            StatusChange::Succeeded => {
                queue.finished.succeeded.increment(1);
                self.saga_seconds.succeeded.record(age.as_secs_f64());
            }
            StatusChange::Failed => {
                queue.finished.failed.increment(1);
                self.saga_seconds.failed.record(age.as_secs_f64());
            }
            StatusChange::Stuck => queue.finished.stuck.increment(1),
            StatusChange::Aborting | StatusChange::Awaiting | StatusChange::Ending => {}
        }
    }

    /// Returns the handles of a queue.
    pub(crate) fn queue(&self, name: &str) -> Arc<QueueMetrics> {
        self.queues.get(name)
    }

    /// Returns the handles of all known queues.
    pub(crate) fn all_queues(&self) -> Vec<Arc<QueueMetrics>> {
        self.queues.all()
    }

    /// Returns the handles of a participant.
    pub(crate) fn participant(&self, name: &str) -> Arc<ParticipantMetrics> {
        self.participants.get(name)
    }
}

impl ParticipantMetrics {
    /// Counts a call of a handler of this process.
    pub(crate) fn ran(&self) {
        self.responses.handler.increment(1);
    }

    /// Counts a call that was answered with this HTTP status, or not at all.
    pub(crate) fn responded(&self, status_code: Option<u16>) {
        let responses = &self.responses;
        let counter = match status_code.map(|code| code / 100) {
            None => &responses.none,
            Some(0 | 1) => &responses.informational,
            Some(2) => &responses.success,
            Some(3) => &responses.redirection,
            Some(4) => &responses.client_error,
            Some(_) => &responses.server_error,
        };
        counter.increment(1);
    }
}
