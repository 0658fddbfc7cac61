//! The sessions in which handlers' transactions run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgPool, PgTransaction};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A session is closed at this age, like those of the pools.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// The sessions to one host in which handlers' transactions run.
///
/// For sqlx each is one transaction that never ends: BEGIN, COMMIT and ROLLBACK are sent as text.
/// So sqlx knows that the session is in a transaction, and a handler's `begin` makes a savepoint.
/// And sqlx tests a connection only when its session is given up, not after each transaction.
pub(super) struct Sessions {
    pool: PgPool,
    idle: Mutex<Vec<Idle>>,
    /// One for each session that may be in use.
    places: Arc<Semaphore>,
}

struct Idle {
    transaction: PgTransaction<'static>,
    opened: Instant,
}

/// A session in use.
pub(super) struct Session {
    pub(super) transaction: PgTransaction<'static>,
    pub(super) opened: Instant,
    pub(super) place: OwnedSemaphorePermit,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("idle", &self.idle().len()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// At most `sessions_max` are in use. `pool` closes each connection that comes back to it.
    pub(super) fn new(pool: PgPool, sessions_max: u32) -> Sessions {
        Sessions { pool, idle: Mutex::default(), places: Arc::new(Semaphore::new(sessions_max as usize)) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction by this statement, in a session whose age is trusted. Waits until a
    /// session is free.
    pub(super) async fn begin(
        &self,
        begin: String,
        trusts: impl Fn(Duration) -> bool,
    ) -> Result<Session, sqlx::Error> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        loop {
            let idle = self.idle().pop();
            let Some(Idle { mut transaction, opened }) = idle else { break };
            let age = opened.elapsed();
            if age < AGE_MAX && trusts(age) {
                (&mut *transaction).execute(AssertSqlSafe(begin)).await?;
                return Ok(Session { transaction, opened, place });
            }
        }
        let opened = Instant::now();
        let transaction = self.pool.begin_with(AssertSqlSafe(begin)).await?;
        Ok(Session { transaction, opened, place })
    }

    /// Keeps a session whose transaction has ended.
    pub(super) fn keep(&self, Session { transaction, opened, place }: Session) {
        self.idle().push(Idle { transaction, opened });
        drop(place);
    }

    /// Gives up the sessions that nobody uses, and returns the pool, to be closed.
    pub(super) fn leave(&self) -> &PgPool {
        self.idle().clear();
        &self.pool
    }
}
