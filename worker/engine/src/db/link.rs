use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, Postgres};
use tokio_util::sync::CancellationToken;

use super::{ACQUIRE_MAX, Class, Hosts, no_answer, within};
use crate::telemetry::metrics::Series;

/// How long [`Link::close`] waits for connections that are still in use.
const CLOSE_MAX: Duration = Duration::from_secs(2);

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
    /// Makes the pools' metrics.
    pub series: Series,
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

/// When a connection last broke or fell silent. Those made before it are suspects: on a link that died without a word each
/// would cost its statement the whole timeout, one after the other.
#[derive(Debug, Clone, Default)]
struct Broke(Arc<Mutex<Option<Instant>>>);

impl Broke {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection of this age was made since.
    fn trusts(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|broke| age < broke.elapsed())
    }
}

/// A pool, and one of its connections. sqlx asks for a sign of life whenever a connection is given back: one more round trip for
/// each statement, half of what an idle worker would say. So the last one is kept for the next statement, unless somebody
/// may be waiting for it.
#[derive(Debug)]
struct Connections {
    pool: PgPool,
    kept: Mutex<Option<Kept>>,
    /// Whoever uses it does one thing after the other: nobody ever waits.
    alone: bool,
    waited: Histogram,
    idle: Gauge,
    used: Gauge,
    /// After so long the pool gets it back, looks whether it still lives, and how old it is.
    kept_max: Duration,
}

/// A connection, and since when the pool has not seen it.
type Kept = (PoolConnection<Postgres>, Instant);

impl Connections {
    fn new(series: &Series, name: &str, pool: PgPool, alone: bool, kept_max: Duration) -> Connections {
        let state = |state| series.gauge("pgsaga_pool_connections", &[("pool", name), ("state", state)]);
        Connections {
            pool,
            kept: Mutex::default(),
            alone,
            waited: series.histogram("pgsaga_pool_wait_seconds", &[("pool", name)]),
            idle: state("idle"),
            used: state("used"),
            kept_max,
        }
    }

    /// Sets the gauges to what is so now.
    fn observe(&self) {
        let idle = self.pool.num_idle() + usize::from(self.kept().is_some());
        self.idle.set(idle as f64);
        self.used.set((self.pool.size() as usize).saturating_sub(idle) as f64);
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire(&self, broke: &Broke) -> Result<Kept, sqlx::Error> {
        let kept = self.kept().take();
        if let Some((mut connection, since)) = kept {
            if broke.trusts(since.elapsed()) {
                return Ok((connection, since));
            }
            connection.close_on_drop();
        }
        let asked = Instant::now();
        let connection = self.pool.acquire().await;
        self.waited.record(asked.elapsed().as_secs_f64());
        Ok((connection?, Instant::now()))
    }

    /// Keeps a connection, or gives it to the pool, which waits for its sign of life for ever: on a link that fell silent meanwhile
    /// its place would be lost, and with the only one for heartbeats, the worker.
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

/// Three pools to one host and how to speak through them: heartbeats wait behind nothing, and give up early on a
/// connection that stalls, since a lease hangs on them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) host: usize,
    work: Connections,
    control: Connections,
    heartbeat: Connections,
    pooled: bool,
    timeout: Duration,
    heartbeat_timeout: Duration,
    broke: Broke,
    /// Another host is spoken to now.
    left: CancellationToken,
    /// A new connection met a server that will not do, such as an old primary that came back as a standby.
    refused: Arc<AtomicBool>,
}

impl Link {
    pub(super) fn new(options: &Options, hosts: &Hosts, host: usize) -> Link {
        let refused = Arc::new(AtomicBool::new(false));
        let broke = Broke::default();
        let pool = |connections_max: u32, timeout: Duration| {
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
                let (hosts, refused) = (hosts.clone(), Arc::clone(&refused));
                // An error would have the pool connect again and again, and say so each time.
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
            pool.connect_lazy_with(hosts.options(host))
        };
        // A lease.
        let kept_max = options.heartbeat_timeout * 4;
        let named = |name, pool, alone| Connections::new(&options.series, name, pool, alone, kept_max);
        Link {
            host,
            work: named("work", pool(options.connections_max, options.timeout), false),
            control: named("control", pool(2, options.timeout), false),
            heartbeat: named("heartbeat", pool(1, options.heartbeat_timeout), true),
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
        lane: Lane,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        #[cfg(feature = "fail-points")]
        let (statement, text) = with_text(statement);
        #[cfg(feature = "fail-points")]
        pgsaga_sql::fail::before(text.as_str());
        let (connections, timeout) = match lane {
            Lane::Work => (&self.work, self.timeout),
            Lane::Control => (&self.control, self.timeout),
            Lane::Heartbeat => (&self.heartbeat, self.heartbeat_timeout),
        };
        let (mut connection, since) = connections.acquire(&self.broke).await?;
        if self.is_refused() {
            // What a standby says is of the past, and not even good for reading.
            connection.close_on_drop();
            return Err(no_answer());
        }
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
        let result = tokio::select! {
            biased;
            result = within(timeout, run) => result,
            () = self.left.cancelled() => Err(no_answer()),
        };
        #[cfg(feature = "fail-points")]
        pgsaga_sql::fail::after(text.as_str());
        match &result {
            Err(error) if Class::of(error) == Class::Connection => {
                connection.close_on_drop();
                if !matches!(error, sqlx::Error::Database(_)) {
                    self.broke.now();
                }
            }
            _ => connections.give_back((connection, since), timeout.min(ACQUIRE_MAX)),
        }
        result
    }

    /// Sets the pools' gauges to what is so now.
    pub(super) fn observe(&self) {
        for connections in [&self.work, &self.control, &self.heartbeat] {
            connections.observe();
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Another host is spoken to now: whatever still runs or waits here ends at once, its result unknown.
    pub(super) fn leave(&self) {
        self.left.cancel();
        for connections in [&self.work, &self.control, &self.heartbeat] {
            drop(connections.kept().take());
            // Marks it closed at once; the rest is courtesy to a server that may be gone.
            let pool = connections.pool.clone();
            tokio::spawn(async move { pool.close().await });
        }
    }

    pub(super) async fn close(&self) {
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
