//! Registration and heartbeats. Each worker watches the counters of the others on its own monotonic
//! clock (docs/races.md, R11). No decision compares two clocks. A clock step, a failover or a long
//! restart therefore makes no worker look dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use pgsaga_sql::{SCHEMA_VERSION, query};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::db::Db;
use crate::db::{Class, PoolKind};
use crate::flow::participants::Participants;
use crate::liveness::handlers::RunningHandlers;
use crate::liveness::identity::{Identity, Server};
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::Watermarks;

/// Upper bound on the interval between heartbeats. Two intervals separate the end of a lease from a
/// rescue.
const BEAT_MAX: Duration = Duration::from_secs(2);

/// Another worker's counter, and the time of its last change.
struct Watched {
    beat: i64,
    since: Instant,
}

/// A period without acknowledged heartbeats, for the log.
struct Outage {
    since: Instant,
    lease_ended: bool,
}

enum Found {
    Alive,
    /// This worker's row is gone or declared dead.
    Dead,
    /// The database has another history than the worker's memory.
    OtherHistory,
}

/// The loop that registers this worker, beats, and watches the other workers.
pub(crate) struct Heartbeat {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) participants: Arc<Participants>,
    /// The queues that this worker serves; `None` for every queue.
    pub(crate) queues: Option<Vec<String>>,
    /// The named participants that this worker serves.
    pub(crate) named: Vec<String>,
    /// Those whose handlers get a transaction of the saga's database.
    pub(crate) transactional: Vec<String>,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) shutdown: Shutdown,
    /// The handlers of this process that run now.
    pub(crate) running: Arc<RunningHandlers>,
    /// The runtime of the worker's other loops.
    pub(crate) runtime: Handle,
}

impl Heartbeat {
    /// Whether this worker may work in the database.
    ///
    /// # Errors
    /// Any error of the database.
    pub(crate) async fn is_at_home(&self) -> Result<bool, sqlx::Error> {
        let home = &self.membership.home;
        let statement = sqlx::query(query::CHECK_HOME).bind(home.environment());
        let rows = self.db.run(PoolKind::Control, statement).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        home.learn(row.try_get("misfit")?);
        Ok(home.fits())
    }

    /// Registers this worker under a new id. Drops all tasks of a previous id. Returns false if
    /// this worker may not work in the database.
    ///
    /// # Errors
    /// Any error of the database.
    pub(crate) async fn register(&self, pool: PoolKind) -> Result<bool, sqlx::Error> {
        // Waits for claims and settles in progress, because they use the previous id.
        let _still = self.membership.gate.write().await;
        let server = self.history(pool).await?;
        let sent = Instant::now();
        let lease_ms = i32::try_from(self.membership.lease.duration().as_millis()).unwrap_or(i32::MAX);
        let host = nix::unistd::gethostname()
            .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned());
        let statement = query::Register {
            lease_ms,
            host: &host,
            process_id: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION"),
            environment: self.membership.home.environment(),
            queues: self.queues.as_deref(),
            participants: &self.named,
            transactional: &self.transactional,
        };
        let rows = self.db.run(pool, statement.query()).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        self.membership.home.learn(row.try_get("misfit")?);
        let (Some(id), started) = (row.try_get("id")?, row.try_get("server")?) else { return Ok(false) };
        let server = server.filter(|server| server.started == started);
        // Tasks of the old id belong to another worker, and rows may have numbers that were given
        // before. Nothing that uses either runs meanwhile, because the gate is taken.
        self.membership.in_flight.begin(id);
        self.watermarks.reset();
        let server = server.unwrap_or(Server { started, history: None });
        let now = row.try_get("now")?;
        self.membership.identity.begin(id, server, now);
        self.learn_time(now, sent);
        self.membership.lease.renew(sent);
        if let Some(why) = row.try_get::<Option<String>, _>("doubt")? {
            tracing::warn!(why, "the database does not say whether it is a copy");
        }
        tracing::info!(worker = id, lease_ms, "registered");
        Ok(true)
    }

    /// Returns the server's history; `None` if the server does not reveal it.
    async fn history(&self, pool: PoolKind) -> Result<Option<Server>, sqlx::Error> {
        let rows = match self.db.run(pool, sqlx::query(query::SERVER_HISTORY)).await {
            Ok(rows) => rows,
            // The server was not asked, so nothing is known about its history.
            Err(error) if matches!(Class::of(&error), Class::Connection | Class::Conflict) => {
                return Err(error);
            }
            Err(_) => return Ok(None),
        };
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Some(Server { started: row.try_get("server")?, history: row.try_get("history")? }))
    }

    /// Sends heartbeats until the worker has drained. Passes the ids of dead workers to the rescue
    /// loop.
    ///
    /// Runs in a runtime of its own, which no handler can hold up. Its statements use the pool of
    /// the heartbeats, whose connections belong to that runtime.
    pub(crate) async fn run(self, dead: mpsc::UnboundedSender<i64>) {
        let pause = (self.membership.lease.duration() / 5).min(BEAT_MAX);
        let mut watched: HashMap<i64, Watched> = HashMap::new();
        let (mut outage, mut waits) = (None, false);
        let mut tick = tokio::time::interval(pause);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.metrics.ticks.heartbeat.increment(1);
            tokio::select! {
                () = self.shutdown.done.cancelled() => return,
                _ = tick.tick() => {}
            }
            // control: watchdog-fed
            self.show_life();
            if waits {
                waits = self.register_anew().await;
                continue;
            }
            match self.beat(&mut watched, &dead).await {
                Ok(Found::Alive) => {
                    if let Some(Outage { since, .. }) = outage.take() {
                        let outage_ms = since.elapsed().as_millis() as u64;
                        tracing::info!(outage_ms, "heartbeats are acknowledged again");
                    }
                    waits = !self.membership.home.fits() && self.leave().await;
                }
                Ok(Found::Dead) if self.shutdown.stop.is_cancelled() => self.membership.lease.end(),
                Ok(Found::Dead) => {
                    self.membership.lease.end();
                    tracing::warn!(
                        worker = self.membership.id(),
                        "this worker was declared dead; it drops what it held and registers anew"
                    );
                    waits = self.register_anew().await;
                }
                Ok(Found::OtherHistory) => {
                    self.membership.lease.end();
                    tracing::warn!(
                        worker = self.membership.id(),
                        "the database is another server, or continues another history: this worker drops what it held and registers anew"
                    );
                    watched.clear();
                    // Its previous tasks can then be rescued before the lease expires.
                    let retire = sqlx::query(query::RETIRE).bind(self.membership.id());
                    if let Err(error) = self.db.run(PoolKind::Heartbeat, retire).await {
                        self.db.failed("retire", &error);
                    }
                    waits = self.register_anew().await;
                }
                Err(error) => {
                    self.db.failed("heartbeat", &error);
                    // Another worker's silence counts only while the connection is unbroken.
                    watched.clear();
                    self.is_out(outage.get_or_insert(Outage { since: Instant::now(), lease_ended: false }));
                }
            }
        }
    }

    /// Shows that this thread and the worker's runtime make progress.
    fn show_life(&self) {
        let membership = Arc::clone(&self.membership);
        self.runtime.spawn(async move { membership.watchdog.beat() });
        self.running.log_stalled();
    }

    /// Says once that an outage has lasted for a whole lease.
    fn is_out(&self, outage: &mut Outage) {
        if !outage.lease_ended && !self.membership.lease.holds() {
            outage.lease_ended = true;
            tracing::warn!(
                "no heartbeat was acknowledged for a whole lease: no call is started until one is"
            );
        }
    }

    /// Returns whether this worker may not work in the database, so that it must try again.
    async fn register_anew(&self) -> bool {
        let registered = self.register(PoolKind::Heartbeat).await;
        if let Err(error) = &registered {
            self.db.failed("register", error);
        }
        self.wakeups.due.notify_one();
        matches!(registered, Ok(false))
    }

    /// Leaves a database that this worker may no longer work in, once it holds nothing there. The
    /// duties that one worker has for all go to another one. Returns whether it has left.
    async fn leave(&self) -> bool {
        // No claim can come in between.
        let _still = self.membership.gate.write().await;
        if self.membership.in_flight.len() > 0 {
            return false;
        }
        for (doing, statement) in [("retire", query::RETIRE), ("bury", query::BURY)] {
            let statement = sqlx::query(statement).bind(self.membership.id());
            if let Err(error) = self.db.run(PoolKind::Heartbeat, statement).await {
                self.db.failed(doing, &error);
                return false;
            }
        }
        self.membership.lease.end();
        true
    }

    async fn beat(
        &self,
        watched: &mut HashMap<i64, Watched>,
        dead: &mpsc::UnboundedSender<i64>,
    ) -> Result<Found, sqlx::Error> {
        let Identity { id, server: known } = self.membership.identity();
        let sent = Instant::now();
        let statement = query::Heartbeat {
            worker_id: id,
            schema_version: SCHEMA_VERSION,
            denied: self.participants.denied(),
            environment: self.membership.home.environment(),
            progress: self.running.progress(id),
        };
        let rows = self.db.run(PoolKind::Heartbeat, statement.query()).await?;
        let Some(row) = rows.first() else { return Ok(Found::Dead) };
        let schema_fits = self.membership.schema.learn(row.try_get("newer")?, row.try_get("expanded")?);
        if self.membership.home.learn(row.try_get("misfit")?) || schema_fits {
            self.wakeups.due.notify_one();
        }
        if !row.try_get("alive")? {
            return Ok(Found::Dead);
        }
        let server: DateTime<Utc> = row.try_get("server")?;
        if known != Some(server) {
            // The row is not trusted before the server's history is known.
            watched.clear();
            if !self.goes_on_with(server).await? {
                return Ok(Found::OtherHistory);
            }
        }
        let now = row.try_get("now")?;
        self.membership.identity.see(now);
        self.learn_time(now, sent);
        self.membership.lease.renew(sent);
        self.metrics.heartbeats.increment(1);
        self.watch(id, &rows, watched, dead).await?;
        Ok(Found::Alive)
    }

    fn learn_time(&self, now: DateTime<Utc>, sent: Instant) {
        #[expect(clippy::disallowed_methods, reason = "the clock is compared with the database's")]
        let own = SystemTime::now();
        self.metrics.clock_skew_seconds.set(self.membership.clock.learn(now, sent.into_std(), own));
    }

    /// Whether a server that started at another time is the known server, restarted. If so, this
    /// worker keeps its memory.
    async fn goes_on_with(&self, started: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        let Some(next) = self.history(PoolKind::Heartbeat).await? else { return Ok(false) };
        if next.started != started || !self.membership.identity.goes_on_with(next) {
            return Ok(false);
        }
        let worker = self.membership.id();
        tracing::info!(worker, "Postgres was restarted; this worker goes on with what it holds");
        self.watermarks.reset();
        self.wakeups.reconcile.notify_one();
        Ok(true)
    }

    /// Compares the counters of the other workers with those of the last heartbeat, and names the
    /// dead.
    async fn watch(
        &self,
        id: i64,
        rows: &[PgRow],
        watched: &mut HashMap<i64, Watched>,
        dead: &mpsc::UnboundedSender<i64>,
    ) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        let mut seen = HashMap::with_capacity(rows.len());
        let mut first = true;
        for row in rows {
            let other: i64 = row.try_get("id")?;
            if other == id {
                continue;
            }
            if !self.membership.fits() {
                // Only a worker that knows the schema, in its own database, may rescue.
                continue;
            }
            if row.try_get("dead")? {
                // The worker that declared it dead may have died before it completed the rescue.
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
            if now.duration_since(since) > lease && self.declare_dead(other, beat).await? {
                let _ = dead.send(other);
            }
            seen.insert(other, Watched { beat, since });
        }
        *watched = seen;
        self.membership.set_duty_worker(first);
        Ok(())
    }

    async fn declare_dead(&self, other: i64, beat: i64) -> Result<bool, sqlx::Error> {
        // Uses the heartbeat's timeout, because the next heartbeat and this worker's lease wait for
        // the result.
        let rows =
            self.db.run(PoolKind::Heartbeat, sqlx::query(query::DECLARE_DEAD).bind(other).bind(beat)).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        self.metrics.dead_workers.increment(1);
        tracing::warn!(worker = other, beat, "a worker is silent for its whole lease: declared dead");
        Ok(true)
    }
}
