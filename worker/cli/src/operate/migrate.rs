//! `pgsaga migrate`: a command of its own, because replicas that migrate at start can deadlock with
//! each other's DDL.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use pgsaga_sql::{MIGRATIONS, ROLES, SCHEMA_VERSION, fail, query};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, SqlSafeStr as _};

use crate::error::Error;
use crate::output::out;
use pgsaga_worker::db::sqlstate;

/// Creates or upgrades the schema `pgsaga`. Idempotent; run it before the workers of a new release
/// are started.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The Postgres database, such as postgres://user:password@host:5432/name; of several hosts,
    /// such as host1:5432,host2:5432, the one that takes writes is used. The user may create roles
    /// and schemas, or a person has run roles.sql (see --print) and granted pgsaga_owner to it
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "print"
    )]
    database_url: Option<String>,
    /// Print the SQL instead of running it, for databases where only a person may change the
    /// schema: pipe it to `psql -v ON_ERROR_STOP=1 --single-transaction`
    #[arg(long)]
    print: bool,
    /// With --print: only what is newer than this schema version
    #[arg(long, value_name = "VERSION", default_value_t = 0, requires = "print")]
    from: i64,
    /// Do not create roles: a person has run roles.sql
    #[arg(long)]
    skip_roles: bool,
    /// How long to go on trying where others' transactions hold locks, 0 to 3,600 seconds. It waits
    /// for two seconds at a time, so that those who come after it are not held up for longer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
    lock_wait_seconds: u64,
}

const TABLE: &str = "pgsaga.migration";
/// The pause between two waits for locks, in which everybody who queued behind the first one gets
/// on.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// `migrate` of the demo and others that have the database to themselves.
const LOCK_WAIT: Duration = Duration::from_secs(60);

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|migration| {
        Migration::new(
            migration.version,
            migration.name.into(),
            MigrationType::Simple,
            migration.sql.into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

impl Migrate {
    pub(crate) async fn run(self) -> Result<(), Error> {
        match self.database_url {
            Some(url) if !self.print => {
                patiently(&url, self.skip_roles, Duration::from_secs(self.lock_wait_seconds)).await?;
                out(format_args!("the schema pgsaga is at version {SCHEMA_VERSION}"))?;
                Ok(())
            }
            _ => std::io::stdout()
                .write_all(script(self.from, self.skip_roles).as_bytes())
                .map_err(|source| Error::Io { doing: "print the migrations".to_owned(), source }),
        }
    }
}

/// Runs roles and migrations on a connection of their own.
pub(crate) async fn migrate(url: &str, skip_roles: bool) -> Result<(), Error> {
    patiently(url, skip_roles, LOCK_WAIT).await
}

/// Tries again while others hold locks: an ALTER TABLE that waits holds up everybody who comes
/// after it, and a wait without a bound outlives the process that asked for it.
async fn patiently(url: &str, skip_roles: bool, patience: Duration) -> Result<(), Error> {
    let options = pgsaga_worker::db::choose(url).await?;
    let started = Instant::now();
    loop {
        let mut connection = PgConnection::connect_with(&options).await?;
        let error = match once(&mut connection, skip_roles).await {
            Ok(()) => return Ok(connection.close().await?),
            Err(MigrateError::VersionMissing(version)) => {
                return Err(pgsaga_worker::Error::Schema {
                    found: format!("at version {version}"),
                    needed: SCHEMA_VERSION,
                    advice: "a newer pgsaga has migrated the database: use that release",
                }
                .into());
            }
            Err(error) => error,
        };
        drop(connection);
        if !is_locked_out(&error) {
            return Err(error.into());
        }
        let holders = lock_holders(&options).await.unwrap_or_default();
        let holders = if holders.is_empty() { "others".to_owned() } else { holders.join("; ") };
        let waited = started.elapsed();
        if waited >= patience {
            return Err(Error::LockedOut { waited_seconds: waited.as_secs(), holders });
        }
        tracing::warn!(%holders, waited_seconds = waited.as_secs(), "a lock is held by others: trying again");
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

async fn once(connection: &mut PgConnection, skip_roles: bool) -> Result<(), MigrateError> {
    sqlx::raw_sql("set client_min_messages = warning; set lock_timeout = '2s'")
        .execute(&mut *connection)
        .await?;
    fail::point("migrate:before");
    if !skip_roles {
        sqlx::raw_sql(ROLES).execute(&mut *connection).await?;
        fail::point("migrate:roles");
    }
    // Objects belong to pgsaga_owner, not to whoever migrates.
    sqlx::raw_sql("set role pgsaga_owner").execute(&mut *connection).await?;
    migrator().run(&mut *connection).await?;
    fail::point("migrate:after");
    Ok(())
}

/// A lock did not come in time, or two migrations of releases old and new met in another order.
fn is_locked_out(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    matches!(sqlstate(error).as_deref(), Some("55P03" | "40P01"))
}

/// Looked up after the wait, so whoever held a lock for just that long may be gone.
async fn lock_holders(options: &PgConnectOptions) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let holders = sqlx::query_scalar(query::LOCK_HOLDERS).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(holders)
}

/// The same as one script, with the bookkeeping that lets a later `pgsaga migrate` go on from here.
fn script(from: i64, skip_roles: bool) -> String {
    // Better an error than everybody queueing behind a lock that does not come.
    let mut script = String::from("set lock_timeout = '10s';\n");
    if !skip_roles {
        script.push_str(ROLES);
    }
    script.push_str("\nset role pgsaga_owner;\n");
    script.push_str(&format!(
        "create table if not exists {TABLE} (version bigint primary key, description text not null, \
         installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null, \
         execution_time bigint not null);\n"
    ));
    for migration in migrator().iter().filter(|migration| migration.version > from) {
        let checksum: String = migration.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        script.push_str(&format!("\n-- migration {}: {}\n", migration.version, migration.description));
        script.push_str(migration.sql.as_str());
        script.push_str(&format!(
            "\ninsert into {TABLE} (version, description, success, checksum, execution_time) \
             values ({}, '{}', true, '\\x{checksum}', 0);\n",
            migration.version, migration.description
        ));
    }
    script.push_str("reset role;\nreset lock_timeout;\n");
    script
}
