//! What a database holds of pgsaga, as text that can be compared.

use sqlx::postgres::PgExecutor;

/// The dump of a migrated database, which is checked in.
pub const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dump.txt");

/// Tables, views, functions, triggers, rights and the rows that migrating makes, one a line.
///
/// # Panics
/// When the database does not answer.
pub async fn dump(database: impl PgExecutor<'_>) -> String {
    let statement = include_str!("../fixtures/dump.sql");
    let lines: Vec<String> = sqlx::query_scalar(statement).fetch_all(database).await.unwrap();
    lines.join("\n") + "\n"
}
