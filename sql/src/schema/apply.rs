//! Brings a database to a release: the schema's versions and the functions, in one transaction.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::found::{Found, Misfit, digest};
use super::{HomeChange, Release, SCHEMA_VERSION};
use crate::{describe, fail, query};

/// Why a release was not applied. Nothing of the database was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The database is newer than the release, or was made before the first one.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The database cannot be asked.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// One step failed, and the whole migration was rolled back.
    #[error("migrate failed at {at}: {}; nothing of the database was changed{advice}", describe(source))]
    Step {
        /// The version of the schema, or the function.
        at: String,
        /// The error that the database returned.
        source: sqlx::Error,
        /// What helps, behind a semicolon; empty where nothing is known.
        advice: &'static str,
    },
}

/// One step of a migration.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// The statements, with those that record the step.
    pub(super) sql: String,
}

/// The object that one step of a migration applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A version of the schema, with its name.
    Version(i64, &'static str),
    /// A function, with its name.
    Function(&'static str),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Version(version, name) => write!(f, "schema version {version}: {name}"),
            Kind::Function(name) => write!(f, "function {name}"),
        }
    }
}

/// Applies what the database lacks of a release, all of it or nothing, and returns what that was.
/// The connection's role must own the schema `pgsaga`.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply(connection: &mut PgConnection, release: &Release) -> Result<Vec<Kind>, ApplyError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(query::MIGRATE_LOCK).execute(&mut *transaction).await?;
    let migrated = is_migrated(&mut transaction).await?;
    let (mut from, mut applied) = (0, HashMap::new());
    if migrated {
        let rows = sqlx::query(query::SCHEMA_VERSION).fetch_all(&mut *transaction).await?;
        from = match Found::read(&rows, release)? {
            Found::Absent => 0,
            Found::At(version) if version <= release.version() => version,
            found => return Err(found.misfit(release.version()).into()),
        };
    }
    if from > 0 {
        let functions: Vec<(String, String)> =
            sqlx::query_as(query::MIGRATE_FUNCTIONS).fetch_all(&mut *transaction).await?;
        applied = functions.into_iter().collect();
    }
    let steps = steps(release, from, |name, digest| applied.get(name).is_none_or(|found| found != digest));
    for Step { kind, sql } in &steps {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.as_str())).execute(&mut *transaction).await;
        done.map_err(|source| ApplyError::Step { at: kind.to_string(), advice: advice(&source), source })?;
    }
    // A new database is one of this cluster.
    if from == 0 {
        HomeChange { adopts: true, environment: None }.apply(&mut transaction).await?;
    }
    fail::point("migrate:applied");
    transaction.commit().await?;
    Ok(steps.into_iter().map(|step| step.kind).collect())
}

/// Whether pgsaga was ever migrated in this database.
///
/// # Errors
/// [`Misfit`] if no pgsaga may use the database.
pub async fn is_migrated(connection: &mut PgConnection) -> Result<bool, ApplyError> {
    let (migrated, encoding): (bool, String) =
        sqlx::query_as(query::MIGRATE_EXISTS).fetch_one(connection).await?;
    match Found::by_encoding(encoding) {
        None => Ok(migrated),
        Some(found) => Err(found.misfit(SCHEMA_VERSION).into()),
    }
}

/// The steps from a version on, with the functions that `differs` from what the database has, by
/// name and digest.
///
/// All versions come before all functions: a function may need a table, and a version calls no
/// function.
pub(super) fn steps(release: &Release, from: i64, differs: impl Fn(&str, &str) -> bool) -> Vec<Step> {
    let versions = release.names().into_iter().filter(|(version, _)| *version > from).map(|(version, name)| {
        let file = release.versions.iter().find(|file| file.version == version);
        let sql = file.map_or("", |file| file.sql);
        let digest = file.map_or("null".to_owned(), |file| format!("'{}'", digest(file.sql)));
        Step {
            kind: Kind::Version(version, name),
            sql: format!(
                "{sql}\ninsert into pgsaga.migration (version, name, digest) values ({version}, '{name}', {digest});\n"
            ),
        }
    });
    let functions = release.functions.iter().filter_map(|function| {
        let digest = digest(function.sql);
        differs(function.name, &digest).then(|| Step {
            kind: Kind::Function(function.name),
            sql: format!(
                "{}insert into pgsaga.function (name, version, digest) values ('{}', {}, '{digest}')\n  \
                 on conflict (name) do update set version = excluded.version, digest = excluded.digest, \
                 applied_at = excluded.applied_at;\n",
                function.sql, function.name, function.version
            ),
        })
    });
    versions.chain(functions).collect()
}

/// For whoever has written the step: Postgres' own words do not say what to do about it.
fn advice(error: &sqlx::Error) -> &'static str {
    match error.as_database_error().and_then(|error| error.code()).as_deref() {
        // Another type of the result, or a name of two functions after the arguments have changed.
        Some("42P13" | "42725") => {
            "; `create or replace` changes neither arguments nor result: the file must first drop the function as it was"
        }
        _ => "",
    }
}
