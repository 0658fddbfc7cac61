use std::fmt;

use serde::{Serialize, Serializer};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};

/// A saga's status, as users and SQL know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SagaStatus {
    /// The saga goes forward.
    Submitted,
    /// The saga unwinds: what may have taken effect is compensated.
    Aborting,
    /// The saga cannot continue without a person.
    Stuck,
    /// The saga has ended, and every step is done.
    Succeeded,
    /// The saga has ended, and whatever could be compensated was compensated.
    Failed,
}

impl SagaStatus {
    /// All of them, in the order of a saga's life.
    pub const ALL: [SagaStatus; 5] = [
        SagaStatus::Submitted,
        SagaStatus::Aborting,
        SagaStatus::Stuck,
        SagaStatus::Succeeded,
        SagaStatus::Failed,
    ];

    /// The word in SQL, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            SagaStatus::Submitted => "submitted",
            SagaStatus::Aborting => "aborting",
            SagaStatus::Stuck => "stuck",
            SagaStatus::Succeeded => "succeeded",
            SagaStatus::Failed => "failed",
        }
    }

    /// The inverse of [`SagaStatus::as_str`]. `None` for a word that only a newer schema writes.
    pub fn of(word: &str) -> Option<SagaStatus> {
        SagaStatus::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl fmt::Display for SagaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for SagaStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Type<Postgres> for SagaStatus {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(column: &PgTypeInfo) -> bool {
        <str as Type<Postgres>>::compatible(column)
    }
}

impl<'r> Decode<'r, Postgres> for SagaStatus {
    fn decode(value: PgValueRef<'r>) -> Result<SagaStatus, BoxDynError> {
        let word = <&str as Decode<Postgres>>::decode(value)?;
        SagaStatus::of(word).ok_or_else(|| format!("found {word:?}, which this release does not know").into())
    }
}
