//! The page's sessions in the database: those that read are read-only, and there are others only where a token is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::failure::Failure;
use crate::commands::check_schema;
use crate::db::{self, Class};
use crate::error::Error;

/// The longest wait for a connection.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pages are read at once, and more wait for each other.
const READING_MAX: u32 = 4;
const DECIDING_MAX: u32 = 2;
/// Of every session. A page that takes longer would be a load on what it shows.
const SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "5000"),
    ("lock_timeout", "3000"),
    ("idle_in_transaction_session_timeout", "10000"),
    ("jit", "off"),
];

/// Connects when it is first asked, and anew after a connection broke: the primary may be another host by then.
pub(super) struct Store {
    url: String,
    decides: bool,
    pools: Mutex<Option<Pools>>,
}

#[derive(Clone)]
struct Pools {
    reading: PgPool,
    deciding: Option<PgPool>,
    place: String,
}

impl Store {
    /// Connects to nothing yet.
    pub(super) fn new(url: String, decides: bool) -> Store {
        Store { url, decides, pools: Mutex::new(None) }
    }

    /// The name of the database, once it has answered.
    pub(super) fn place(&self) -> Option<String> {
        self.held().as_ref().map(|pools| pools.place.clone())
    }

    /// Asks something, in a session that cannot write.
    ///
    /// # Errors
    /// What the database says, as a page says it.
    pub(super) async fn read<T, F>(&self, ask: impl FnOnce(PgPool) -> F + Send) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let pools = self.pools().await?;
        self.run(ask(pools.reading)).await
    }

    /// Decides something.
    ///
    /// # Errors
    /// As [`Store::read`]; [`Failure::forbidden`] where no token is.
    pub(super) async fn decide<T, F>(&self, decide: impl FnOnce(PgPool) -> F + Send) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let pools = self.pools().await?;
        let Some(pool) = pools.deciding else { return Err(Failure::forbidden("This page is read-only.")) };
        self.run(decide(pool)).await
    }

    /// In a task of its own: whoever hangs up must not take a future with them that owns a transaction.
    async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Failure> {
        let Ok(answer) = tokio::spawn(future).await else {
            return Err(Failure::broken("The page ended unexpectedly; its log says why."));
        };
        answer.map_err(|error| {
            if let Error::Database(error) | Error::Unanswered { error, .. } = &error
                && Class::of(error) == Class::Connection
            {
                tracing::warn!(%error, "the database does not answer");
                *self.held() = None;
            }
            error.into()
        })
    }

    async fn pools(&self) -> Result<Pools, Failure> {
        if let Some(pools) = &*self.held() {
            return Ok(pools.clone());
        }
        let opened = tokio::time::timeout(ANSWER_MAX * 2, self.open()).await;
        let pools = opened.unwrap_or_else(|_| Err(Failure::away("No host of it answered within 6 s.")))?;
        // Two who came at once each made some: one of them is used.
        Ok(self.held().get_or_insert(pools).clone())
    }

    async fn open(&self) -> Result<Pools, Failure> {
        let options = db::choose(&self.url).await?.options(SETTINGS);
        let place = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
        let read_only = options.clone().options([("default_transaction_read_only", "on")]);
        // Outside the pool, which would try again until its time is up, and then only say that it waited.
        let mut connection = PgConnection::connect_with(&read_only).await.map_err(Error::from)?;
        check_schema(&mut connection).await?;
        // Courtesy: it ends with us as well.
        let _ = connection.close().await;
        let pools = Pools {
            reading: pool(read_only, READING_MAX),
            deciding: self.decides.then(|| pool(options, DECIDING_MAX)),
            place,
        };
        Ok(pools)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Pools>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool(options: PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ANSWER_MAX)
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options)
}
