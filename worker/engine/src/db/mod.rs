//! Connections to the database: pools, statement timeouts, and the classification of errors.

mod hosts;
mod pool_set;
mod reconnect;
mod time;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgsaga_sql::query;
use pgsaga_sql::schema::Found;
use sqlx::Connection as _;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::query::Query;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::telemetry::metrics::DatabaseMetrics;
use crate::telemetry::metrics::handle::MetricSet as _;

pub use hosts::Hosts;
use pool_set::PoolSet;
pub use pool_set::{Options, PoolKind};
pub(crate) use reconnect::Reconnect;
pub use time::Time;
pub use url::of_database;

/// Planner settings for every session of a worker.
///
/// The hot statements are written for index loops, and EXPLAIN tests show that their plans do not
/// depend on statistics. Planning a statement again on each execution costs more than it gains.
///
/// A generic plan made while a table is small stays in use while the table grows to millions of
/// rows. Sequential scans are therefore disabled. Bitmap scans are disabled because a claim that
/// needs a few hundred rows would read and sort all due rows.
pub const PLANNER: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    // control: plans-without-scans
    ("enable_seqscan", "off"),
    // control: plans-without-sorts
    ("enable_bitmapscan", "off"),
];

/// Upper bound on the wait for a connection. No caller asks a pool for more connections than the
/// pool has.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);

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
    link: RwLock<Arc<PoolSet>>,
    /// Index of the primary in the list of hosts; `None` until the first connection.
    primary: watch::Sender<Option<usize>>,
    searching: AtomicBool,
    closed: CancellationToken,
    metrics: DatabaseMetrics,
}

impl Db {
    /// Creates the pools. Opens no connection.
    ///
    /// # Errors
    /// [`Error::Usage`] if the URL cannot be parsed.
    pub fn new(options: Options) -> Result<Db, Error> {
        let hosts = Hosts::read(&options.url, options.pooled, options.timeout)?;
        let link = RwLock::new(Arc::new(PoolSet::new(&options, &hosts, 0)));
        let (primary, searching, closed) =
            (watch::Sender::new(None), AtomicBool::new(false), CancellationToken::new());
        let metrics = DatabaseMetrics::of(&options.series, &[]);
        Ok(Db(Arc::new(Shared { options, hosts, link, primary, searching, closed, metrics })))
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
        let link = self.link();
        let result = link.run(pool, statement).await;
        if let Err(error) = &result
            && Class::of(error) == Class::Connection
        {
            self.lost(&link);
        }
        result
    }

    /// Counts a failed statement, logs it once, and returns its class.
    pub(crate) fn failed(&self, doing: &'static str, error: &sqlx::Error) -> Class {
        let class = self.count(error);
        match class {
            Class::Connection => tracing::warn!(%error, doing, "the database did not answer"),
            Class::Conflict => tracing::debug!(%error, doing, "a conflict in the database"),
            Class::Data | Class::Other => tracing::error!(%error, doing, "a statement failed"),
        }
        class
    }

    /// Counts a failed statement.
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
    /// The reason why no host answers. With several hosts, the state of each host.
    pub async fn answers(&self) -> Result<(), sqlx::Error> {
        let hosts = &self.0.hosts;
        self.found(within(hosts.patience(ACQUIRE_MAX), hosts.connect()).await?).await;
        Ok(())
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
        self.link().observe();
    }

    fn link(&self) -> Arc<PoolSet> {
        Arc::clone(&self.0.link.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a search after a broken connection, because the primary may have changed. At most one
    /// search runs at a time.
    fn lost(&self, link: &Arc<PoolSet>) {
        if !self.0.hosts.chooses()
            || !Arc::ptr_eq(link, &self.link())
            || self.0.searching.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let db = self.clone();
        tokio::spawn(async move {
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
                    let error = error.to_string();
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
            let mut link = self.0.link.write().unwrap_or_else(PoisonError::into_inner);
            if link.host == host && !link.is_refused() {
                None
            } else {
                Some(std::mem::replace(
                    &mut *link,
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
        self.link().close().await;
    }
}

fn prepare(options: PgConnectOptions, pooled: bool, timeout: Duration) -> PgConnectOptions {
    // sqlx would log the full text of each statement, and the log's events would be hard to find.
    let options = sqlx::ConnectOptions::disable_statement_logging(options.application_name("pgsaga"));
    if pooled {
        // PgBouncer refuses start-up parameters that it does not track.
        return options.extra_float_digits(None);
    }
    let timeout_ms = timeout.as_millis().to_string();
    options
        .options([
            ("statement_timeout", timeout_ms.as_str()),
            ("lock_timeout", timeout_ms.as_str()),
            ("idle_in_transaction_session_timeout", "60000"),
            // If a worker's machine disappears without closing the connection, its session ends
            // within a minute. Until then the session holds the advisory lock that makes producers
            // notify.
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
        ])
        .options(PLANNER)
}

/// Whether the connection is neither local nor verified. With an `sslmode` below `verify-full`, a
/// man in the middle can read and change all traffic. The default, `prefer`, even falls back to no
/// TLS.
fn is_unverified(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    let local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !local && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
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
/// [`Error::Usage`] for a bad URL, [`Error::Database`] if no host answers.
pub async fn connect(url: &str) -> Result<PgPool, Error> {
    let options = choose(url).await?;
    Ok(PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options)
        .await?)
}

/// Returns the connection options for the command line. With several hosts, these are the options
/// of the host that accepts writes now.
///
/// # Errors
/// As [`connect`]. A single host is not contacted.
pub async fn choose(url: &str) -> Result<PgConnectOptions, Error> {
    let hosts = Hosts::read(url, true, Duration::from_secs(30))?;
    Ok(hosts.choose().await?.clone())
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer from the database"))
}

/// Class of a database error, which decides how the caller reacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// No connection, or a broken connection: the result is unknown. Retry.
    Connection,
    /// Conflict or timeout inside the database: nothing was written. Retry with jitter.
    Conflict,
    /// The values are at fault (SQLSTATE class 22, 23 or 54), so a retry cannot help
    /// (docs/races.md, R9).
    Data,
    /// Any other error, such as a missing privilege.
    Other,
}

impl Class {
    /// Classifies an error of sqlx.
    pub fn of(error: &sqlx::Error) -> Class {
        if !matches!(error, sqlx::Error::Database(_)) {
            return match error {
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_) => Class::Other,
                _ => Class::Connection,
            };
        }
        // A missing history partition also has class 23, but no value is at fault: the partition
        // loop creates the partition.
        let no_partition = error.as_database_error().is_some_and(|error| error.constraint().is_none());
        match sqlstate(error).as_deref() {
            Some("23514") if no_partition => Class::Conflict,
            // 53200: out of memory. A smaller group needs less memory.
            Some("40001" | "40P01" | "55P03" | "57014" | "53200") => Class::Conflict,
            Some(code) if code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") => {
                Class::Connection
            }
            // 25006: the server became a standby. 25P02, 25P03: the server ended our session.
            Some("25006" | "25P02" | "25P03") => Class::Connection,
            Some(code) if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => {
                Class::Data
            }
            _ => Class::Other,
        }
    }
}

/// Returns the five-character SQLSTATE of a database error.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_neither_local_nor_verified_is_known() {
        for (url, unverified) in [
            ("postgres://u@db.example/x", true),
            ("postgres://u@db.example/x?sslmode=require", true),
            ("postgres://u@db.example/x?sslmode=verify-full", false),
            ("postgres://u@localhost/x", false),
            ("postgres://u@127.0.0.1/x", false),
            ("postgres://u@[::1]/x", false),
            ("postgres:///x?host=/run/postgresql", false),
            ("postgres://u@localhost,db.example/x", true),
            ("postgres://u@localhost,db.example/x?sslmode=verify-full", false),
        ] {
            let hosts = Hosts::read(url, false, Duration::from_secs(1)).unwrap();
            assert_eq!(hosts.is_unverified(), unverified, "{url}");
        }
    }
}
