//! Which schema a database has, and whether this release's statements fit it.

use pgsaga_sql::SCHEMA_VERSION;
use pgsaga_sql::schema::Release;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::db::sqlstate;
use crate::error::Error;

/// SHA-256 of a file, in hexadecimal.
pub fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The schema of a database, as `pgsaga.migration` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// pgsaga was never migrated here.
    Absent,
    /// An unreleased pgsaga (0.1 to 0.4) made it. Its numbers mean something else.
    Unreleased(i64),
    /// This version was made from another text than the release's: before the first release the
    /// baseline is edited in place.
    Edited(i64),
    /// It is at this version.
    At(i64),
}

const START_OVER: &str = "nothing of it is changed. It was made before the first release: finish its sagas with the pgsaga \
    that made it or give them up, then `drop schema pgsaga cascade` and run `pgsaga migrate`";

impl Found {
    /// Reads the answer to [`pgsaga_sql::query::SCHEMA_VERSION`].
    ///
    /// # Errors
    /// Where a row is not as the statement says.
    pub fn read(rows: &[PgRow], release: &Release) -> Result<Found, sqlx::Error> {
        let mut found = Found::Absent;
        for row in rows {
            let (version, digest): (i64, Option<String>) = (row.try_get("version")?, row.try_get("digest")?);
            found = if !row.try_get::<bool, _>("released")? {
                Found::Unreleased(version)
            } else if is_other_text(version, digest.as_deref(), release) {
                return Ok(Found::Edited(version));
            } else {
                Found::At(version)
            };
        }
        Ok(found)
    }

    /// The same where the statement may have failed because there is no such table.
    ///
    /// # Errors
    /// Any other error of the database.
    pub fn of(rows: Result<Vec<PgRow>, sqlx::Error>) -> Result<Found, sqlx::Error> {
        match rows {
            Ok(rows) => Found::read(&rows, &pgsaga_sql::RELEASE),
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("42P01" | "3F000")) => Ok(Found::Absent),
            Err(error) => Err(error),
        }
    }

    /// For a worker: the schema must be at this release's version.
    ///
    /// # Errors
    /// [`Error::Schema`] with what helps.
    pub fn check_for_worker(self) -> Result<(), Error> {
        match self {
            Found::At(version) if version > SCHEMA_VERSION => Err(Error::Schema {
                found: format!("at version {version}"),
                needed: SCHEMA_VERSION,
                advice: "upgrade this worker: a newer pgsaga has migrated the database",
            }),
            found => found.check_for_people(),
        }
    }

    /// For a person's command: a newer schema is fine, it only grew.
    ///
    /// # Errors
    /// [`Error::Schema`] with what helps.
    pub fn check_for_people(self) -> Result<(), Error> {
        let (found, advice) = match self {
            Found::At(version) if version >= SCHEMA_VERSION => return Ok(()),
            Found::At(version) => (format!("at version {version}"), "run `pgsaga migrate`"),
            Found::Absent => ("absent".to_owned(), "run `pgsaga migrate`"),
            unknown => return Err(unknown.refusal(SCHEMA_VERSION)),
        };
        Err(Error::Schema { found, needed: SCHEMA_VERSION, advice })
    }

    /// Why nothing can be done with this schema; for [`Found::At`], that it is newer.
    pub fn refusal(&self, needed: i64) -> Error {
        let (found, advice) = match self {
            Found::Absent => ("absent".to_owned(), "run `pgsaga migrate`"),
            Found::Unreleased(version) => {
                (format!("at version {version} of an unreleased pgsaga (0.1 to 0.4)"), START_OVER)
            }
            Found::Edited(version) => {
                (format!("at a version {version} of another text than this release's"), START_OVER)
            }
            Found::At(version) => (
                format!("at version {version}"),
                "a newer pgsaga has migrated the database: use that release",
            ),
        };
        Error::Schema { found, needed, advice }
    }
}

fn is_other_text(version: i64, found: Option<&str>, release: &Release) -> bool {
    let file = release.versions.iter().find(|file| file.version == version);
    file.is_some_and(|file| found != Some(&digest(file.sql)))
}
