use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, Postgres};
use tokio_util::sync::CancellationToken;

use super::sessions::Sessions;
use super::{ACQUIRE_MAX, Class, Hosts, no_answer, within};
use crate::telemetry::metrics::handle::MetricSet as _;
use crate::telemetry::metrics::{PoolMetrics, Series};

/// How long [`PoolSet::close`] waits for connections that are still in use.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Settings for the worker's connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// URL of the database.
    pub url: String,
    /// `url` leads to a pooler in transaction mode. Sessions then have no settings, and prepared
    /// statements do not outlive their transaction.
    pub pooled: bool,
    /// Upper bound on connections for claims and settles.
    pub connections_max: u32,
    /// Upper bound on connections for the transactions of handlers.
    pub handlers_max: u32,
    /// Upper bound on the duration of a statement.
    pub timeout: Duration,
    /// Upper bound on a heartbeat, which is then retried on another connection.
    pub heartbeat_timeout: Duration,
    /// Creates the metrics of the pools.
    pub series: Series,
}

/// Pool that a statement uses.
#[derive(Debug, Clone, Copy)]
pub enum PoolKind {
    /// For claims and settles.
    Work,
    /// For rescue, reconciling and registration.
    Control,
    /// For heartbeats, and for nothing else.
    Heartbeat,
}

/// Time at which a connection last broke or timed out. Older connections are not trusted. After a
/// link died silently, each of them would cost a statement the full timeout, one after another.
#[derive(Debug, Clone, Default)]
struct BrokenSince(Arc<Mutex<Option<Instant>>>);

impl BrokenSince {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection of this age was opened after the last break.
    fn trusts(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|broke| age < broke.elapsed())
    }
}

/// A pool, and one kept connection. sqlx tests a connection whenever it returns to the pool. The
/// test is an extra round trip for each statement, which would be half the traffic of an idle
/// worker. The last connection is therefore kept for the next statement, unless a caller may be
/// waiting for it.
#[derive(Debug)]
struct Connections {
    pool: PgPool,
    kept: Mutex<Option<Kept>>,
    /// This pool has a single sequential caller, so no caller ever waits.
    alone: bool,
    metrics: PoolMetrics,
    /// Upper bound on how long a connection is kept. The pool then tests it and checks its age.
    kept_max: Duration,
}

/// A connection, and the time at which the pool handed it out.
type Kept = (PoolConnection<Postgres>, Instant);

impl Connections {
    fn new(series: &Series, name: &str, pool: PgPool, alone: bool, kept_max: Duration) -> Connections {
        Connections {
            pool,
            kept: Mutex::default(),
            alone,
            metrics: PoolMetrics::of(series, &[("pool", name)]),
            kept_max,
        }
    }

    fn observe(&self) {
        let idle = self.pool.num_idle() + usize::from(self.kept().is_some());
        self.metrics.connections.idle.set(idle as f64);
        self.metrics.connections.used.set((self.pool.size() as usize).saturating_sub(idle) as f64);
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire(&self, broke: &BrokenSince) -> Result<Kept, sqlx::Error> {
        let kept = self.kept().take();
        if let Some((mut connection, since)) = kept {
            if broke.trusts(since.elapsed()) {
                return Ok((connection, since));
            }
            connection.close_on_drop();
        }
        let asked = Instant::now();
        let connection = self.pool.acquire().await;
        self.metrics.wait_seconds.record(asked.elapsed().as_secs_f64());
        Ok((connection?, Instant::now()))
    }

    /// Keeps a connection, or returns it to the pool within this time. sqlx's test of a returned
    /// connection has no timeout. On a link that died silently, the test would occupy the
    /// connection's slot for ever. The heartbeat pool has a single slot, so the worker would be
    /// lost.
    fn give_back(&self, (mut connection, since): Kept, within: Duration) {
        let spare = self.alone
            || self.pool.num_idle() > 0
            || self.pool.size() < self.pool.options().get_max_connections();
        let mut kept = self.kept();
        if spare && kept.is_none() && since.elapsed() < self.kept_max && !self.pool.is_closed() {
            *kept = Some((connection, since));
        } else {
            tokio::spawn(tokio::time::timeout(within, connection.return_to_pool()));
        }
    }

    async fn close(&self) {
        drop(self.kept().take());
        self.pool.close().await;
    }
}

/// Options of a pool that hands out no connection from before the last break, and says in `refused`
/// when it finds an unsuitable server.
fn pool_options(
    hosts: &Hosts,
    refused: &Arc<AtomicBool>,
    broke: &BrokenSince,
    connections_max: u32,
    timeout: Duration,
) -> PgPoolOptions {
    let broke = broke.clone();
    let mut pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(timeout.min(ACQUIRE_MAX))
        .idle_timeout(Duration::from_secs(600))
        .max_lifetime(Duration::from_secs(3600))
        .test_before_acquire(false)
        .before_acquire(move |_, meta| {
            let trusted = broke.trusts(meta.age);
            Box::pin(async move { Ok(trusted) })
        });
    if hosts.chooses() {
        let (hosts, refused) = (hosts.clone(), Arc::clone(refused));
        // An error here would make the pool reconnect in a loop, and log each failure.
        pool = pool.after_connect(move |connection, _| {
            let (hosts, refused) = (hosts.clone(), Arc::clone(&refused));
            Box::pin(async move {
                if !hosts.suits(connection).await {
                    refused.store(true, Ordering::Release);
                }
                Ok(())
            })
        });
    }
    pool
}

/// The pools to one host. Heartbeats have a pool of their own because the lease depends on
/// them: they never wait for other statements, and they give up early on a stalled connection.
#[derive(Debug)]
pub(super) struct PoolSet {
    pub(super) host: usize,
    work: Connections,
    control: Connections,
    heartbeat: Connections,
    handlers: Sessions,
    pooled: bool,
    timeout: Duration,
    heartbeat_timeout: Duration,
    broke: BrokenSince,
    /// Cancelled when the worker moves to another host.
    left: CancellationToken,
    /// A new connection found an unsuitable server, such as an old primary that returned as a
    /// standby.
    refused: Arc<AtomicBool>,
}

impl PoolSet {
    pub(super) fn new(options: &Options, hosts: &Hosts, host: usize) -> PoolSet {
        let refused = Arc::new(AtomicBool::new(false));
        let broke = BrokenSince::default();
        let pool_options =
            |connections_max, timeout| pool_options(hosts, &refused, &broke, connections_max, timeout);
        let pool = |connections_max: u32, timeout: Duration| {
            pool_options(connections_max, timeout).connect_lazy_with(hosts.options(host))
        };
        // As many again for sessions that are being closed.
        let handlers = pool_options((2 * options.handlers_max).max(1), options.timeout)
            .after_release(|_, _| Box::pin(async { Ok(false) }))
            .connect_lazy_with(hosts.handler_options(host));
        // The length of a lease.
        let kept_max = options.heartbeat_timeout * 4;
        let named = |name, pool, alone| Connections::new(&options.series, name, pool, alone, kept_max);
        PoolSet {
            host,
            work: named("work", pool(options.connections_max, options.timeout), false),
            control: named("control", pool(2, options.timeout), false),
            heartbeat: named("heartbeat", pool(1, options.heartbeat_timeout), true),
            handlers: Sessions::new(handlers, options.handlers_max),
            pooled: options.pooled,
            timeout: options.timeout,
            heartbeat_timeout: options.heartbeat_timeout,
            broke,
            left: CancellationToken::new(),
            refused,
        }
    }

    pub(super) async fn run(
        &self,
        pool: PoolKind,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        #[cfg(feature = "fail-points")]
        let (statement, text) = with_text(statement);
        #[cfg(feature = "fail-points")]
        pgsaga_sql::fail::before(text.as_str());
        let (connections, timeout) = match pool {
            PoolKind::Work => (&self.work, self.timeout),
            PoolKind::Control => (&self.control, self.timeout),
            PoolKind::Heartbeat => (&self.heartbeat, self.heartbeat_timeout),
        };
        let (mut connection, since) = connections.acquire(&self.broke).await?;
        if self.is_refused() {
            // A standby may be behind the primary, so even its reads are of no use.
            connection.close_on_drop();
            return Err(no_answer());
        }
        let pooled = self.pooled;
        let run = async {
            if !pooled {
                return statement.fetch_all(&mut *connection).await;
            }
            // sqlx sends a Sync between Parse and Bind. Outside a transaction, the pooler may send
            // Bind to another server connection. There the unnamed statement is missing or belongs
            // to another client.
            let mut transaction = connection.begin().await?;
            let rows = statement.persistent(false).fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        let result = self.unless_left(within(timeout, run)).await;
        #[cfg(feature = "fail-points")]
        pgsaga_sql::fail::after(text.as_str());
        match &result {
            Err(error) if Class::of(error) == Class::Connection => connection.close_on_drop(),
            _ => connections.give_back((connection, since), timeout.min(ACQUIRE_MAX)),
        }
        result
    }

    pub(super) fn observe(&self) {
        for connections in [&self.work, &self.control, &self.heartbeat] {
            connections.observe();
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Cancels all statements in progress, because the worker moved to another host. Their results
    /// are unknown.
    pub(super) fn leave(&self) {
        self.left.cancel();
        let pools = [&self.work, &self.control, &self.heartbeat].map(|connections| {
            drop(connections.kept().take());
            &connections.pool
        });
        for pool in pools.into_iter().chain([self.handlers.leave()]) {
            // Marks the pool closed at once. The rest is courtesy to a server that may be gone.
            let pool = pool.clone();
            tokio::spawn(async move { pool.close().await });
        }
    }

    /// The sessions of handlers' transactions.
    pub(super) fn handlers(&self) -> &Sessions {
        &self.handlers
    }

    /// Whether a connection of this age was opened after the last break.
    pub(super) fn trusts(&self, age: Duration) -> bool {
        self.broke.trusts(age)
    }

    /// Waits for an answer, or until the worker moves to another host.
    pub(super) async fn unless_left<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = self.left.cancelled() => Err(no_answer()),
        };
        if let Err(error) = &answer {
            self.noticed(error);
        }
        answer
    }

    /// After a connection has broken, older ones are not trusted.
    fn noticed(&self, error: &sqlx::Error) {
        let broke = !matches!(error, sqlx::Error::Database(_) | sqlx::Error::PoolTimedOut);
        if broke && Class::of(error) == Class::Connection {
            self.broke.now();
        }
    }

    pub(super) async fn close(&self) {
        let close = async {
            self.work.close().await;
            self.control.close().await;
            self.heartbeat.close().await;
            self.handlers.leave().close().await;
        };
        let _ = tokio::time::timeout(CLOSE_MAX, close).await;
    }
}

/// sqlx gives access to a statement's text only by taking the statement apart.
#[cfg(feature = "fail-points")]
fn with_text(
    mut statement: Query<'_, Postgres, PgArguments>,
) -> (Query<'_, Postgres, PgArguments>, sqlx::SqlStr) {
    use sqlx::Execute as _;
    let arguments = statement.take_arguments().ok().flatten().unwrap_or_default();
    let text = statement.sql();
    (sqlx::query_with(text.clone(), arguments), text)
}
