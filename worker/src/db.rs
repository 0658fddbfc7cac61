//! The worker's connections: how they are made, how long a statement may take, and what an error means.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::query::Query;
use sqlx::{Connection as _, Row as _};

use crate::error::Error;

/// What the planner of a worker's session is told. The hot statements are written for index loops; their plans are shown not
/// to need the statistics, and planning them anew each time costs more than it finds. A plan that is made while a table has a
/// few pages, and kept while it grows to millions of rows, must not scan it.
pub const PLANNER: [(&str, &str); 3] =
    [("plan_cache_mode", "force_generic_plan"), ("jit", "off"), ("enable_seqscan", "off")];

/// The longest wait for a connection: none of the pools is ever asked for more than it has.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// How long [`Db::close`] waits for connections that are still in use.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Three pools and how to speak through them: heartbeats wait behind nothing, and give up early on a connection that
/// stalls, since a lease hangs on them.
#[derive(Debug, Clone)]
pub struct Db {
    work: PgPool,
    control: PgPool,
    heartbeat: PgPool,
    heartbeat_timeout: Duration,
    connect: PgConnectOptions,
    pooled: bool,
    timeout: Duration,
    link: Link,
}

/// When a connection last broke or fell silent. Those made before it are suspects: on a link that died without a word each
/// would cost its statement the whole timeout, one after the other.
#[derive(Debug, Clone, Default)]
struct Link(Arc<Mutex<Option<Instant>>>);

impl Link {
    fn broke(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection of this age was made since.
    fn trusts(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|broke| age < broke.elapsed())
    }
}

/// What connections are made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database.
    pub url: String,
    /// `url` leads through a pooler in transaction mode: no settings, no prepared statements that outlive a transaction.
    pub pooled: bool,
    /// Connections for claims and settles.
    pub connections_max: u32,
    /// The longest that a statement may take.
    pub timeout: Duration,
    /// The longest that a heartbeat may take, before it is tried on another connection.
    pub heartbeat_timeout: Duration,
}

/// Which pool a statement uses.
#[derive(Debug, Clone, Copy)]
pub enum Lane {
    /// Claims and settles.
    Work,
    /// Rescues, reconciling, registration.
    Control,
    /// Heartbeats.
    Heartbeat,
}

impl Db {
    /// Makes the pools; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Usage`] where the URL cannot be read.
    pub fn new(options: &Options) -> Result<Db, Error> {
        let connect = connect_options(&options.url, options.pooled, options.timeout)?;
        let link = Link::default();
        let pool = |connections_max: u32, timeout: Duration| {
            let link = link.clone();
            PgPoolOptions::new()
                .max_connections(connections_max)
                .acquire_timeout(timeout.min(ACQUIRE_MAX))
                .idle_timeout(Duration::from_secs(600))
                .max_lifetime(Duration::from_secs(3600))
                .test_before_acquire(false)
                .before_acquire(move |_, meta| {
                    let trusted = link.trusts(meta.age);
                    Box::pin(async move { Ok(trusted) })
                })
                .connect_lazy_with(connect.clone())
        };
        Ok(Db {
            work: pool(options.connections_max, options.timeout),
            control: pool(2, options.timeout),
            heartbeat: pool(1, options.heartbeat_timeout),
            heartbeat_timeout: options.heartbeat_timeout,
            connect,
            pooled: options.pooled,
            timeout: options.timeout,
            link,
        })
    }

    /// The longest that a statement may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
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
        #[cfg(feature = "fail-points")]
        let (statement, text) = with_text(statement);
        #[cfg(feature = "fail-points")]
        pgsaga_sql::fail::before(text.as_str());
        let (pool, timeout) = match lane {
            Lane::Work => (&self.work, self.timeout),
            Lane::Control => (&self.control, self.timeout),
            Lane::Heartbeat => (&self.heartbeat, self.heartbeat_timeout),
        };
        let mut connection: PoolConnection<Postgres> = pool.acquire().await?;
        let pooled = self.pooled;
        let run = async {
            if !pooled {
                return statement.fetch_all(&mut *connection).await;
            }
            // sqlx sends Parse and Bind with a Sync between them. Outside a transaction the pooler may give each to
            // another server connection, where the unnamed statement is missing or somebody else's.
            let mut transaction = connection.begin().await?;
            let rows = statement.persistent(false).fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        let result = within(timeout, run).await;
        #[cfg(feature = "fail-points")]
        pgsaga_sql::fail::after(text.as_str());
        match &result {
            Err(error) if Class::of(error) == Class::Connection => {
                connection.close_on_drop();
                if !matches!(error, sqlx::Error::Database(_)) {
                    self.link.broke();
                }
            }
            // sqlx asks for a sign of life before it keeps a connection, and waits for it for ever: on a link that fell
            // silent meanwhile its place in the pool would be lost, and with the only one for heartbeats, the worker.
            _ => {
                tokio::spawn(tokio::time::timeout(timeout.min(ACQUIRE_MAX), connection.return_to_pool()));
            }
        }
        result
    }

    /// Connects once, outside the pools, whose own error would only say that they waited.
    ///
    /// # Errors
    /// Why nobody answers.
    pub async fn answers(&self) -> Result<(), sqlx::Error> {
        within(ACQUIRE_MAX, async { PgConnection::connect_with(&self.connect).await?.close().await }).await
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
        let close = async {
            self.work.close().await;
            self.control.close().await;
            self.heartbeat.close().await;
        };
        let _ = tokio::time::timeout(CLOSE_MAX, close).await;
    }
}

/// A statement gives its text only when it is taken apart.
#[cfg(feature = "fail-points")]
fn with_text(
    mut statement: Query<'_, Postgres, PgArguments>,
) -> (Query<'_, Postgres, PgArguments>, sqlx::SqlStr) {
    use sqlx::Execute as _;
    let arguments = statement.take_arguments().ok().flatten().unwrap_or_default();
    let text = statement.sql();
    (sqlx::query_with(text.clone(), arguments), text)
}

/// Options for one kind of connection.
///
/// # Errors
/// [`Error::Usage`] where the URL cannot be read. The URL itself, which may hold a password, is not in the message.
pub fn connect_options(url: &str, pooled: bool, timeout: Duration) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        Error::Usage(format!(
            "the database URL cannot be read: {error}; it looks like postgres://user:password@host:5432/name"
        ))
    })?;
    // Statements are files with names; their text in every log line would hide the events.
    let options = sqlx::ConnectOptions::disable_statement_logging(options.application_name("pgsaga"));
    if pooled {
        // PgBouncer refuses start-up parameters that it does not track.
        return Ok(options.extra_float_digits(None));
    }
    let timeout_ms = timeout.as_millis().to_string();
    Ok(options
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
        .options(PLANNER))
}

/// Whether the link to this database is neither local nor verified: `sslmode` below `verify-full` lets somebody in between
/// read and change everything, and the default, `prefer`, even goes on without TLS.
pub fn is_unverified(options: &PgConnectOptions) -> bool {
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

/// A pool for the commands of a person: few connections, no special settings.
///
/// # Errors
/// [`Error::Usage`] for a bad URL, [`Error::Database`] where nobody answers.
pub async fn connect(url: &str) -> Result<PgPool, Error> {
    let options = connect_options(url, true, Duration::from_secs(30))?;
    Ok(PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options)
        .await?)
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
        ] {
            let options = connect_options(url, false, Duration::from_secs(1)).unwrap();
            assert_eq!(is_unverified(&options), unverified, "{url}");
        }
    }
}
