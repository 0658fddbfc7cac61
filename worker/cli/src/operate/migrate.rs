//! `pgsaga migrate`: a command of its own, because replicas that migrate when they start can
//! deadlock with each other's DDL.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pgsaga_sql::schema::{self, ApplyError, Home, HomeChange, Kind};
use pgsaga_sql::{RELEASE, ROLES, SCHEMA_VERSION, fail, query};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::error::Error;
use crate::output::out;
use pgsaga_worker::db::{pin, sqlstate};

/// Creates or upgrades the schema `pgsaga`. Idempotent. Run it before you start workers of a new
/// release.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The Postgres database, such as postgres://user:password@host:5432/name. With several hosts,
    /// such as host1:5432,host2:5432, the command uses the host that accepts writes. The user may
    /// create roles and schemas, or a person has run roles.sql (see --print) and granted
    /// pgsaga_owner to the user
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "print",
        value_parser = NonEmptyStringValueParser::new()
    )]
    database_url: Option<String>,
    /// Print the SQL instead of running it, for databases whose schema only a person may change:
    /// pipe the SQL to `psql -v ON_ERROR_STOP=1 --single-transaction`
    #[arg(long)]
    print: bool,
    /// With --print: the schema version of the database, 0 for none. The script refuses a database
    /// at another version
    #[arg(long, value_name = "VERSION", default_value_t = 0, requires = "print",
        value_parser = clap::value_parser!(i64).range(0..=SCHEMA_VERSION))]
    from: i64,
    /// Do not create roles, because a person has run roles.sql
    #[arg(long)]
    skip_roles: bool,
    /// Name the environment that this database belongs to, such as production. Workers of another
    /// environment, and those without one, then leave the database alone
    #[arg(long, value_name = "NAME", value_parser = schema::environment)]
    environment: Option<String>,
    /// Make this cluster the home of the database, after a dump was restored here or pg_upgrade has
    /// run: workers wait for it. First make sure that nobody works on the original any more, or
    /// that this copy cannot reach the original's participants
    #[arg(long)]
    adopt: bool,
    /// Upper bound on the time to retry while other transactions hold locks, 0 to 3,600 seconds.
    /// Each attempt waits for two seconds at most, so that statements which queue behind it are not
    /// delayed for longer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
    lock_wait_seconds: u64,
}

/// Pause between two attempts to lock, in which statements that queued behind the first attempt
/// continue.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// Patience of the demo and other callers that have the database to themselves.
const LOCK_WAIT: Duration = Duration::from_secs(60);

impl Migrate {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let home = HomeChange { adopts: self.adopt, environment: self.environment };
        match self.database_url {
            Some(url) if !self.print => {
                let patience = Duration::from_secs(self.lock_wait_seconds);
                report(&patiently(&url, self.skip_roles, &home, patience).await?)
            }
            _ => std::io::stdout()
                .write_all(schema::script(self.from, self.skip_roles, &home).as_bytes())
                .map_err(Error::io("print the script")),
        }
    }
}

/// Reports what was applied. For a new database, only the number of functions.
fn report((applied, home): &(Vec<Kind>, Home)) -> Result<(), Error> {
    let mut functions = Vec::new();
    for kind in applied {
        match kind {
            Kind::Version(..) => out(format_args!("applied {kind}"))?,
            Kind::Function(name) => functions.push(*name),
        }
    }
    if functions.len() == RELEASE.functions.len() {
        out(format_args!("applied all {} functions", functions.len()))?;
    } else if !functions.is_empty() {
        out(format_args!("applied functions: {}", functions.join(", ")))?;
    }
    out(format_args!("the schema pgsaga is at version {SCHEMA_VERSION}"))?;
    if let Some(environment) = &home.environment {
        out(format_args!("the database belongs to the environment \"{environment}\""))?;
    }
    if let Some(why) = &home.misfit {
        tracing::warn!(why, "workers wait, and claim nothing in this database");
    }
    if let Some(why) = &home.doubt {
        tracing::warn!(why, "the database does not say whether it is a copy");
    }
    Ok(())
}

/// Applies roles, schema and functions on a connection of its own.
pub(crate) async fn migrate(url: &str, skip_roles: bool) -> Result<(), Error> {
    patiently(url, skip_roles, &HomeChange::default(), LOCK_WAIT).await.map(drop)
}

/// Retries while other sessions hold locks. An ALTER TABLE that waits for a lock delays all
/// statements behind it, and a wait without a bound outlives its process.
async fn patiently(
    url: &str,
    skip_roles: bool,
    home: &HomeChange,
    patience: Duration,
) -> Result<(Vec<Kind>, Home), Error> {
    let options = pgsaga_worker::db::choose(url).await?;
    let started = Instant::now();
    loop {
        let mut connection = PgConnection::connect_with(&options).await?;
        let error = match once(&mut connection, options.get_username(), skip_roles, home).await {
            Ok(applied) => {
                connection.close().await?;
                return Ok(applied);
            }
            Err(error) => error,
        };
        drop(connection);
        if !is_locked_out(&error) {
            return Err(error);
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

async fn once(
    connection: &mut PgConnection,
    user: &str,
    skip_roles: bool,
    home: &HomeChange,
) -> Result<(Vec<Kind>, Home), Error> {
    pin(connection).await?;
    sqlx::raw_sql("set client_min_messages = warning; set lock_timeout = '2s'")
        .execute(&mut *connection)
        .await?;
    fail::point("migrate:before");
    // A database that no pgsaga may use is left as it is, without the roles' schema.
    let owner_needed = |error: Error| error.explain(user, "pgsaga_owner");
    schema::is_migrated(connection).await.map_err(Error::from).map_err(owner_needed)?;
    if !skip_roles {
        sqlx::raw_sql(ROLES).execute(&mut *connection).await?;
        fail::point("migrate:roles");
    }
    // Objects belong to pgsaga_owner, whatever user migrates.
    let become_owner = sqlx::raw_sql("set role pgsaga_owner").execute(&mut *connection).await;
    become_owner.map_err(Error::from).map_err(owner_needed)?;
    let applied = schema::apply(connection, &RELEASE).await?;
    home.apply(connection).await?;
    let home = Home::read(connection).await?;
    fail::point("migrate:after");
    Ok((applied, home))
}

/// A lock did not become free in time, or an older and a newer release migrated at the same time
/// and deadlocked.
fn is_locked_out(error: &Error) -> bool {
    let (Error::Database(error) | Error::Migrate(ApplyError::Step { source: error, .. })) = error else {
        return false;
    };
    matches!(sqlstate(error).as_deref(), Some("55P03" | "40P01"))
}

/// Runs after the wait, so a session that held the lock may be gone.
async fn lock_holders(options: &PgConnectOptions) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let holders = sqlx::query_scalar(query::LOCK_HOLDERS).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(holders)
}
