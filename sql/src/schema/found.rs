//! Which schema a database has, and whether this release's statements fit it.

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{RELEASE, Release, SCHEMA_VERSION};

/// SHA-256 of a file, in hexadecimal.
pub(super) fn digest(text: &str) -> String {
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
    /// The database has this `server_encoding`, which is not UTF8.
    Encoding(String),
}

/// A database that does not fit. The text says what was found and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

/// The `server_encoding` that pgsaga needs. JSON and the texts of participants are Unicode: another
/// encoding cannot hold them all, and SQL_ASCII holds bytes that are no text.
const ENCODING: &str = "UTF8";

const MIGRATE: &str = "run `pgsaga migrate`";
const START_OVER: &str = "nothing of it is changed. It was made before the first release: finish its sagas with \
    the pgsaga that made it or give them up, then `drop schema pgsaga cascade` and run `pgsaga migrate`";

impl Found {
    /// Reads the answer to [`crate::query::SCHEMA_VERSION`].
    ///
    /// # Errors
    /// Where a row is not as the statement says.
    pub fn read(rows: &[PgRow], release: &Release) -> Result<Found, sqlx::Error> {
        let mut found = Found::Absent;
        for row in rows {
            if let Some(found) = Found::by_encoding(row.try_get("encoding")?) {
                return Ok(found);
            }
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

    /// For a database that no pgsaga may use, whatever its schema is.
    pub(super) fn by_encoding(encoding: String) -> Option<Found> {
        // control: encoding-utf8
        (encoding != ENCODING).then_some(Found::Encoding(encoding))
    }

    /// Reads the answer for this release, where the statement may have failed because there is no
    /// such table.
    ///
    /// # Errors
    /// Any other error of the database.
    pub fn of(answer: Result<Vec<PgRow>, sqlx::Error>) -> Result<Found, sqlx::Error> {
        match answer {
            Ok(rows) => Found::read(&rows, &RELEASE),
            Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
                Some("42P01" | "3F000") => Ok(Found::Absent),
                _ => Err(error),
            },
        }
    }

    /// For a worker: the schema must be at this release's version.
    ///
    /// # Errors
    /// What was found, and what helps.
    pub fn check_for_worker(&self) -> Result<(), Misfit> {
        match self {
            Found::At(SCHEMA_VERSION) => Ok(()),
            Found::At(version) if *version > SCHEMA_VERSION => Err(Misfit::of(
                &format!("at version {version}"),
                SCHEMA_VERSION,
                "upgrade this worker: a newer pgsaga has migrated the database",
            )),
            _ => Err(self.misfit(SCHEMA_VERSION)),
        }
    }

    /// For a person's command: a newer schema is fine, because it only grew.
    ///
    /// # Errors
    /// What was found, and what helps.
    pub fn check_for_people(&self) -> Result<(), Misfit> {
        match self {
            Found::At(version) if *version >= SCHEMA_VERSION => Ok(()),
            _ => Err(self.misfit(SCHEMA_VERSION)),
        }
    }

    /// Why a release that needs this version can do nothing with the schema.
    pub(super) fn misfit(&self, needed: i64) -> Misfit {
        let (found, advice) = match self {
            Found::Absent => ("absent".to_owned(), MIGRATE),
            Found::Unreleased(version) => {
                (format!("at version {version} of an unreleased pgsaga (0.1 to 0.4)"), START_OVER)
            }
            Found::Edited(version) => {
                (format!("at a version {version} of another text than this release's"), START_OVER)
            }
            Found::At(version) if *version > needed => (
                format!("at version {version}"),
                "a newer pgsaga has migrated the database: use that release",
            ),
            Found::At(version) => (format!("at version {version}"), MIGRATE),
            Found::Encoding(encoding) => {
                return Misfit(format!(
                    "server_encoding of this database: found {encoding}; allowed: {ENCODING}. Move to a database \
                     that was made with `create database NAME encoding '{ENCODING}' template template0`"
                ));
            }
        };
        Misfit::of(&found, needed, advice)
    }
}

impl Misfit {
    fn of(found: &str, needed: i64, advice: &str) -> Misfit {
        let release = env!("CARGO_PKG_VERSION");
        Misfit(format!(
            "the schema of this database is {found}, and this pgsaga {release} needs version {needed}: {advice}"
        ))
    }
}

fn is_other_text(version: i64, found: Option<&str>, release: &Release) -> bool {
    let file = release.versions.iter().find(|file| file.version == version);
    file.is_some_and(|file| found != Some(&digest(file.sql)))
}
