//! The page's connections to the database. Reads use read-only sessions. Sessions that write exist
//! only if the page has a token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use crate::error::Error;
use crate::operate::check_schema;
use pgsaga_sql::describe;
use pgsaga_worker::db::{self, Class, pin};

/// Upper bound on the wait for a permit, and on the wait for a connection after it.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Upper bound on the pages that are read at the same time. Further pages wait.
const READING_MAX: u32 = 4;
const DECIDING_MAX: u32 = 2;
/// Upper bound on the time of a page or a decision, with its statements and waits. The statements'
/// own limits are shorter, so that only a host that vanished reaches it.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// Settings of every session. A page that takes longer would slow down the workers that it shows.
const SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "5000"),
    ("lock_timeout", "3000"),
    ("idle_in_transaction_session_timeout", "10000"),
    ("jit", "off"),
];

/// Connects at the first read, and again after a broken connection, because another host may be the
/// primary by then.
pub(crate) struct Store {
    url: String,
    decides: bool,
    pools: Mutex<Option<Arc<Pools>>>,
    /// Only one request connects at a time. It leaves the time and the reason of a failure to the
    /// others.
    opening: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    /// One permit for each connection. The holder of a permit has a connection, of the current
    /// pools or of pools that are being closed, so that there are never more connections. A request
    /// that waits for a permit holds one of few HTTP connections, and gives up with it.
    reading: Arc<Semaphore>,
    deciding: Arc<Semaphore>,
}

struct Pools {
    reading: PgPool,
    deciding: Option<PgPool>,
    database: String,
}

impl Store {
    /// Opens no connection yet; the first read does.
    pub(crate) fn new(url: String, decides: bool) -> Store {
        let slots = |number: u32| Arc::new(Semaphore::new(number as usize));
        Store {
            url,
            decides,
            pools: Mutex::new(None),
            opening: tokio::sync::Mutex::new(None),
            reading: slots(READING_MAX),
            deciding: slots(DECIDING_MAX),
        }
    }

    /// Name of the database; `None` until it has answered.
    pub(crate) fn database(&self) -> Option<String> {
        self.held().as_ref().map(|pools| pools.database.clone())
    }

    /// Runs a read in a session that cannot write.
    pub(crate) async fn read<T, F>(&self, ask: impl FnOnce(PgPool) -> F + Send) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let permit = self.enter(&self.reading).await?;
        let pools = self.pools().await?;
        let answer = ask(pools.reading.clone());
        self.run(pools, permit, answer, Error::Database).await
    }

    pub(crate) async fn decide<T, F>(&self, decide: impl FnOnce(PgPool) -> F + Send) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let permit = self.enter(&self.deciding).await?;
        let pools = self.pools().await?;
        let Some(pool) = pools.deciding.clone() else {
            return Err(Failure::forbidden("This page is read-only."));
        };
        let late = |error| Error::Unanswered { error, advice: "look before you repeat it" };
        self.run(pools, permit, decide(pool), late).await
    }

    async fn enter(&self, slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
        match tokio::time::timeout(ANSWER_MAX, Arc::clone(slots).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The holders of the permits wait for the database as well.
            _ if self.held().is_none() => Err(Failure::away("It has not answered for 3 s.")),
            _ => Err(Failure::busy()),
        }
    }

    /// Runs in a task of its own, which keeps its permit to its end. A visitor who hangs up must
    /// not drop a future that owns a transaction.
    async fn run<T: Send + 'static>(
        &self,
        pools: Arc<Pools>,
        permit: OwnedSemaphorePermit,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
        late: impl FnOnce(sqlx::Error) -> Error + Send + 'static,
    ) -> Result<T, Failure> {
        let answer = tokio::spawn(async move {
            let answer = tokio::time::timeout(WHOLE_MAX, future).await;
            drop(permit);
            answer.unwrap_or_else(|elapsed| Err(late(sqlx::Error::Io(elapsed.into()))))
        });
        let Ok(answer) = answer.await else {
            return Err(Failure::broken("The page ended unexpectedly; its log says why."));
        };
        answer.map_err(|error| {
            // There is a connection for each permit. If a pool had none in time, none could be
            // opened.
            if let Error::Database(error) | Error::Unanswered { error, .. } = &error
                && Class::of(error) == Class::Connection
            {
                tracing::warn!(error = %describe(error), "the database does not answer");
                self.give_up(&pools);
            }
            error.into()
        })
    }

    /// Makes the next request connect again, unless another request already did.
    fn give_up(&self, pools: &Arc<Pools>) {
        let mut held = self.held();
        if held.as_ref().is_none_or(|held| !Arc::ptr_eq(held, pools)) {
            return;
        }
        *held = None;
        let pools = Arc::clone(pools);
        // Closes idle connections now, and each other connection after its last answer.
        tokio::spawn(async move {
            pools.reading.close().await;
            if let Some(deciding) = &pools.deciding {
                deciding.close().await;
            }
        });
    }

    async fn pools(&self) -> Result<Arc<Pools>, Failure> {
        let asked = Instant::now();
        if let Some(pools) = &*self.held() {
            return Ok(Arc::clone(pools));
        }
        let mut failed = self.opening.lock().await;
        // The first of the waiting requests may already have connected.
        if let Some(pools) = &*self.held() {
            return Ok(Arc::clone(pools));
        }
        if let Some((_, failure)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(failure.clone());
        }
        let opened = tokio::time::timeout(ANSWER_MAX * 2, self.open()).await;
        match opened.unwrap_or_else(|_| Err(Failure::away("No host of it answered within 6 s."))) {
            Ok(pools) => {
                let pools = Arc::new(pools);
                *self.held() = Some(Arc::clone(&pools));
                Ok(pools)
            }
            Err(failure) => {
                *failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn open(&self) -> Result<Pools, Failure> {
        let options =
            db::choose(&self.url).await.inspect_err(|error| tracing::warn!(%error, "no connection"))?;
        let options = options.options(SETTINGS);
        let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
        let read_only = options.clone().options([("default_transaction_read_only", "on")]);
        // Outside the pool, because a pool would retry until its time is over and then report only
        // that it waited.
        let mut connection = PgConnection::connect_with(&read_only).await.map_err(Error::from)?;
        check_schema(&mut connection).await?;
        // Optional: the connection also ends with the process.
        let _ = connection.close().await;
        let pools = Pools {
            reading: pool(read_only, READING_MAX),
            deciding: self.decides.then(|| pool(options, DECIDING_MAX)),
            database,
        };
        Ok(pools)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Arc<Pools>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool(options: PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ANSWER_MAX)
        .idle_timeout(Duration::from_secs(60))
        .after_connect(|connection, _| Box::pin(pin(connection)))
        .connect_lazy_with(options)
}
