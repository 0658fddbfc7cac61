use chrono::{DateTime, Utc};

statements! {
    folder "settle";

    const PROGRESS = "progress";

    /// Settles a group of sequential sagas.
    struct Settle<'a> = "settle" {
        worker_id: i64,
        /// Ascending by saga.
        tasks: SettledTasks<'a>,
        answers_by_task: JsonById,
        results_by_saga: JsonById,
        server_started_at: Option<DateTime<Utc>>,
    }

    /// Settles a group of sagas whose rows keep their progress.
    struct SettleParallel<'a> = "settle_parallel" {
        worker_id: i64,
        tasks: ParallelTasks<'a>,
        sagas: ParallelSagas<'a>,
        new_tasks: NewTasks<'a>,
        answers_by_task: JsonById,
        results_by_saga: JsonById,
        server_started_at: Option<DateTime<Utc>>,
    }

    /// Makes sagas stuck whose rows cannot be read.
    struct Stick<'a> = "stick" {
        /// `None`: tasks that nobody has claimed.
        worker_id: Option<i64>,
        tasks: UnreadableTasks<'a>,
        server_started_at: Option<DateTime<Utc>>,
    }

    /// Which of these tasks a worker still holds.
    const STILL_HELD = "still_held";

    /// What was reported of the ops of these tasks.
    const COMPLETIONS = "completions";
}

columns! {
    /// A task of a sequential saga: how its call ended, and what follows.
    struct SettledTask<'a> in SettledTasks {
        task_id: i64,
        epoch: i32,
        saga_id: i64,
        /// `None`: the task was not called.
        outcome: Option<&'a str>,
        status_code: Option<i16>,
        duration_us: Option<i32>,
        message: Option<&'a str> as Sparse,
        /// The next step's action takes this row. The `next_` fields below stay empty.
        in_place: bool,
        /// Position from 1.
        next_step: Option<i16> as Sparse,
        next_op: Option<&'a str> as Sparse,
        next_attempt: Option<i32> as Sparse,
        next_counted: Option<i32> as Sparse,
        next_unknown_before: Option<bool> as Sparse,
        next_last_outcome: Option<&'a str> as Sparse,
        /// `None`: this worker claims the next task at once.
        next_delay_us: Option<i64> as Sparse,
        /// `None`: unchanged.
        saga_status: Option<&'a str>,
        saga_reason: Option<&'a str> as Sparse,
        /// Given where the saga is stuck.
        step_name: Option<&'a str> as Sparse,
        known_interrupt: Option<&'a str> as Sparse,
        next_participant: Option<&'a str> as Sparse,
        next_is_interrupted: bool as Sparse,
        next_keeps_deadline: bool as Sparse,
        aborted_by_deadline: bool as Sparse,
        known_completion: Option<&'a str> as Sparse,
        /// The next attempt waits for a completion.
        next_wait_us: Option<i64> as Sparse,
    }
}

columns! {
    /// A task of a parallel saga: how its call ended, and the next attempt of its op.
    struct ParallelTask<'a> in ParallelTasks {
        task_id: i64,
        epoch: i32,
        saga_id: i64,
        /// `None`: the task was not called.
        outcome: Option<&'a str>,
        status_code: Option<i16>,
        duration_us: Option<i32>,
        message: Option<&'a str>,
        known_interrupt: Option<&'a str>,
        /// `None`: the op is over.
        next_attempt: Option<i32>,
        next_counted: Option<i32>,
        next_unknown_before: Option<bool>,
        next_last_outcome: Option<&'a str>,
        next_delay_us: Option<i64>,
        next_is_interrupted: bool,
        /// `None`: the step is not stuck.
        stuck_reason: Option<&'a str>,
        /// Given where the step is stuck.
        step_name: Option<&'a str>,
        known_completion: Option<&'a str>,
        /// The next attempt waits for a completion.
        next_wait_us: Option<i64>,
    }
}

columns! {
    /// A parallel saga: what the plan was made from, and what it changes.
    struct ParallelSaga<'a> in ParallelSagas {
        saga_id: i64,
        known_version: i32,
        /// `None`: unchanged.
        progress: Option<&'a str>,
        /// `None`: unchanged.
        status: Option<&'a str>,
        reason: Option<&'a str>,
        is_aborted: bool,
        /// The step at which the deadline aborts the saga.
        overdue_step: Option<i16>,
        keeps_deadline: bool,
    }
}

columns! {
    /// A task that a parallel saga begins.
    struct NewTask<'a> in NewTasks {
        saga_id: i64,
        /// Position from 1.
        step: i16,
        op: &'a str,
        participant: &'a str,
        /// It waits for a completion instead of calling.
        wait_us: Option<i64>,
    }
}

columns! {
    /// A task that cannot be worked on.
    struct UnreadableTask<'a> in UnreadableTasks {
        task_id: i64,
        epoch: i32,
        saga_id: i64,
        why: &'a str,
    }
}

/// JSON texts by id, bound as one object; null while there is none.
#[derive(Debug, Clone, Default)]
pub struct JsonById {
    object: Option<String>,
}

impl JsonById {
    /// Adds the JSON text of an id.
    pub fn push(&mut self, id: i64, json: &str) {
        let object = self.object.get_or_insert_default();
        object.truncate(object.len().saturating_sub(1));
        object.push_str(if object.is_empty() { "{\"" } else { ", \"" });
        object.push_str(&id.to_string());
        object.push_str("\": ");
        object.push_str(json);
        object.push('}');
    }
}

values! { JsonById { object: Option<String> } }

#[cfg(test)]
mod tests {
    use super::JsonById;

    #[test]
    fn json_by_id_is_one_object() {
        let mut by_id = JsonById::default();
        assert_eq!(by_id.object, None);
        by_id.push(7, "[1.10]");
        assert_eq!(by_id.object.as_deref(), Some(r#"{"7": [1.10]}"#));
        by_id.push(-8, r#"{"a": "}"}"#);
        assert_eq!(by_id.object.as_deref(), Some(r#"{"7": [1.10], "-8": {"a": "}"}}"#));
    }
}
