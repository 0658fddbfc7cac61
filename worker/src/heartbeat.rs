//! Registration and heartbeats. Workers watch each other's counters, each on its own monotonic clock (RACES 11): no
//! decision compares two clocks, so a clock step, a failover or a long restart makes nobody look dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::{SCHEMA_VERSION, query};
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::db::Lane;
use crate::worker::Worker;

/// The longest pause between heartbeats. Two of them are the slack between the end of a lease and a rescue.
const BEAT_MAX: Duration = Duration::from_millis(750);

/// Another worker's counter as this one saw it.
struct Watched {
    beat: i64,
    since: Instant,
}

/// A time without acknowledged heartbeats, for the log.
struct Outage {
    since: Instant,
    lease_ended: bool,
}

/// Registers this worker under a new id.
///
/// # Errors
/// Whatever the database says.
pub async fn register(worker: &Worker) -> Result<(), sqlx::Error> {
    let sent = Instant::now();
    let lease_ms = i32::try_from(worker.limits.lease.as_millis()).unwrap_or(i32::MAX);
    let statement = sqlx::query(query::REGISTER)
        .bind(lease_ms)
        .bind(
            nix::unistd::gethostname()
                .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned()),
        )
        .bind(std::process::id() as i32)
        .bind(env!("CARGO_PKG_VERSION"));
    let rows = worker.db.run(Lane::Control, statement).await?;
    let id: i64 = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("id")?;
    worker.set_id(id);
    worker.lease.renew(sent);
    tracing::info!(worker = id, lease_ms, "registered");
    Ok(())
}

/// Beats until everything is done; names the dead to the rescue loop.
pub async fn run(worker: Arc<Worker>, dead: mpsc::UnboundedSender<i64>) {
    let pause = (worker.limits.lease / 5).min(BEAT_MAX);
    let mut watched: HashMap<i64, Watched> = HashMap::new();
    let mut outage = None;
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = worker.done.cancelled() => return,
            _ = tick.tick() => {}
        }
        match beat(&worker, &mut watched, &dead).await {
            Ok(true) => {
                if let Some(Outage { since, .. }) = outage.take() {
                    let outage_ms = since.elapsed().as_millis() as u64;
                    tracing::info!(outage_ms, "heartbeats are acknowledged again");
                }
            }
            Ok(false) if worker.stop.is_cancelled() => worker.lease.end(),
            Ok(false) => {
                worker.lease.end();
                tracing::warn!(
                    worker = worker.id(),
                    "this worker was declared dead; it drops what it held and registers anew"
                );
                if let Err(error) = register(&worker).await {
                    worker.database_failed("register", &error);
                }
                worker.wake.notify_one();
            }
            Err(error) => {
                worker.database_failed("heartbeat", &error);
                // Silence counts only on an unbroken connection.
                watched.clear();
                let outage = outage.get_or_insert(Outage { since: Instant::now(), lease_ended: false });
                if !outage.lease_ended && !worker.lease.holds() {
                    outage.lease_ended = true;
                    tracing::warn!(
                        "no heartbeat was acknowledged for a whole lease: no call is started until one is"
                    );
                }
            }
        }
    }
}

/// False when this worker's own row is gone or declared dead.
async fn beat(
    worker: &Worker,
    watched: &mut HashMap<i64, Watched>,
    dead: &mpsc::UnboundedSender<i64>,
) -> Result<bool, sqlx::Error> {
    let id = worker.id();
    let sent = Instant::now();
    let rows =
        worker.db.run(Lane::Heartbeat, sqlx::query(query::HEARTBEAT).bind(id).bind(SCHEMA_VERSION)).await?;
    let alive = match rows.first() {
        Some(row) => {
            if worker.schema.learn(row.try_get("newer")?, row.try_get("expanded")?) {
                worker.wake.notify_one();
            }
            row.try_get("alive")?
        }
        None => false,
    };
    if !alive {
        return Ok(false);
    }
    worker.lease.renew(sent);
    worker.metrics.heartbeats.increment(1);
    let now = Instant::now();
    let mut seen = HashMap::with_capacity(rows.len());
    let mut first = true;
    for row in &rows {
        let other: i64 = row.try_get("id")?;
        if other == id {
            continue;
        }
        if !worker.schema.fits() {
            // Whoever knows the schema rescues.
            continue;
        }
        if row.try_get("dead")? {
            // Declared dead by somebody who may have died before the rescue was over.
            let _ = dead.send(other);
            continue;
        }
        first &= id < other;
        let beat: i64 = row.try_get("beat")?;
        let since = match watched.get(&other) {
            Some(before) if before.beat == beat => before.since,
            _ => now,
        };
        let lease = Duration::from_millis(row.try_get::<i32, _>("lease_ms")?.try_into().unwrap_or(0));
        if now.duration_since(since) > lease && declare_dead(worker, other, beat).await? {
            let _ = dead.send(other);
        }
        seen.insert(other, Watched { beat, since });
    }
    *watched = seen;
    worker.set_first(first);
    Ok(true)
}

async fn declare_dead(worker: &Worker, other: i64, beat: i64) -> Result<bool, sqlx::Error> {
    // As short as a heartbeat: the next one waits for it, and with it this worker's own lease.
    let rows =
        worker.db.run(Lane::Heartbeat, sqlx::query(query::DECLARE_DEAD).bind(other).bind(beat)).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    worker.metrics.dead_workers.increment(1);
    tracing::warn!(worker = other, beat, "a worker is silent for its whole lease: declared dead");
    Ok(true)
}
