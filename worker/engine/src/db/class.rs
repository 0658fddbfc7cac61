/// Class of a database error, which decides how the caller reacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// No connection, or a broken connection: the result is unknown. Retry.
    Connection,
    /// Conflict or timeout inside the database: nothing was written. Retry with jitter.
    Conflict,
    /// The values are at fault (SQLSTATE class 22, 23 or 54), so a retry cannot help
    /// (docs/races.md, R9).
    Data,
    /// Any other error, such as a missing privilege.
    Other,
}

impl Class {
    /// Classifies an error of sqlx.
    pub fn of(error: &sqlx::Error) -> Class {
        if !matches!(error, sqlx::Error::Database(_)) {
            return match error {
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_) => Class::Other,
                _ => Class::Connection,
            };
        }
        match sqlstate(error).as_deref() {
            // No value is at fault: the partition loop creates the partition.
            _ if is_missing_partition(error) => Class::Conflict,
            // 53200: out of memory. A smaller group needs less memory.
            Some("40001" | "40P01" | "55P03" | "57014" | "53200") => Class::Conflict,
            Some(code) if code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") => {
                Class::Connection
            }
            // 25006: the server became a standby. 25P02, 25P03: the server ended our session.
            Some("25006" | "25P02" | "25P03") => Class::Connection,
            Some(code) if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => {
                Class::Data
            }
            _ => Class::Other,
        }
    }
}

/// Whether the history has no partition for a saga's id.
pub(crate) fn is_missing_partition(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("23514")
            && error.constraint().is_none()
            && error.table() == Some("history")
    })
}

/// Whether the transaction could not be serialized (40001) or met a deadlock (40P01): the same can
/// succeed when it is repeated.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("40001" | "40P01"))
}

/// Whether the user lacks a right (42501).
pub fn is_denied(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("42501")
}

/// Returns the five-character SQLSTATE of a database error.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}
