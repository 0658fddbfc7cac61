statements! {
    folder "read";

    /// `pgsaga doctor`: the history partitions that hold rows, for [`crate::Check::among`].
    const FILLED_HISTORY_PARTITIONS = "filled_history_partitions";

    /// `pgsaga list`; a filter that is `None` lets all pass.
    struct List<'a> = "list" {
        statuses: Option<&'a [String]>,
        only_unfinished: bool,
        older_than_us: Option<i64>,
        newer_than_us: Option<i64>,
        queue: Option<&'a str>,
        label_keys: Option<&'a [String]>,
        label_values: &'a [Option<String>],
        participant: Option<&'a str>,
        no_progress_us: Option<i64>,
        sagas_max: i64,
    }

    const QUEUES = "queues";

    /// `pgsaga show --json`: a page of its history.
    struct ShowHistory = "show_history" {
        saga_id: i64,
        first_seq: i64,
        last_seq: i64,
        events_max: i64,
    }

    const SHOW_SAGA = "show_saga";
    /// `pgsaga show`: its steps and what they came to.
    const SHOW_STEPS = "show_steps";
    /// `pgsaga show`: what of it waits for a person.
    const SHOW_STUCK = "show_stuck";
    const SHOW_TASKS = "show_tasks";
    /// `pgsaga show`: its history as lines.
    const SHOW_TIMELINE = "show_timeline";
}
