//! Words of the schema as enums, in rows and in JSON.

use pgsaga_plan::Word;
use serde::Serializer;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// The kind of an event in a saga's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Attempt,
    Completion,
    Decision,
    Deadline,
}

impl Word for EventKind {
    const VALUES: &'static [EventKind] =
        &[EventKind::Attempt, EventKind::Completion, EventKind::Decision, EventKind::Deadline];

    fn word(self) -> &'static str {
        match self {
            EventKind::Attempt => "attempt",
            EventKind::Completion => "completion",
            EventKind::Decision => "decision",
            EventKind::Deadline => "deadline",
        }
    }
}

/// Reads a column that holds a word.
pub(crate) fn word<T: Word>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    optional(row, column)?.ok_or_else(|| sqlx::Error::Decode(format!("{column}: found null").into()))
}

/// Reads a column that holds a word or null.
pub(crate) fn optional<T: Word>(row: &PgRow, column: &str) -> Result<Option<T>, sqlx::Error> {
    let Some(word) = row.try_get::<Option<&str>, _>(column)? else { return Ok(None) };
    let unknown = || sqlx::Error::Decode(format!("{column}: found {word:?}, which no release writes").into());
    T::of(word).ok_or_else(unknown).map(Some)
}

/// The default value, which the caller replaces after the row is read.
pub(crate) fn later<T: Default>(_: &PgRow, _: &str) -> Result<T, sqlx::Error> {
    Ok(T::default())
}

pub(crate) fn serialize<T: Word, S: Serializer>(word: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word.word())
}

pub(crate) fn serialize_optional<T: Word, S: Serializer>(
    word: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&word.map(T::word), serializer)
}
