//! The worker's connections: how they are made, how long a statement may take, and what an error means.

mod hosts;
mod link;
mod time;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::query::Query;
use sqlx::{Connection as _, Row as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Reconnect;
use crate::error::Error;

pub use hosts::Hosts;
use link::Link;
pub use link::{Lane, Options};
pub use time::Time;
pub use url::of_database;

/// What the planner of a worker's session is told. The hot statements are written for index loops; their plans are shown not
/// to need the statistics, and planning them anew each time costs more than it finds. A plan that is made while a table has a
/// few pages, and kept while it grows to millions of rows, must not scan it; nor may a claim read all that is due by a bitmap and
/// sort it, to take the first few hundred.
pub const PLANNER: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
];

/// The longest wait for a connection: none of the pools is ever asked for more than it has.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);

/// How to speak to the database: to its one host, or to the primary among several. Where several are named, every broken
/// connection starts a search for the one that takes writes; once it is another, all that goes on with the old one is
/// given up, so that no worker speaks to two servers.
///
/// Which server is the primary is for whoever promotes to decide. An old primary that still takes writes must be fenced
/// (stopped, or cut off from everybody) *before* the standby is promoted: a worker that reaches only the old one goes on
/// there, and two fleets would call the same steps.
#[derive(Debug, Clone)]
pub struct Db(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    hosts: Hosts,
    link: RwLock<Arc<Link>>,
    /// The primary's place in the list, once it was found.
    primary: watch::Sender<Option<usize>>,
    searching: AtomicBool,
    closed: CancellationToken,
}

impl Db {
    /// Makes the pools; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Usage`] where the URL cannot be read.
    pub fn new(options: Options) -> Result<Db, Error> {
        let hosts = Hosts::read(&options.url, options.pooled, options.timeout)?;
        let link = RwLock::new(Arc::new(Link::new(&options, &hosts, 0)));
        let (primary, searching, closed) =
            (watch::Sender::new(None), AtomicBool::new(false), CancellationToken::new());
        Ok(Db(Arc::new(Shared { options, hosts, link, primary, searching, closed })))
    }

    /// The longest that a statement may take.
    pub fn timeout(&self) -> Duration {
        self.0.options.timeout
    }

    /// Runs one statement that commits itself. After a timeout or a broken connection its result is unknown, and the
    /// connection is thrown away.
    ///
    /// # Errors
    /// Whatever sqlx says; a timeout is an I/O error of kind `TimedOut`.
    pub async fn run(
        &self,
        lane: Lane,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let link = self.link();
        let result = link.run(lane, statement).await;
        if let Err(error) = &result
            && Class::of(error) == Class::Connection
        {
            self.lost(&link);
        }
        result
    }

    /// Connects once, outside the pools, whose own error would only say that they waited. Of several hosts, finds the one
    /// to speak to.
    ///
    /// # Errors
    /// Why nobody answers, or what each of several hosts is.
    pub async fn answers(&self) -> Result<(), sqlx::Error> {
        let hosts = &self.0.hosts;
        self.found(within(hosts.patience(ACQUIRE_MAX), hosts.connect()).await?).await;
        Ok(())
    }

    /// See [`Hosts::database`].
    pub fn name(&self) -> String {
        self.0.hosts.database()
    }

    /// Told whenever the primary is another host.
    pub fn primary(&self) -> watch::Receiver<Option<usize>> {
        self.0.primary.subscribe()
    }

    /// Sets the gauges of the connections to what is so now.
    pub fn observe(&self) {
        self.link().observe();
    }

    fn link(&self) -> Arc<Link> {
        Arc::clone(&self.0.link.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection broke: the primary may be another host by now. One search at a time.
    fn lost(&self, link: &Arc<Link>) {
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

    /// Looks for as long as it takes.
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

    /// A host that will do was found by connecting to it.
    async fn found(&self, (host, connection): (usize, PgConnection)) {
        self.move_to(host);
        // It has answered; that it also says goodbye is not needed.
        let _ = within(ACQUIRE_MAX, connection.close()).await;
    }

    /// From now on everything goes to this host.
    fn move_to(&self, host: usize) {
        if !self.0.hosts.chooses() {
            return;
        }
        let left = {
            let mut link = self.0.link.write().unwrap_or_else(PoisonError::into_inner);
            if link.host == host && !link.is_refused() {
                None
            } else {
                Some(std::mem::replace(&mut *link, Arc::new(Link::new(&self.0.options, &self.0.hosts, host))))
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

    /// Checks that the schema is the one that this release's statements are written for.
    ///
    /// # Errors
    /// [`Error::Schema`] with the command that helps; [`Error::Database`] where there is no answer.
    pub async fn check_schema(&self) -> Result<(), Error> {
        let needed = pgsaga_sql::SCHEMA_VERSION;
        let too_old = |found: String| Error::Schema { found, needed, advice: "run `pgsaga migrate`" };
        let rows = match self.run(Lane::Control, sqlx::query(query::SCHEMA_VERSION)).await {
            Ok(rows) => rows,
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("42P01" | "3F000")) => {
                return Err(too_old("absent".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let found: Option<i64> = match rows.first() {
            Some(row) => row.try_get(0)?,
            None => None,
        };
        match found {
            None => Err(too_old("absent".to_owned())),
            Some(version) if version < needed => Err(too_old(format!("at version {version}"))),
            Some(version) if version > needed => Err(Error::Schema {
                found: format!("at version {version}"),
                needed,
                advice: "upgrade this worker: a newer pgsaga has migrated the database",
            }),
            Some(_) => Ok(()),
        }
    }

    /// Closes all connections. One that waits for an answer is left to end with the process: there may never be any.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.link().close().await;
    }
}

/// The settings of one kind of connection.
fn prepare(options: PgConnectOptions, pooled: bool, timeout: Duration) -> PgConnectOptions {
    // Statements are files with names; their text in every log line would hide the events.
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
            // The session of a worker that vanished without a word ends within a minute, and with it the lock that makes
            // producers notify.
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
        ])
        .options(PLANNER)
}

/// Whether the link to this database is neither local nor verified: `sslmode` below `verify-full` lets somebody in between
/// read and change everything, and the default, `prefer`, even goes on without TLS.
fn is_unverified(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    let local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !local && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
}

/// Waits for an answer no longer than this.
///
/// # Errors
/// What the future says; after that time an I/O error of kind `TimedOut`.
pub async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(no_answer()))
}

/// A pool for the commands of a person: few connections, no special settings. Of several hosts, to the one that takes
/// writes.
///
/// # Errors
/// [`Error::Usage`] for a bad URL, [`Error::Database`] where nobody answers.
pub async fn connect(url: &str) -> Result<PgPool, Error> {
    let options = choose(url).await?;
    Ok(PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options)
        .await?)
}

/// How to connect to a database for a person. Of several hosts, to the one that takes writes just now.
///
/// # Errors
/// As [`connect`]; one host is not asked whether it answers.
pub async fn choose(url: &str) -> Result<PgConnectOptions, Error> {
    let hosts = Hosts::read(url, true, Duration::from_secs(30))?;
    Ok(hosts.choose().await?.clone())
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer from the database"))
}

/// What a database error means for whoever gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// No connection, or it broke: the result is unknown, try again.
    Connection,
    /// A conflict or a timeout inside the database: nothing was done, try again with jitter.
    Conflict,
    /// The values are at fault (SQLSTATE class 22, 23 or 54): trying again cannot help (RACES 9).
    Data,
    /// Anything else, such as a missing right.
    Other,
}

impl Class {
    /// All, for metrics that start at 0.
    pub const ALL: [Class; 4] = [Class::Connection, Class::Conflict, Class::Data, Class::Other];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Connection => "connection",
            Class::Conflict => "conflict",
            Class::Data => "data",
            Class::Other => "other",
        }
    }

    /// Classifies an error.
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
        // A missing history partition is class 23 too, but no value's fault: the partitions loop makes it.
        let no_partition = error.as_database_error().is_some_and(|error| error.constraint().is_none());
        match sqlstate(error).as_deref() {
            Some("23514") if no_partition => Class::Conflict,
            // 53200: out of memory; a smaller group needs less.
            Some("40001" | "40P01" | "55P03" | "57014" | "53200") => Class::Conflict,
            Some(code) if code.starts_with("08") || code.starts_with("57P") || code.starts_with("53") => {
                Class::Connection
            }
            // 25006: this server became a standby; 25P02 and 25P03: our session was ended under us.
            Some("25006" | "25P02" | "25P03") => Class::Connection,
            Some(code) if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => {
                Class::Data
            }
            _ => Class::Other,
        }
    }
}

/// The five-character SQLSTATE of a database error.
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
