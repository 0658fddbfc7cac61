statements! {
    folder "decide";

    /// Takes a decision about one saga.
    struct Decide<'a> = "decide" {
        gid: &'a str,
        decision: &'a str,
        step: Option<&'a str>,
        comment: Option<&'a str>,
    }

    const PAUSE = "pause";
    const RESUME = "resume";

    /// Chooses the sagas of a bulk abort; a filter that is `None` lets all pass.
    struct SelectOpen<'a> = "select_open" {
        participant: Option<&'a str>,
        queue: Option<&'a str>,
        label_keys: Option<&'a [String]>,
        label_values: &'a [Option<String>],
        older_than_us: Option<i64>,
        sagas_max: Option<i64>,
    }

    /// Chooses the sagas of a bulk retry, skip or resolve; a filter that is `None` lets all pass.
    struct SelectStuck<'a> = "select_stuck" {
        participant: Option<&'a str>,
        queue: Option<&'a str>,
        stuck_for_us: Option<i64>,
        sagas_max: Option<i64>,
    }

    /// `pgsaga ui`: who decides in this transaction.
    const UI_DECIDED_BY = "ui_decided_by";
}
