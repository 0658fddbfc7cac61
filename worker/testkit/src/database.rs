//! The database of a test.

use std::{env, thread};

use pgsaga_sql::schema::{self, RELEASE, ROLES};
use pgsaga_worker::db;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::runtime;
use tokio::sync::Mutex;

use crate::embedded::Options;
use crate::error::Error;
use crate::proxy::Proxy;
use crate::scratch::ScratchDatabase;

/// A migrated database that a test has for itself. Business tables may lie in it as well.
#[derive(Debug)]
pub struct Database {
    /// `None` once it is cleared away.
    scratch: Option<ScratchDatabase>,
    url: String,
    pool: PgPool,
    /// Kits take turns: their workers would claim each other's sagas.
    pub(crate) turn: Mutex<()>,
}

impl Database {
    /// A scratch database on the server of `DATABASE_URL`, whose user may create databases and
    /// roles. Without that variable a private Postgres, which ends with this process. It runs the
    /// server programs of this machine, and downloads them where there are none.
    ///
    /// # Errors
    /// There is neither, or the server refuses.
    pub async fn start() -> Result<Database, Error> {
        match env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            Some(url) => Database::on(&url).await,
            None => Database::private().await,
        }
    }

    /// A scratch database on the server of this URL.
    ///
    /// # Errors
    /// The server refuses, or speaks TLS only: see [`Proxy::start`].
    pub async fn on(url: &str) -> Result<Database, Error> {
        Proxy::check(url)
            .map_err(|source| Error::Io { doing: "use DATABASE_URL for tests".to_owned(), source })?;
        let scratch = ScratchDatabase::prepare(Some(url.to_owned()), Options::default());
        Database::migrated(scratch.await?).await
    }

    async fn private() -> Result<Database, Error> {
        // Nothing of a test outlives its machine.
        let options = Options { fsync: false, ..Options::default() };
        Database::migrated(ScratchDatabase::prepare(None, options).await?).await
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
            // Plain connections, because the test's own tables lie where its user puts them.
            Ok::<PgPool, Error>(PgPool::connect_with(db::choose(&scratch.url).await?).await?)
        };
        match migrated.await {
            Ok(pool) => {
                Ok(Database { url: scratch.url.clone(), scratch: Some(scratch), pool, turn: Mutex::new(()) })
            }
            Err(error) => {
                scratch.clear_away().await?;
                Err(error)
            }
        }
    }

    /// The URL of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connections for the test's own statements.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Drops the database, or stops the private server. A test that fails before that does the same
    /// when the value is dropped.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn clear_away(mut self) -> Result<(), Error> {
        self.pool.close().await;
        match self.scratch.take() {
            Some(scratch) => scratch.clear_away().await,
            None => Ok(()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(scratch) = self.scratch.take() else { return };
        // A runtime cannot wait within a runtime, so another thread does.
        let cleared = thread::spawn(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(scratch.clear_away()).ok()
        });
        drop(cleared.join());
    }
}
