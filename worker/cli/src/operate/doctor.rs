//! `pgsaga doctor`: checks every invariant in one snapshot.

use std::fmt;

use clap::Args;
use pgsaga_sql::{CHECKS, Check, describe, query};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Acquire as _, AssertSqlSafe, Executor as _, Row as _};

use super::Database;
use crate::error::Error;
use crate::output::{out, out_json};
use crate::words::printable;
use pgsaga_worker::db::{Class, is_denied};

/// Upper bound on the characters of one finding, with its check and its saga.
const TEXT_CHARS_MAX: usize = 4_000;

/// Checks every invariant in one REPEATABLE READ snapshot. Reads all sagas, which takes minutes on
/// a large database.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Print one JSON object for each finding
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
pub(crate) struct Broken {
    pub(crate) check: &'static str,
    /// The saga's gid; null if no single saga is at fault, or the check itself failed.
    pub(crate) gid: Option<String>,
    pub(crate) found: String,
}

/// One line for a person. The row may hold any text, if a person changed it by hand.
impl fmt::Display for Broken {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(line, "{}: ", self.check)?;
        if let Some(gid) = &self.gid {
            write!(line, "saga {}: ", printable(gid, TEXT_CHARS_MAX))?;
        }
        write!(line, "{}", printable(&self.found, TEXT_CHARS_MAX))
    }
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let broken = examine(&self.database.database_url).await?;
        for place in &broken {
            if self.json {
                out_json(serde_json::json!(place))?;
            } else {
                out(format_args!("{place}"))?;
            }
        }
        if broken.is_empty() {
            if !self.json {
                out(format_args!("{} invariants hold", CHECKS.len()))?;
            }
            return Ok(());
        }
        Err(Error::Found(format!("{} broken places", broken.len())))
    }
}

/// Runs all checks in one snapshot. A check whose statement fails is a finding itself, and does not
/// prevent the other checks.
pub(crate) async fn examine(url: &str) -> Result<Vec<Broken>, Error> {
    let pool = super::connect(url).await?;
    let mut snapshot = pool.begin().await?;
    snapshot.execute("set transaction isolation level repeatable read, read only").await?;
    // The planner overestimates the checks, and compiling them would take seconds.
    snapshot.execute("set local jit = off").await?;
    let filled: Vec<i64> =
        sqlx::query_scalar(query::FILLED_HISTORY_PARTITIONS).fetch_all(&mut *snapshot).await?;
    let mut broken = Vec::new();
    for check in CHECKS {
        // A savepoint, because a failed statement ends its transaction.
        let mut part = snapshot.begin().await?;
        match run(check, &filled, &mut part).await {
            Ok(places) => {
                broken.extend(places);
                part.commit().await?;
            }
            Err(error) if Class::of(&error) == Class::Connection || is_denied(&error) => {
                return Err(error.into());
            }
            Err(error) => {
                part.rollback().await?;
                let found = format!("the check could not run: {}", describe(&error));
                broken.push(Broken { check: check.name, gid: None, found });
            }
        }
    }
    snapshot.commit().await?;
    pool.close().await;
    Ok(broken)
}

async fn run(
    check: &Check,
    filled: &[i64],
    connection: &mut PgConnection,
) -> Result<Vec<Broken>, sqlx::Error> {
    let rows = sqlx::query(AssertSqlSafe(check.among(filled))).fetch_all(connection).await?;
    let read = |row: &PgRow| {
        Ok(Broken { check: check.name, gid: row.try_get("gid")?, found: row.try_get("found")? })
    };
    rows.iter().map(read).collect()
}
