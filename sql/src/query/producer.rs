use chrono::{DateTime, Utc};
use sqlx::postgres::types::PgInterval;

statements! {
    folder "producer";

    const PRODUCER_ABORT = "producer_abort";

    /// Reports how an op ended.
    struct ProducerComplete<'a> = "producer_complete" {
        gid: &'a str,
        step: &'a str,
        outcome: &'a str,
        answer: Option<&'a str>,
        comment: Option<&'a str>,
        /// `None`: the action.
        op: Option<&'a str>,
    }

    const PRODUCER_STATUS = "producer_status";

    /// Inserts one saga, idempotently by gid.
    struct ProducerSubmit<'a> = "producer_submit" {
        saga: NewSaga<'a>,
    }

    /// Inserts many sagas in one statement.
    struct ProducerSubmitMany<'a> = "producer_submit_many" {
        sagas: NewSagas<'a>,
    }

    /// Which of many sagas have ended.
    const PRODUCER_WAIT = "producer_wait";
}

columns! {
    /// A saga to insert. `None` is the column's default.
    struct NewSaga<'a> in NewSagas {
        gid: Option<&'a str>,
        steps: &'a str,
        retry_interval: Option<PgInterval>,
        retry_limit: Option<i32>,
        request_timeout: Option<PgInterval>,
        headers: Option<&'a str>,
        labels: Option<&'a str>,
        queue: Option<&'a str>,
        priority: Option<i16>,
        run_at: Option<DateTime<Utc>>,
        run_after: Option<PgInterval>,
        timeout_to_fail: Option<PgInterval>,
        compensate_retry_limit: Option<i32>,
        compensate_failed: Option<bool>,
        result_mapping: Option<&'a str>,
    }
}
