//! Transactions of handlers, in the worker's database.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::fail;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, PgTransaction};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor as _, Postgres, Row as _};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use super::pool_set::PoolSet;
use super::session::{PINNED, PLANNER};
use super::sessions::Session;
use super::{Db, within};

/// The setting that tells a transaction from one that its handler has begun instead.
const MARK: &str = "pgsaga.attempt";

/// The transaction of a transactional handler, in the saga's own database: `&mut *transaction` is
/// an executor of sqlx, and `begin` on it makes a savepoint.
///
/// The attempt of the step is recorded in the same transaction. So what the handler wrote and the
/// record commit together, or neither does. The worker commits after the handler has returned `Ok`,
/// and rolls back otherwise. A handler must not end the transaction, nor keep it after its own
/// end.
pub struct HandlerTransaction(OwnedMutexGuard<PgTransaction<'static>>);

impl fmt::Debug for HandlerTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerTransaction")
    }
}

impl Deref for HandlerTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for HandlerTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Bounds of a handler's transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Upper bound on one statement of the handler.
    pub(crate) statement_max: Duration,
    /// How long the transaction may be idle while the handler runs, before Postgres ends it. A
    /// worker that is frozen or gone holds what it has locked no longer.
    pub(crate) idle_max: Duration,
    /// The same, once the handler has returned.
    pub(crate) settle_idle_max: Duration,
}

/// A transaction that a handler has not got, or has given back. Dropped, it is rolled back, and its
/// session is closed.
pub(crate) struct OpenTransaction {
    transaction: PgTransaction<'static>,
    about: About,
}

/// A transaction that a handler has.
#[derive(Debug)]
pub(crate) struct Lent {
    transaction: Arc<tokio::sync::Mutex<PgTransaction<'static>>>,
    about: About,
}

#[derive(Debug)]
struct About {
    db: Db,
    pools: Arc<PoolSet>,
    opened: Instant,
    place: OwnedSemaphorePermit,
    mark: String,
    bounds: Bounds,
}

impl fmt::Debug for OpenTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTransaction").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Db {
    /// Begins the transaction of a handler. `mark` differs from that of each other transaction of
    /// the session; it consists of digits and colons.
    ///
    /// # Errors
    /// Errors of sqlx. Nothing has begun.
    pub(crate) async fn begin(&self, mark: String, bounds: Bounds) -> Result<OpenTransaction, sqlx::Error> {
        fail::point("handler_begin:before");
        let pools = self.pools();
        let begin = format!(
            "begin isolation level read committed read write; set local {MARK} = '{mark}'; \
             set local statement_timeout = {}; set local idle_in_transaction_session_timeout = {}",
            bounds.statement_max.as_millis(),
            bounds.idle_max.as_millis(),
        );
        let begun = pools.handlers().begin(begin, |age| pools.trusts(age));
        let begun = pools.unless_left(within(self.timeout(), begun)).await;
        fail::point("handler_begin:after");
        let about = |opened, place| About {
            db: self.clone(),
            pools: Arc::clone(&pools),
            opened,
            place,
            mark,
            bounds,
        };
        match begun {
            Ok(Session { transaction, opened, place }) => {
                Ok(OpenTransaction { transaction, about: about(opened, place) })
            }
            Err(error) => {
                self.saw(&pools, &error);
                Err(error)
            }
        }
    }
}

impl OpenTransaction {
    /// Lends the transaction to its handler.
    pub(crate) async fn lend(self) -> (HandlerTransaction, Lent) {
        let transaction = Arc::new(tokio::sync::Mutex::new(self.transaction));
        let guard = Arc::clone(&transaction).lock_owned().await;
        (HandlerTransaction(guard), Lent { transaction, about: self.about })
    }

    /// Prepares the session for a settle. Constraints and triggers that the handler's statements
    /// have deferred run now, with the handler's own settings. Returns false if the handler has
    /// ended the transaction: whatever the session is in now is another one.
    ///
    /// # Errors
    /// Errors of sqlx. A transaction that has failed says so here.
    pub(crate) async fn before_settle(&mut self) -> Result<bool, sqlx::Error> {
        let (timeout, idle) = (self.about.db.timeout(), self.about.bounds.settle_idle_max);
        let times = [
            ("statement_timeout", timeout.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", idle.as_millis().to_string()),
        ];
        let settings = PINNED.into_iter().chain(PLANNER).map(|(name, value)| (name, value.to_owned()));
        // control: transaction-settings
        let local = |(name, value)| format!("set_config('{name}', '{value}', true)");
        // The transaction's isolation is set, and the session has an end.
        let settings: Vec<String> = settings
            .filter(|(name, _)| !matches!(*name, "default_transaction_isolation" | "idle_session_timeout"))
            .chain(times)
            .map(local)
            .collect();
        let text = format!(
            "set constraints all immediate; select current_setting('{MARK}', true) as mark, {}",
            settings.join(", ")
        );
        let row =
            self.about.answer(sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(&mut *self.transaction)).await?;
        let mark: Option<&str> = row.try_get("mark")?;
        // control: transaction-own
        Ok(mark == Some(&self.about.mark))
    }

    /// Runs a statement in the transaction.
    ///
    /// # Errors
    /// Errors of sqlx. The transaction can only be rolled back then.
    pub(crate) async fn run(
        &mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        fail::point("handler_settle:before");
        let rows = self.about.answer(statement.fetch_all(&mut *self.transaction)).await;
        fail::point("handler_settle:after");
        rows
    }

    /// Commits.
    ///
    /// # Errors
    /// Errors of sqlx. Unless Postgres itself says why, nobody knows whether the transaction has
    /// committed: until that is decided its rows are locked.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        fail::point("handler_commit:before");
        let committed = self.about.answer((&mut *self.transaction).execute("COMMIT")).await;
        fail::point("handler_commit:after");
        committed?;
        self.give_back();
        Ok(())
    }

    /// Rolls back. Returns false if the handler had ended the transaction before.
    pub(crate) async fn roll_back(mut self) -> bool {
        let text = format!("select current_setting('{MARK}', true) as mark");
        let row =
            self.about.answer(sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(&mut *self.transaction)).await;
        // A transaction that has failed answers nothing, and is still there.
        let is_own = row.ok().is_none_or(|row| {
            row.try_get::<Option<&str>, _>("mark").is_ok_and(|mark| mark == Some(&self.about.mark))
        });
        if is_own && self.about.answer((&mut *self.transaction).execute("ROLLBACK")).await.is_ok() {
            self.give_back();
        }
        is_own
    }

    /// Keeps the session for the next transaction.
    fn give_back(self) {
        let OpenTransaction { transaction, about: About { pools, opened, place, .. } } = self;
        pools.handlers().keep(Session { transaction, opened, place });
    }
}

impl Lent {
    /// Takes the transaction back from a handler that has ended. `None` if somebody still has it.
    pub(crate) fn take_back(self) -> Option<OpenTransaction> {
        let transaction = Arc::into_inner(self.transaction)?.into_inner();
        Some(OpenTransaction { transaction, about: self.about })
    }
}

impl About {
    /// Waits for the answer to a statement of the worker.
    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let answer = self.pools.unless_left(within(self.db.timeout(), answer)).await;
        if let Err(error) = &answer {
            self.db.saw(&self.pools, error);
        }
        answer
    }
}
