//! What operators do: look at sagas, decide about them, look after a database.

pub(crate) mod check;
pub(crate) mod decide;
pub(crate) mod doctor;
pub(crate) mod filter;
pub(crate) mod health;
pub(crate) mod list;
pub(crate) mod migrate;
pub(crate) mod queues;
pub(crate) mod show;

use std::fmt::Display;
use std::io::Write as _;

use clap::Args;
use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use pgsaga_sql::query;
use sqlx::PgExecutor;
use sqlx::postgres::PgPool;

use crate::error::Error;
use crate::words::{self, printable_json};
use pgsaga_worker::db;

/// Where the database is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Database {
    /// The Postgres database, such as postgres://user:password@host:5432/name. Several hosts may be named as libpq allows,
    /// such as host1:5432,host2:5432: the one that takes writes is used (target_session_attrs=any, read-write or primary).
    /// Only `work --pooled` may go through a pooler in transaction mode
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: String,
}

/// Connects for a person, to a schema that this release's statements fit.
///
/// # Errors
/// [`Error::Schema`] where it is absent or too old; a newer one only grew.
async fn connect(url: &str) -> Result<PgPool, Error> {
    let pool = db::connect(url).await?;
    check_schema(&pool).await?;
    Ok(pool)
}

/// Whether this release's statements fit the schema.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn check_schema(database: impl PgExecutor<'_>) -> Result<(), Error> {
    let found: Option<i64> = match sqlx::query_scalar(query::SCHEMA_VERSION).fetch_optional(database).await {
        Ok(found) => found.flatten(),
        Err(error) => match db::sqlstate(&error).as_deref() {
            Some("42P01" | "3F000") => None,
            // Who may abort need not be allowed to read that.
            Some("42501") => return Ok(()),
            _ => return Err(error.into()),
        },
    };
    let needed = pgsaga_sql::SCHEMA_VERSION;
    match found {
        Some(version) if version >= needed => Ok(()),
        found => Err(Error::Worker(pgsaga_worker::Error::Schema {
            found: found.map_or("absent".to_owned(), |version| format!("at version {version}")),
            needed,
            advice: "run `pgsaga migrate`",
        })),
    }
}

/// A table with a line below its header only; as wide as the terminal, where there is one.
pub(crate) fn table_of(header: &[&str]) -> Table {
    const LINE: LineStyle = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LINE))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// Prints JSON on standard output, so that it can be read on a terminal as well as by a program.
///
/// # Errors
/// See [`out`].
fn out_json(json: impl Display) -> Result<(), Error> {
    out(printable_json(&json.to_string()))
}

/// Says on standard error what went wrong. It may quote what others wrote.
pub(crate) fn complain(what: impl Display) {
    eprintln!("pgsaga: {}", words::printable_lines(&what.to_string()));
}

/// Prints a line on standard output. A reader who has seen enough (`pgsaga list | head`) ends the command, not with a panic.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub(crate) fn out(line: impl Display) -> Result<(), Error> {
    writeln!(std::io::stdout().lock(), "{line}")
        .map_err(|source| Error::Io { doing: "print the result".to_owned(), source })
}
