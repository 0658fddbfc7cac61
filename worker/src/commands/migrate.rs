//! `pgsaga migrate`: a command of its own, because replicas that migrate at start can deadlock with each other's DDL.

use std::io::Write as _;

use clap::Args;
use pgsaga_sql::{MIGRATIONS, ROLES, SCHEMA_VERSION, fail};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, SqlSafeStr as _};

use super::out;
use crate::error::Error;

/// Creates or upgrades the schema `pgsaga`. Idempotent; run it before the workers of a new release are started.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The Postgres database, such as postgres://user:password@host:5432/name. The user may create roles and schemas, or
    /// a person has run roles.sql (see --print) and granted pgsaga_owner to it
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "print"
    )]
    database_url: Option<String>,
    /// Print the SQL instead of running it, for databases where only a person may change the schema: pipe it to
    /// `psql -v ON_ERROR_STOP=1 --single-transaction`
    #[arg(long)]
    print: bool,
    /// With --print: only what is newer than this schema version
    #[arg(long, value_name = "VERSION", default_value_t = 0, requires = "print")]
    from: i64,
    /// Do not create roles: a person has run roles.sql
    #[arg(long)]
    skip_roles: bool,
}

const TABLE: &str = "pgsaga.migration";

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
    /// Migrates, or prints.
    ///
    /// # Errors
    /// What the database says; nothing of a failed migration remains.
    pub async fn run(self) -> Result<(), Error> {
        match self.database_url {
            Some(url) if !self.print => {
                migrate(&url, self.skip_roles).await?;
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
///
/// # Errors
/// What the database says.
pub async fn migrate(url: &str, skip_roles: bool) -> Result<(), Error> {
    let options = crate::db::connect_options(url, true, std::time::Duration::from_secs(30))?;
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql("set client_min_messages = warning").execute(&mut connection).await?;
    fail::point("migrate:before");
    if !skip_roles {
        sqlx::raw_sql(ROLES).execute(&mut connection).await?;
        fail::point("migrate:roles");
    }
    // Objects belong to pgsaga_owner, not to whoever migrates.
    sqlx::raw_sql("set role pgsaga_owner").execute(&mut connection).await?;
    let result = migrator().run(&mut connection).await;
    fail::point("migrate:after");
    connection.close().await?;
    match result {
        Ok(()) => Ok(()),
        Err(sqlx::migrate::MigrateError::VersionMissing(version)) => Err(Error::Schema {
            found: format!("at version {version}"),
            needed: SCHEMA_VERSION,
            advice: "a newer pgsaga has migrated the database: use that release",
        }),
        Err(error) => Err(error.into()),
    }
}

/// The same as one script, with the bookkeeping that lets a later `pgsaga migrate` go on from here.
fn script(from: i64, skip_roles: bool) -> String {
    let mut script = String::new();
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
    script.push_str("reset role;\n");
    script
}
