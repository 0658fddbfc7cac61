//! The page's sessions in the database: those that read are read-only, and there are others only
//! where a token is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use crate::error::Error;
use crate::operate::check_schema;
use pgsaga_worker::db::{self, Class};

/// The longest wait for a connection, and before it for a permit.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Pages are read at once, and more wait for each other.
const READING_MAX: u32 = 4;
const DECIDING_MAX: u32 = 2;
/// The longest that a page or a decision may take, statements and waits together. Only a host that
/// vanished takes longer than the statements' own limits.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// Of every session. A page that takes longer would be a load on what it shows.
const SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "5000"),
    ("lock_timeout", "3000"),
    ("idle_in_transaction_session_timeout", "10000"),
    ("jit", "off"),
];

/// Connects when it is first asked, and anew after a connection broke: the primary may be another
/// host by then.
pub(crate) struct Store {
    url: String,
    decides: bool,
    pools: Mutex<Option<Arc<Pools>>>,
    /// One connects at a time, and leaves behind when and why it could not.
    opening: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    /// As many slots as there are connections. A request with a slot has a connection, be it of pools that
    /// were given up meanwhile or the first of new ones: so there are never more. Who waits for one
    /// holds an HTTP connection, of which there are few, and hangs up with it.
    reading: Arc<Semaphore>,
    deciding: Arc<Semaphore>,
}

struct Pools {
    reading: PgPool,
    deciding: Option<PgPool>,
    database: String,
}

impl Store {
    /// Connects to nothing yet.
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

    /// The name of the database, once it has answered.
    pub(crate) fn database(&self) -> Option<String> {
        self.held().as_ref().map(|pools| pools.database.clone())
    }

    /// Asks something, in a session that cannot write.
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
            // Those who have one wait for the database as well.
            _ if self.held().is_none() => Err(Failure::away("It has not answered for 3 s.")),
            _ => Err(Failure::busy()),
        }
    }

    /// In a task of its own, which keeps its permit to its end: whoever hangs up must not take a
    /// future with them that owns a transaction.
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
            // There is a connection for whoever has a permit: where a pool had none in time, none
            // could be made.
            if let Error::Database(error) | Error::Unanswered { error, .. } = &error
                && Class::of(error) == Class::Connection
            {
                tracing::warn!(%error, "the database does not answer");
                self.give_up(&pools);
            }
            error.into()
        })
    }

    /// Whoever comes next connects anew, unless somebody has done so since.
    fn give_up(&self, pools: &Arc<Pools>) {
        let mut held = self.held();
        if held.as_ref().is_none_or(|held| !Arc::ptr_eq(held, pools)) {
            return;
        }
        *held = None;
        let pools = Arc::clone(pools);
        // What nobody uses is closed at once, and the rest with its last answer.
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
        // Whoever was first may have found out for all who waited.
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
        let options = db::choose(&self.url).await?.options(SETTINGS);
        let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
        let read_only = options.clone().options([("default_transaction_read_only", "on")]);
        // Outside the pool, which would try again until its time is up, and then only say that it
        // waited.
        let mut connection = PgConnection::connect_with(&read_only).await.map_err(Error::from)?;
        check_schema(&mut connection).await?;
        // Courtesy: it ends with us as well.
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
        .connect_lazy_with(options)
}
