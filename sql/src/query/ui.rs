use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

statements! {
    folder "ui";

    /// `pgsaga ui`: a page of a saga's history, from its end.
    struct UiHistory = "ui_history" {
        saga_id: i64,
        last_seq: i64,
        events_max: i64,
        answer_chars_max: i32,
    }

    /// `pgsaga ui`: what the newest sagas came to.
    const UI_OVERVIEW = "ui_overview";
    /// `pgsaga ui`: the queues, without what lies in them.
    const UI_QUEUES = "ui_queues";

    /// `pgsaga ui`: sagas, chosen among the newest; a filter that is `None` lets all pass.
    struct UiSagas<'a> = "ui_sagas" {
        before_id: Option<i64>,
        statuses: Option<&'a [&'a str]>,
        queue: Option<&'a str>,
        label_keys: Option<&'a [String]>,
        label_values: &'a [Option<String>],
        gid_part: Option<&'a str>,
        looked_at_max: i64,
        shown_max: i64,
    }

    /// `pgsaga ui`: how far it looked for them.
    struct UiSagasLooked = "ui_sagas_looked" {
        before_id: Option<i64>,
        looked_at_max: i64,
        only_open: bool,
        with_tasks: bool,
    }

    /// `pgsaga ui`: sagas, chosen among those that are not over.
    struct UiSagasOpen<'a> = "ui_sagas_open" {
        sagas: UiSagas<'a>,
        with_tasks: bool,
    }

    /// `pgsaga ui`: what waits for a person, behind the row of these three values.
    struct UiStuck<'a> = "ui_stuck" {
        after_at: Option<RawTime>,
        after_saga_id: Option<i64>,
        after_step: Option<&'a str>,
        steps_max: i64,
    }

    const UI_WORKERS = "ui_workers";
}

/// A `timestamptz` as Postgres holds it: microseconds since 2000-01-01 UTC. Unlike the times of
/// chrono it can be infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawTime(pub i64);

impl Type<Postgres> for RawTime {
    fn type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for RawTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}
