//! The read model: what operators see on the command line and on the web page, as a struct for each
//! row.

pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod overview;
mod parts;
pub(crate) mod queues;
pub(crate) mod saga;
pub(crate) mod search;
mod standing;
pub(crate) mod stuck;
pub(crate) mod words;
pub(crate) mod workers;

/// Defines a struct and reads it from a row: each field from the column of its name, or by the
/// function behind `=>`, which gets the row and the name.
macro_rules! row {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty $(=> $read:path)?,)* }
    ) => {
        $(#[$meta])*
        pub(crate) struct $name { $($(#[$field_meta])* pub(crate) $field: $type,)* }

        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $name {
            fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                Ok($name { $($field: $crate::operate::read::row!(@read row $field $($read)?)?,)* })
            }
        }
    };
    (@read $row:ident $field:ident) => { sqlx::Row::try_get($row, stringify!($field)) };
    (@read $row:ident $field:ident $read:path) => { $read($row, stringify!($field)) };
}
pub(crate) use row;

pub(crate) fn all<T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>>(
    rows: &[sqlx::postgres::PgRow],
) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(T::from_row).collect()
}
