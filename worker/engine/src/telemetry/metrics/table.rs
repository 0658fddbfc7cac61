//! What the exporter says of each metric.

/// Name, kind, help. grafana/README.md says more.
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
        "pgsaga_sagas_started_total",
        "counter",
        "Sagas of which this worker was the first to claim the first step, by queue.",
    ),
    (
        "pgsaga_sagas_finished_total",
        "counter",
        "Sagas that this worker brought to an end, by queue and status: succeeded, failed, stuck.",
    ),
    (
        "pgsaga_saga_seconds",
        "histogram",
        "From a saga's INSERT to its end, by the database's clock, by status: succeeded, failed.",
    ),
    (
        "pgsaga_responses_total",
        "counter",
        "Calls by participant (at most 100, then other) and class of the answer: 1xx to 5xx, none.",
    ),
    ("pgsaga_breaker_open", "gauge", "1 while this worker's breaker for a participant is open, else 0."),
    ("pgsaga_unwinds_total", "counter", "Sagas that this worker turned back."),
    ("pgsaga_sampler", "gauge", "1 on the worker that samples the database for all, else 0."),
    (
        "pgsaga_tasks",
        "gauge",
        "Tasks by queue and state: due, waiting, running; from one worker, 0 from the others.",
    ),
    (
        "pgsaga_oldest_due_task_seconds",
        "gauge",
        "Age of the oldest due task that nobody has claimed, by queue; from one worker, 0 from the others.",
    ),
    (
        "pgsaga_sagas_open",
        "gauge",
        "Sagas that are neither finished nor stuck; from one worker, 0 from the others.",
    ),
    ("pgsaga_sagas_stuck", "gauge", "Sagas that wait for a person; from one worker, 0 from the others."),
    (
        "pgsaga_oldest_open_saga_seconds",
        "gauge",
        "Age of the oldest open saga, those for later included; from one worker, 0 from the others.",
    ),
    (
        "pgsaga_oldest_stuck_saga_seconds",
        "gauge",
        "How long the longest stuck saga has waited for a person; from one worker, 0 from the others.",
    ),
    (
        "pgsaga_workers_alive",
        "gauge",
        "Workers that the database has heard of within their lease; from one worker, 0 from the others.",
    ),
    (
        "pgsaga_table_bytes",
        "gauge",
        "Size of a table with its indexes and TOAST; from one worker, 0 from the others.",
    ),
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
    ("pgsaga_slots", "gauge", "Calls that this worker may run at once (--concurrency)."),
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
        "pgsaga_unreadable_total",
        "counter",
        "Tasks whose row, or whose saga's, could not be read, and whose saga became stuck for it.",
    ),
    (
        "pgsaga_denied_calls_total",
        "counter",
        "Calls that were not made: this worker may not call the address, or does not know the participant.",
    ),
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
    (
        "pgsaga_loop_ticks_total",
        "counter",
        "Rounds of each loop of this worker: claim, heartbeat, park, sample and partitions tick by themselves.",
    ),
    ("pgsaga_pool_connections", "gauge", "Connections to Postgres by pool and state: idle, used."),
    ("pgsaga_pool_wait_seconds", "histogram", "Wait for a connection that was not at hand, by pool."),
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
