//! Registration and heartbeats. Workers watch each other's counters, each on its own monotonic clock (RACES 11): no
//! decision compares two clocks, so a clock step, a failover or a long restart makes nobody look dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use pgsaga_sql::{SCHEMA_VERSION, query};
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::db::{Class, Lane};
use crate::liveness::identity::{Identity, Server};
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;

/// The longest pause between heartbeats. Two of them are the slack between the end of a lease and a rescue.
const BEAT_MAX: Duration = Duration::from_secs(2);

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

/// What a heartbeat found.
enum Found {
    /// All is well.
    Alive,
    /// This worker's row is gone, or declared dead.
    Dead,
    /// Another history of the database than the one that this worker's memory is of.
    OtherHistory,
}

/// Registers this worker under a new id. What it held under an old one is dropped.
///
/// # Errors
/// Whatever the database says.
pub async fn register(worker: &Worker) -> Result<(), sqlx::Error> {
    // Alone: whoever claims or settles just now does so under the old id.
    let _still = worker.gate.write().await;
    let server = history(worker, Lane::Control).await?;
    let sent = Instant::now();
    let lease_ms = i32::try_from(worker.limits.lease.as_millis()).unwrap_or(i32::MAX);
    let host = nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned());
    let statement = query::Register {
        lease_ms,
        host: &host,
        process_id: std::process::id() as i32,
        version: env!("CARGO_PKG_VERSION"),
    };
    let rows = worker.db.run(Lane::Control, statement.query()).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let (id, started): (i64, _) = (row.try_get("id")?, row.try_get("server")?);
    let server = server.filter(|server| server.started == started);
    worker.begin(id, server.unwrap_or(Server { started, history: None }), row.try_get("now")?);
    worker.lease.renew(sent);
    tracing::info!(worker = id, lease_ms, "registered");
    Ok(())
}

/// The line of history that a server continues; `None` where it does not tell.
async fn history(worker: &Worker, lane: Lane) -> Result<Option<Server>, sqlx::Error> {
    let rows = match worker.db.run(lane, sqlx::query(query::SERVER_HISTORY)).await {
        Ok(rows) => rows,
        // Nobody was asked yet, so nothing follows from it.
        Err(error) if matches!(Class::of(&error), Class::Connection | Class::Conflict) => return Err(error),
        Err(_) => return Ok(None),
    };
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Some(Server { started: row.try_get("server")?, history: row.try_get("history")? }))
}

/// Beats until everything is done; names the dead to the rescue loop.
pub async fn run(worker: Arc<Worker>, dead: mpsc::UnboundedSender<i64>) {
    let pause = (worker.limits.lease / 5).min(BEAT_MAX);
    let mut watched: HashMap<i64, Watched> = HashMap::new();
    let mut outage = None;
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        worker.metrics.tick(Loop::Heartbeat);
        tokio::select! {
            () = worker.done.cancelled() => return,
            _ = tick.tick() => {}
        }
        worker.pulse.beat();
        match beat(&worker, &mut watched, &dead).await {
            Ok(Found::Alive) => {
                if let Some(Outage { since, .. }) = outage.take() {
                    let outage_ms = since.elapsed().as_millis() as u64;
                    tracing::info!(outage_ms, "heartbeats are acknowledged again");
                }
            }
            Ok(Found::Dead) if worker.stop.is_cancelled() => worker.lease.end(),
            Ok(Found::Dead) => {
                worker.lease.end();
                tracing::warn!(
                    worker = worker.id(),
                    "this worker was declared dead; it drops what it held and registers anew"
                );
                register_anew(&worker).await;
            }
            Ok(Found::OtherHistory) => {
                worker.lease.end();
                tracing::warn!(
                    worker = worker.id(),
                    "the database is another server, or continues another history: this worker drops what it held and registers anew"
                );
                watched.clear();
                // What it held is rescued without waiting for a lease.
                let retire = sqlx::query(query::RETIRE).bind(worker.id());
                if let Err(error) = worker.db.run(Lane::Control, retire).await {
                    worker.database_failed("retire", &error);
                }
                register_anew(&worker).await;
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

async fn register_anew(worker: &Worker) {
    if let Err(error) = register(worker).await {
        worker.database_failed("register", &error);
    }
    worker.wake.notify_one();
}

async fn beat(
    worker: &Worker,
    watched: &mut HashMap<i64, Watched>,
    dead: &mpsc::UnboundedSender<i64>,
) -> Result<Found, sqlx::Error> {
    let Identity { id, server: known } = worker.identity();
    let sent = Instant::now();
    let statement =
        sqlx::query(query::HEARTBEAT).bind(id).bind(SCHEMA_VERSION).bind(worker.participants.denied());
    let rows = worker.db.run(Lane::Heartbeat, statement).await?;
    let Some(row) = rows.first() else { return Ok(Found::Dead) };
    if worker.schema.learn(row.try_get("newer")?, row.try_get("expanded")?) {
        worker.wake.notify_one();
    }
    if !row.try_get("alive")? {
        return Ok(Found::Dead);
    }
    let server: DateTime<Utc> = row.try_get("server")?;
    if known != Some(server) {
        // Not a word of it is believed before that is known.
        watched.clear();
        match history(worker, Lane::Heartbeat).await? {
            Some(next) if next.started == server && worker.known.goes_on_with(next.clone()) => {
                tracing::info!(worker = id, "Postgres was restarted; this worker goes on with what it holds");
                worker.marks.reset();
                worker.doubt.notify_one();
            }
            _ => return Ok(Found::OtherHistory),
        }
    }
    worker.known.see(row.try_get("now")?);
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
    Ok(Found::Alive)
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
