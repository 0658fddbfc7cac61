//! Connections to the database: pools, statement timeouts, and the classes of errors.

mod class;
mod hosts;
mod partition;
mod pool_set;
mod pooler;
mod reconnect;
mod session;
mod sessions;
mod time;
mod transaction;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgsaga_sql::schema::Found;
use pgsaga_sql::{grant, query};
use sqlx::Connection as _;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::telemetry::metrics::DatabaseMetrics;
use crate::telemetry::metrics::handle::MetricSet as _;

pub(crate) use class::is_conflict;
pub use class::{Class, is_denied, sqlstate};
pub use hosts::Hosts;
use partition::Partition;
pub use pgsaga_sql::describe;
use pool_set::PoolSet;
pub use pool_set::{Options, PoolKind};
pub(crate) use pooler::is_pooled;
use pooler::refuses_settings;
pub(crate) use reconnect::Reconnect;
pub use session::{PINNED, PLANNER, pin};
pub use time::Time;
pub use transaction::HandlerTransaction;
pub(crate) use transaction::{Bounds, Lent, OpenTransaction};
pub use url::of_database;

/// Upper bound on the wait for a connection. No caller asks a pool for more connections than the
/// pool has.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// Upper bound on the wait of a command for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The role whose rights a worker needs.
const ROLE: &str = "pgsaga_worker";

/// The database: one host, or the primary among several hosts.
///
/// With several hosts, every broken connection starts a search for the host that accepts writes.
/// When the search finds a different host, everything in progress on the old host is cancelled. A
/// worker therefore never talks to two servers.
///
/// The worker does not decide which server is the primary. An old primary that still accepts writes
/// must be fenced (stopped, or isolated from the network) *before* the standby is promoted.
/// Otherwise a worker that reaches only the old primary continues there, and two fleets call the
/// same steps.
#[derive(Debug, Clone)]
pub struct Db(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    hosts: Hosts,
    pools: RwLock<Arc<PoolSet>>,
    /// Index of the primary in the list of hosts; `None` until the first connection.
    primary: watch::Sender<Option<usize>>,
    searching: AtomicBool,
    closed: CancellationToken,
    partition: Partition,
    metrics: DatabaseMetrics,
    /// The runtime of the worker's loops, in which a search goes on when the heartbeat's ends.
    runtime: Handle,
}

impl Db {
    /// Creates the pools, in the runtime of the worker's loops. Opens no connection.
    ///
    /// # Errors
    /// [`Error::Usage`] if the URL cannot be parsed.
    pub fn new(options: Options) -> Result<Db, Error> {
        let hosts = Hosts::read(&options.url, options.pooled, options.timeout)?;
        let pools = RwLock::new(Arc::new(PoolSet::new(&options, &hosts, 0)));
        let (primary, searching, closed) =
            (watch::Sender::new(None), AtomicBool::new(false), CancellationToken::new());
        let partition = Partition::default();
        let metrics = DatabaseMetrics::of(&options.series, &[]);
        let runtime = Handle::current();
        Ok(Db(Arc::new(Shared {
            options,
            hosts,
            pools,
            primary,
            searching,
            closed,
            partition,
            metrics,
            runtime,
        })))
    }

    /// Upper bound on the duration of a statement.
    pub fn timeout(&self) -> Duration {
        self.0.options.timeout
    }

    /// Runs one statement that commits itself. After a timeout or a broken connection the result is
    /// unknown, and the connection is discarded.
    ///
    /// # Errors
    /// Errors of sqlx. A timeout is an I/O error of kind `TimedOut`.
    pub async fn run(
        &self,
        pool: PoolKind,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let pools = self.pools();
        let result = pools.run(pool, statement).await;
        if let Err(error) = &result {
            self.saw(&pools, error);
        }
        result
    }

    /// Draws the conclusions from an error of a statement.
    fn saw(&self, pools: &Arc<PoolSet>, error: &sqlx::Error) {
        if Class::of(error) == Class::Connection {
            self.lost(pools);
        }
        self.0.partition.saw(error);
    }

    /// Whether a statement failed because the history has no partition for a saga, and none has
    /// been made since.
    pub(crate) fn lacks_partition(&self) -> bool {
        self.0.partition.is_missing()
    }

    /// Waits until a statement fails because the history has no partition for a saga.
    pub(crate) async fn partition_missed(&self) {
        self.0.partition.failed().await;
    }

    /// All history partitions that sagas need have been made.
    pub(crate) fn partitions_made(&self) {
        self.0.partition.made();
    }

    /// Counts a failed statement, logs it once, and returns its class.
    pub(crate) fn failed(&self, doing: &'static str, error: &sqlx::Error) -> Class {
        let class = self.count(error);
        match class {
            Class::Connection => {
                tracing::warn!(error = %describe(error), doing, "the database did not answer")
            }
            Class::Conflict => tracing::debug!(error = %describe(error), doing, "a conflict in the database"),
            Class::Other if is_denied(error) => {
                let helps = grant(ROLE, self.0.hosts.user());
                tracing::error!(error = %describe(error), doing, helps, "a right is missing");
            }
            Class::Data | Class::Other => {
                tracing::error!(error = %describe(error), doing, "a statement failed");
            }
        }
        class
    }

    pub(crate) fn count(&self, error: &sqlx::Error) -> Class {
        let errors = &self.0.metrics.errors;
        let class = Class::of(error);
        let counter = match class {
            Class::Connection => &errors.connection,
            Class::Conflict => &errors.conflict,
            Class::Data => &errors.data,
            Class::Other => &errors.other,
        };
        counter.increment(1);
        class
    }

    /// Opens a connection outside the pools, because a pool would report only that its wait timed
    /// out. With several hosts, finds the host to use.
    ///
    /// # Errors
    /// [`Error::Unreachable`]. With several hosts, it has the state of each host. [`Error::Usage`]
    /// if a pooler refuses the settings of the worker's sessions.
    pub async fn answers(&self) -> Result<(), Error> {
        match self.0.hosts.reach(ACQUIRE_MAX).await {
            Ok(found) => self.found(found).await,
            Err(Error::Unreachable { source, .. }) if refuses_settings(&source) => return Err(self.pooler()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Refuses a URL that leads through a pooler in transaction mode although the worker was not
    /// told so: its sessions would lose their settings, and its prepared statements would fail.
    ///
    /// # Errors
    /// [`Error::Usage`] for such a URL. [`Error::Database`] if the database does not answer.
    pub(crate) async fn refuse_pooler(&self) -> Result<(), Error> {
        if !self.0.options.pooled && is_pooled(&self.0.hosts.options(self.pools().host)).await? {
            return Err(self.pooler());
        }
        Ok(())
    }

    /// Whether the worker's own URL leads to this place, and was found to be direct as the worker
    /// started.
    pub(crate) fn is_direct(&self, hosts: &Hosts) -> bool {
        !self.0.options.pooled && hosts.database() == self.name()
    }

    fn pooler(&self) -> Error {
        let name = self.name();
        Error::Usage(format!(
            "the database URL ({name}) leads through a pooler in transaction mode; set --pooled, or name Postgres itself"
        ))
    }

    /// Adds to an error what helps, if the worker's user lacks a right.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Database(source) if is_denied(&source) => {
                Error::Denied { user: self.0.hosts.user().to_owned(), role: ROLE, source }
            }
            error => error,
        }
    }

    /// Returns [`Hosts::database`].
    pub fn name(&self) -> String {
        self.0.hosts.database()
    }

    /// Returns a receiver that is notified when another host becomes the primary.
    pub fn primary(&self) -> watch::Receiver<Option<usize>> {
        self.0.primary.subscribe()
    }

    /// Updates the connection gauges.
    pub fn observe(&self) {
        self.pools().observe();
    }

    fn pools(&self) -> Arc<PoolSet> {
        Arc::clone(&self.0.pools.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a search after a broken connection, because the primary may have changed. At most one
    /// search runs at a time.
    fn lost(&self, pools: &Arc<PoolSet>) {
        if !self.0.hosts.chooses()
            || !Arc::ptr_eq(pools, &self.pools())
            || self.0.searching.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let db = self.clone();
        self.0.runtime.spawn(async move {
            tokio::select! {
                () = db.0.closed.cancelled() => {}
                () = db.search() => {}
            }
            db.0.searching.store(false, Ordering::Release);
        });
    }

    /// Searches until a host can be used.
    async fn search(&self) {
        let mut reconnect = Reconnect::new();
        let mut said = String::new();
        loop {
            match self.0.hosts.connect().await {
                Ok(found) => return self.found(found).await,
                Err(error) => {
                    let error = describe(&error).to_string();
                    if error != said {
                        tracing::warn!(error, "no host can be used; looking until one can");
                        said = error;
                    }
                }
            }
            tokio::time::sleep(reconnect.pause()).await;
        }
    }

    async fn found(&self, (host, connection): (usize, PgConnection)) {
        self.move_to(host);
        // The host has answered, so a failure to close the connection does not matter.
        let _ = within(ACQUIRE_MAX, connection.close()).await;
    }

    /// Sends all further statements to this host.
    fn move_to(&self, host: usize) {
        if !self.0.hosts.chooses() {
            return;
        }
        let left = {
            let mut pools = self.0.pools.write().unwrap_or_else(PoisonError::into_inner);
            if pools.host == host && !pools.is_refused() {
                None
            } else {
                Some(std::mem::replace(
                    &mut *pools,
                    Arc::new(PoolSet::new(&self.0.options, &self.0.hosts, host)),
                ))
            }
        };
        if let Some(left) = left {
            left.leave();
        }
        let before = self.0.primary.send_replace(Some(host));
        if before != Some(host) {
            let before = before.map(|host| self.0.hosts.name(host));
            tracing::info!(host = self.0.hosts.name(host), before, "this host takes writes");
        }
    }

    /// Checks that the schema has the version that this release's statements need.
    ///
    /// # Errors
    /// [`Error::Schema`] names the command to run. [`Error::Database`] if the database does not
    /// answer.
    pub async fn check_schema(&self) -> Result<(), Error> {
        let rows = self.run(PoolKind::Control, sqlx::query(query::SCHEMA_VERSION)).await;
        Ok(Found::of(rows)?.check_for_worker()?)
    }

    /// Closes all connections. Does not wait for a connection whose statement gets no answer: the
    /// statement ends with the process.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.pools().close().await;
    }
}

/// Waits for an answer for at most `timeout`.
///
/// # Errors
/// The future's own error. After the timeout, an I/O error of kind `TimedOut`.
pub async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(no_answer()))
}

/// Returns a small pool without special settings, for the command line. With several hosts, the
/// pool connects to the host that accepts writes.
///
/// # Errors
/// [`Error::Usage`] for a bad URL, [`Error::Unreachable`] if no host answers.
pub async fn connect(url: &str) -> Result<PgPool, Error> {
    let options = choose(url).await?;
    Ok(PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(CONNECT_MAX)
        .after_connect(|connection, _| Box::pin(pin(connection)))
        .connect_lazy_with(options))
}

/// Returns the connection options for the command line, of a host that has just answered. With
/// several hosts, it accepts writes. A pool could not say why a host does not answer: it would try
/// again until its time is over.
///
/// # Errors
/// As [`connect`].
pub async fn choose(url: &str) -> Result<PgConnectOptions, Error> {
    let hosts = Hosts::read(url, true, Duration::from_secs(30))?;
    let (host, connection) = hosts.reach(CONNECT_MAX).await?;
    // The host has answered, so a failure to close the connection does not matter.
    let _ = within(ACQUIRE_MAX, connection.close()).await;
    Ok(hosts.options(host))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer from the database"))
}
