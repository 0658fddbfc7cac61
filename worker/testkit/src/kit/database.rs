//! The database of a kit.

use std::env;
use std::net::TcpListener;
use std::path::PathBuf;

use pgsaga_sql::schema::{self, RELEASE, ROLES};
use pgsaga_worker::db;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::embedded::Options;
use crate::error::Error;
use crate::scratch::ScratchDatabase;

/// Where the program `pgsaga` is looked for, besides the folders of PATH.
const PGSAGA: &str = "PGSAGA_TEST_BIN";

/// A migrated database that a test has for itself. Business tables may lie in it as well.
#[derive(Debug)]
pub struct Database {
    scratch: ScratchDatabase,
    pool: PgPool,
}

impl Database {
    /// A scratch database on the server of `DATABASE_URL`, whose user may create databases and
    /// roles. Without that variable a private Postgres, which ends with this process: its server
    /// programs must be installed, and the program `pgsaga` must be in a folder of PATH, or be named
    /// by `PGSAGA_TEST_BIN`.
    ///
    /// # Errors
    /// There is neither, or the server refuses.
    pub async fn start() -> Result<Database, Error> {
        match env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            Some(url) => Database::on(&url).await,
            None => Database::private(pgsaga()?).await,
        }
    }

    /// A scratch database on the server of this URL.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn on(url: &str) -> Result<Database, Error> {
        let scratch = ScratchDatabase::prepare(Some(url.to_owned()), Options::default(), PathBuf::new());
        Database::migrated(scratch.await?).await
    }

    async fn private(pgsaga: PathBuf) -> Result<Database, Error> {
        // Nothing of a test outlives its machine.
        let options = Options { fsync: false, tcp_port: Some(free_port()?), ..Options::default() };
        Database::migrated(ScratchDatabase::prepare(None, options, pgsaga).await?).await
    }

    async fn migrated(scratch: ScratchDatabase) -> Result<Database, Error> {
        let migrated = async {
            let mut connection = PgConnection::connect_with(&db::choose(&scratch.url).await?).await?;
            sqlx::raw_sql(AssertSqlSafe(format!(
                "set client_min_messages = warning; {}; set role pgsaga_owner",
                ROLES
            )))
            .execute(&mut connection)
            .await?;
            schema::apply(&mut connection, &RELEASE).await?;
            connection.close().await?;
            Ok::<PgPool, Error>(db::connect(&scratch.url).await?)
        };
        match migrated.await {
            Ok(pool) => Ok(Database { scratch, pool }),
            Err(error) => {
                scratch.clear_away().await?;
                Err(error)
            }
        }
    }

    /// The URL of the database.
    pub fn url(&self) -> &str {
        &self.scratch.url
    }

    /// Connections for the test's own statements.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Drops the database, or stops the private server.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn clear_away(self) -> Result<(), Error> {
        self.pool.close().await;
        self.scratch.clear_away().await
    }
}

/// The program that runs a private Postgres.
fn pgsaga() -> Result<PathBuf, Error> {
    let named = env::var_os(PGSAGA).map(PathBuf::from);
    let folders = env::var_os("PATH").unwrap_or_default();
    let mut found = named.into_iter().chain(env::split_paths(&folders).map(|folder| folder.join("pgsaga")));
    found.find(|program| program.is_file()).ok_or(Error::NoDatabase)
}

fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(bound.map_err(|source| Error::Io { doing: "find a free port".to_owned(), source })?.port())
}
