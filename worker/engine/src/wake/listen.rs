//! Wake-ups by LISTEN, on a separate connection. An idle worker holds an advisory lock on this
//! connection. Producers send a NOTIFY only while the lock is held, because NOTIFY is expensive. A
//! wake-up is only a hint: the claim loop also polls.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use rand::RngExt as _;
use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::db::Reconnect;
use crate::db::{Hosts, within};
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;

const CHANNEL: &str = "pgsaga";
/// Interval at which an idle worker retries a lock held by another idle worker or, briefly, by a
/// producer.
const LOCK_AGAIN: Duration = Duration::from_secs(3);
/// Delay of the other workers after the holder of the lock is woken. Without the delay, ten workers
/// would compete for the CPU with the worker that claims the task. Most inserts add a single saga.
const OTHERS_LATER: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(20);
/// Interval between keep-alive queries, or the lease if that is shorter. A connection without
/// traffic does not detect a dead peer, and NAT devices drop silent connections.
const ALIVE_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Listen {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) wakeups: Arc<Wakeups>,
    /// Whether this worker serves every queue.
    pub(crate) every_queue: bool,
    pub(crate) lease: Duration,
    pub(crate) done: CancellationToken,
}

impl Listen {
    /// Listens until the worker has drained. Reconnects after errors.
    pub(crate) async fn run(self, hosts: Hosts) {
        let mut reconnect = Reconnect::new();
        while !self.done.is_cancelled() {
            let listened = tokio::select! {
                () = self.done.cancelled() => return,
                listened = self.listen(&hosts, &mut reconnect) => listened,
            };
            self.metrics.listener_up.set(0.0);
            self.wakeups.set_polling_peer(false);
            if let Err(error) = listened {
                self.db.failed("listen", &error);
            }
            // Notifications during the disconnection are lost, so the worker claims now.
            self.wakeups.due.notify_one();
            tokio::select! {
                () = self.done.cancelled() => return,
                () = tokio::time::sleep(reconnect.pause()) => {}
            }
        }
    }

    /// Returns when the connection is lost or another host becomes the primary. A dead host may
    /// keep its connections open for a long time.
    async fn listen(&self, hosts: &Hosts, reconnect: &mut Reconnect) -> Result<(), sqlx::Error> {
        let mut primary = self.db.primary();
        primary.mark_unchanged();
        let timeout = self.db.timeout();
        let mut listener = connect(hosts, timeout).await?;
        reconnect.reset();
        self.metrics.listener_up.set(1.0);
        self.wakeups.due.notify_one();
        let mut idle = self.wakeups.idle.subscribe();
        idle.mark_changed();
        let every_queue = self.every_queue;
        let (mut locked, mut looks) = (false, false);
        let mut later: Option<Instant> = None;
        let alive_every = self.lease.min(ALIVE_EVERY);
        let mut alive_at = interval_at(Instant::now() + alive_every, alive_every);
        alive_at.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.metrics.ticks.listen.increment(1);
            let wanted = *idle.borrow();
            let lacks = !locked || every_queue && !looks;
            tokio::select! {
                changed = idle.changed() => if changed.is_err() { return Ok(()) },
                _ = primary.changed() => return Ok(()),
                notification = listener.try_recv() => match notification? {
                    Some(_) if locked => self.wakeups.due.notify_one(),
                    Some(_) => later = later.or_else(|| Some(Instant::now() + rand::rng().random_range(OTHERS_LATER))),
                    None => return Ok(()),
                },
                () = sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() => {
                    later = None;
                    self.wakeups.peek.notify_one();
                }
                () = tokio::time::sleep(LOCK_AGAIN), if wanted && lacks => {}
                _ = alive_at.tick() => {
                    within(timeout, sqlx::query(query::ALIVE).fetch_one(&mut listener)).await?;
                }
            }
            let wanted = *idle.borrow_and_update();
            // control: idle-lock
            if wanted && lacks {
                let lock = sqlx::query(query::IDLE_LOCK).bind(every_queue);
                let row = within(timeout, lock.fetch_one(&mut listener)).await?;
                let (had_lock, looked) = (locked, looks);
                (locked, looks) = (row.try_get("locked")?, row.try_get("looks")?);
                if locked && !had_lock || looks && !looked {
                    // A producer did not notify about an insert before the lock was held
                    // (docs/races.md, R19).
                    self.wakeups.due.notify_one();
                }
                self.wakeups.set_polling_peer(every_queue && !looks);
            } else if !wanted && (locked || looks) {
                within(timeout, sqlx::query(query::IDLE_UNLOCK).fetch_one(&mut listener)).await?;
                (locked, looks) = (false, false);
            }
        }
    }
}

/// A connection that listens, from a pool of its own. A dropped listener first closes its session.
/// Without an answer from the server, it would occupy the slot of a shared pool.
async fn connect(hosts: &Hosts, timeout: Duration) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(hosts.choose().await?.clone().application_name("pgsaga listen"));
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    within(timeout, listener.listen(CHANNEL)).await?;
    Ok(listener)
}
