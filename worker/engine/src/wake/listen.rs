//! Wake-ups: LISTEN on a connection of its own. While this worker is idle it also holds an advisory lock there, which
//! tells producers that a NOTIFY is worth its price (DESIGN.md §6). A wake-up is a hint: the claim loop polls anyway.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use rand::RngExt as _;
use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::backoff::Reconnect;
use crate::db::{Hosts, within};
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;

const CHANNEL: &str = "pgsaga";
/// How often an idle worker tries again for a lock that another idle worker, or a producer for a moment, has.
const LOCK_AGAIN: Duration = Duration::from_secs(3);
/// How much later the others look when the worker that holds the lock is woken. All at once, ten would keep the one that gets
/// the task from its processor, and most inserts are but one saga.
const OTHERS_LATER: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(20);
/// How often the server is asked for a sign of life, or once a lease where that is shorter. A connection on which nothing is
/// sent never learns that its other end is gone, and NATs forget those that are silent.
const ALIVE_EVERY: Duration = Duration::from_secs(30);

/// Listens until everything is done; connects again by itself.
pub async fn run(worker: Arc<Worker>, hosts: Hosts) {
    let mut reconnect = Reconnect::new();
    while !worker.done.is_cancelled() {
        let listened = tokio::select! {
            () = worker.done.cancelled() => return,
            listened = listen(&worker, &hosts, &mut reconnect) => listened,
        };
        worker.metrics.listener_up.set(0.0);
        worker.set_another_looks(false);
        if let Err(error) = listened {
            worker.database_failed("listen", &error);
        }
        // What came in between is lost: look again.
        worker.wake.notify_one();
        tokio::select! {
            () = worker.done.cancelled() => return,
            () = tokio::time::sleep(reconnect.pause()) => {}
        }
    }
}

/// Returns when the connection is lost, or the primary is another host: a dead one may keep its connections open for long.
async fn listen(worker: &Worker, hosts: &Hosts, reconnect: &mut Reconnect) -> Result<(), sqlx::Error> {
    let mut primary = worker.db.primary();
    primary.mark_unchanged();
    // A pool for each try: a listener that is dropped says farewell first, and where nobody answers it keeps its place.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(hosts.choose().await?.clone().application_name("pgsaga listen"));
    let timeout = worker.db.timeout();
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    within(timeout, listener.listen(CHANNEL)).await?;
    reconnect.reset();
    worker.metrics.listener_up.set(1.0);
    worker.wake.notify_one();
    let mut idle = worker.idle.subscribe();
    idle.mark_changed();
    let every_queue = worker.queues.are_all();
    let (mut locked, mut looks) = (false, false);
    let mut later: Option<Instant> = None;
    let alive_every = worker.limits.lease.min(ALIVE_EVERY);
    let mut alive_at = interval_at(Instant::now() + alive_every, alive_every);
    alive_at.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        worker.metrics.tick(Loop::Listen);
        let wanted = *idle.borrow();
        let lacks = !locked || every_queue && !looks;
        tokio::select! {
            changed = idle.changed() => if changed.is_err() { return Ok(()) },
            _ = primary.changed() => return Ok(()),
            notification = listener.try_recv() => match notification? {
                Some(_) if locked => worker.wake.notify_one(),
                Some(_) => later = later.or_else(|| Some(Instant::now() + rand::rng().random_range(OTHERS_LATER))),
                None => return Ok(()),
            },
            () = sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() => {
                later = None;
                worker.look.notify_one();
            }
            () = tokio::time::sleep(LOCK_AGAIN), if wanted && lacks => {}
            _ = alive_at.tick() => {
                within(timeout, sqlx::query(query::ALIVE).fetch_one(&mut listener)).await?;
            }
        }
        let wanted = *idle.borrow_and_update();
        if wanted && lacks {
            let lock = sqlx::query(query::IDLE_LOCK).bind(every_queue);
            let row = within(timeout, lock.fetch_one(&mut listener)).await?;
            let (had_lock, looked) = (locked, looks);
            (locked, looks) = (row.try_get("locked")?, row.try_get("looks")?);
            if locked && !had_lock || looks && !looked {
                // An insert before this moment did not notify (RACES 19).
                worker.wake.notify_one();
            }
            worker.set_another_looks(every_queue && !looks);
        } else if !wanted && (locked || looks) {
            within(timeout, sqlx::query(query::IDLE_UNLOCK).fetch_one(&mut listener)).await?;
            (locked, looks) = (false, false);
        }
    }
}
