use chrono::{DateTime, Utc};

statements! {
    folder "claim";

    struct Claim<'a> = "claim" {
        worker_id: i64,
        tasks_max: i64,
        format_max: i16,
        definition_bytes_max: i64,
        lanes: &'a [i32],
        watermarks: &'a [DateTime<Utc>],
        blocked_participants: &'a [String],
        queues: Option<&'a [&'a str]>,
        /// One element for each queue.
        queue_tasks_max: Option<&'a [i64]>,
        rotation: i32,
        lowest_class_first: bool,
        limited_participants: &'a [String],
        /// One element for each limited participant.
        participant_tasks_max: &'a [i64],
        server_started_at: Option<DateTime<Utc>>,
        denied_task_ids: &'a [i64],
        participants: &'a [String],
        /// `None`: every lane that this worker serves.
        looked_lanes: Option<&'a [i32]>,
    }

    /// Delays what is due for participants that get no call now.
    struct Defer<'a> = "defer" {
        participants: &'a [&'a str],
        delay_us: i64,
        lanes: &'a [i32],
        watermarks: &'a [DateTime<Utc>],
        lane_tasks_max: i64,
        only_if_nobody_may_call: bool,
    }

    /// Moves tasks into the lanes of participants that the worker does not serve.
    struct Move<'a> = "move" {
        participants: &'a [&'a str],
        lanes: &'a [i32],
        watermarks: &'a [DateTime<Utc>],
        lane_tasks_max: i64,
    }

    /// Makes lanes for participants that the worker does not serve.
    const OPEN_LANES = "open_lanes";
    /// Moves overdue tasks out of lanes that nobody serves.
    const OVERDUE = "overdue";

    /// What a claim leaves out: steps of parallel sagas, and answers.
    const DETAILS = "details";

    /// Those of the given tasks that have an interrupt.
    const INTERRUPTED = "interrupted";

    /// Tells whether a claim is worth while.
    struct Peek<'a> = "peek" {
        lanes: &'a [i32],
        watermarks: &'a [DateTime<Utc>],
        queues: Option<&'a [&'a str]>,
        server_started_at: Option<DateTime<Utc>>,
        participants: &'a [String],
    }

    struct Release<'a> = "release" {
        worker_id: i64,
        tasks: ReleasedTasks<'a>,
    }

    /// Marks a task as isolated.
    const RUN_ISOLATED = "run_isolated";
}

columns! {
    /// A task to give back.
    struct ReleasedTask<'a> in ReleasedTasks {
        task_id: i64,
        epoch: i32,
        delay_us: i64,
        participant: Option<&'a str>,
    }
}
