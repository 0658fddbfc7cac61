//! Wake-ups by LISTEN, on a separate connection. An idle worker holds an advisory lock on this
//! connection. Producers send a NOTIFY only while the lock is held, because NOTIFY is expensive. A
//! wake-up is only a hint: the claim loop also polls.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use rand::RngExt as _;
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::db::Reconnect;
use crate::db::{Hosts, is_pooled, within};
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;

const CHANNEL: &str = "pgsaga";
/// Interval at which an idle worker retries a lock held by another idle worker or, briefly, by a
/// producer.
const LOCK_AGAIN: Duration = Duration::from_secs(3);
/// Delay of the other workers after the holder of the lock is woken. Without the delay, ten workers
/// would compete for the CPU with the worker that claims the task. Most inserts add a single saga.
const OTHERS_LATER: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(20);
/// Interval between keep-alive queries, or a third of the lease if that is shorter. A connection
/// without traffic does not detect a dead peer, and NAT devices drop silent connections.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// Time by which a keep-alive query may be late before the server ends the session.
const LISTEN_SLACK: Duration = Duration::from_secs(1);
/// A connection that lasted this long was a success. Reconnecting starts again with short pauses.
const LASTED: Duration = Duration::from_secs(10);

pub(crate) struct Listen {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) wakeups: Arc<Wakeups>,
    /// Whether this worker serves every queue.
    pub(crate) every_queue: bool,
    /// The named participants that this worker serves.
    pub(crate) named: HashSet<String>,
    pub(crate) lease: Duration,
    pub(crate) done: CancellationToken,
}

impl Listen {
    /// Listens until the worker has drained. Reconnects after errors.
    pub(crate) async fn run(self, hosts: Hosts) {
        let (mut reconnect, mut is_direct) = (Reconnect::new(), self.db.is_direct(&hosts));
        while !self.done.is_cancelled() {
            let started = Instant::now();
            let listened = tokio::select! {
                () = self.done.cancelled() => return,
                listened = self.listen(&hosts, &mut is_direct) => listened,
            };
            if listened.is_ok() && !is_direct {
                tracing::warn!(
                    "--direct-database-url leads through a pooler in transaction mode, where nobody can LISTEN: \
                     this worker polls. Name Postgres itself, and it is woken at once"
                );
                return self.done.cancelled().await;
            }
            if started.elapsed() > LASTED {
                reconnect.reset();
            }
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
    /// keep its connections open for a long time. Returns as well if the URL turns out not to be
    /// direct: behind a pooler, the locks of an idle worker would stay with sessions of others.
    async fn listen(&self, hosts: &Hosts, is_direct: &mut bool) -> Result<(), sqlx::Error> {
        let mut primary = self.db.primary();
        primary.mark_unchanged();
        let timeout = self.db.timeout();
        let options = hosts.choose().await?.clone();
        *is_direct = *is_direct || !is_pooled(&options).await?;
        if !*is_direct {
            return Ok(());
        }
        let alive_every = (self.lease / 3).min(ALIVE_EVERY);
        let mut listener =
            connect(options.application_name("pgsaga listen"), timeout, alive_every * 3 + LISTEN_SLACK)
                .await?;
        self.metrics.listener_up.set(1.0);
        self.wakeups.due.notify_one();
        let (mut idle, every_queue) = (self.wakeups.idle.subscribe(), self.every_queue);
        idle.mark_changed();
        let (mut locked, mut looks) = (false, false);
        let mut later: Option<Instant> = None;
        let mut alive_at = ticks(alive_every);
        loop {
            self.metrics.ticks.listen.increment(1);
            let wanted = *idle.borrow();
            let lacks = !locked || every_queue && !looks;
            tokio::select! {
                changed = idle.changed() => if changed.is_err() { return Ok(()) },
                _ = primary.changed() => return Ok(()),
                notification = listener.try_recv() => match notification? {
                    Some(told) => later = self.told(told.payload(), locked, later),
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

impl Listen {
    /// Wakes the claims after a notification, at once or later. A task of a named participant is
    /// for the workers that serve it.
    fn told(&self, participant: &str, locked: bool, later: Option<Instant>) -> Option<Instant> {
        if !participant.is_empty() && !self.named.contains(participant) {
            return later;
        }
        if locked || !participant.is_empty() {
            self.wakeups.due.notify_one();
            return later;
        }
        later.or_else(|| Some(Instant::now() + rand::rng().random_range(OTHERS_LATER)))
    }
}

/// Ticks at this interval, the first one after it.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A connection that listens, from a pool of its own. A dropped listener first closes its session.
/// Without an answer from the server, it would occupy the slot of a shared pool.
///
/// The server ends the session when it gets no statement for `silence_max`.
async fn connect(
    options: PgConnectOptions,
    timeout: Duration,
    silence_max: Duration,
) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    let silence_max = silence_max.as_millis().to_string();
    within(timeout, sqlx::query(query::LISTEN_LIMITS).bind(silence_max).fetch_one(&mut listener)).await?;
    within(timeout, listener.listen(CHANNEL)).await?;
    Ok(listener)
}
