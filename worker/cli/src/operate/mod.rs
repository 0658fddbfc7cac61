//! The work of operators: look at sagas, decide about them, maintain a database.

pub(crate) mod check;
pub(crate) mod decide;
pub(crate) mod doctor;
pub(crate) mod filter;
pub(crate) mod health;
pub(crate) mod list;
pub(crate) mod migrate;
pub(crate) mod queues;
pub(crate) mod read;
pub(crate) mod show;
pub(crate) mod verify;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pgsaga_sql::query;
use pgsaga_sql::schema::Found;
use pgsaga_worker::db;
use sqlx::PgExecutor;
use sqlx::postgres::PgPool;

use crate::error::Error;

#[derive(Debug, Clone, Args)]
pub(crate) struct Database {
    /// The Postgres database, such as postgres://user:password@host:5432/name. Several hosts may be
    /// named as libpq allows, such as host1:5432,host2:5432: the command uses the host that accepts
    /// writes (target_session_attrs=any, read-write or primary). Only `work --pooled` may connect
    /// through a pooler in transaction mode
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) database_url: String,
}

/// Connects, and checks that this release's statements fit the schema.
async fn connect(url: &str) -> Result<PgPool, Error> {
    let pool = db::connect(url).await?;
    check_schema(&pool).await?;
    Ok(pool)
}

pub(crate) async fn check_schema(database: impl PgExecutor<'_>) -> Result<(), Error> {
    let rows = sqlx::query(query::SCHEMA_VERSION).fetch_all(database).await;
    // A user who may abort sagas need not have the right to read the version.
    if rows.as_ref().is_err_and(db::is_denied) {
        return Ok(());
    }
    Ok(Found::of(rows)?.check_for_people()?)
}
