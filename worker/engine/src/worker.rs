//! A worker: its parts, and its life. It waits for Postgres, registers, runs the loops, and drains.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::{fail, query};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::claim::Claimer;
use crate::claim::defer::Defer;
use crate::db::{Class, Db, Hosts, PoolKind, Reconnect};
use crate::error::Error;
use crate::execute::Executor;
use crate::execute::finished::Finished;
use crate::execute::http::HttpExecutor;
use crate::execute::task::Task;
use crate::execute::task::definitions::Definitions;
use crate::flow::capacity::Capacity;
use crate::flow::participants::Participants;
use crate::flow::queues::{Queues, Served};
use crate::liveness::heartbeat::Heartbeat;
use crate::liveness::membership::Membership;
use crate::liveness::reconcile::Reconcile;
use crate::liveness::release::{Release, release};
use crate::liveness::rescue::Rescue;
use crate::liveness::shutdown::Shutdown;
use crate::liveness::unreadable::UnreadableRows;
use crate::settle::Settler;
use crate::telemetry::metrics::Metrics;
use crate::upkeep::partitions::{self, Partitions};
use crate::upkeep::retention::Retention;
use crate::upkeep::sample::Sample;
use crate::wake::listen::Listen;
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::Watermarks;

/// Upper bound on the time for the loops to end after the drain.
const LOOPS_END_MAX: Duration = Duration::from_secs(3);
/// How long the sign-off may take. Where Postgres does not answer, other workers rescue what was
/// held after the lease.
const SIGN_OFF_MAX: Duration = Duration::from_secs(5);
/// Upper bound on the tasks that one statement of the sign-off releases.
const RELEASE_BATCH: usize = 1000;

/// How a worker works.
#[derive(Debug)]
pub struct Options {
    /// The database that the worker serves.
    pub database: crate::db::Options,
    /// The direct connection for LISTEN. Without one the worker polls.
    pub listen_on: Option<Hosts>,
    /// Upper bound on the calls in flight.
    pub calls_max: usize,
    /// A worker that was silent for this long is dead, and its tasks are rescued.
    pub lease: Duration,
    /// How long calls in flight may take to end after the worker was told to stop.
    pub grace: Duration,
    /// How long finished sagas are kept. `None`: for ever.
    pub retention: Option<Duration>,
    /// The queues that the worker serves. Empty: every queue.
    pub queues: Vec<Served>,
    /// Upper bound on the calls in flight of single participants, by their name.
    pub participant_limits: HashMap<String, usize>,
}

/// The parts of a worker. Each loop is handed those that it uses.
pub struct Worker {
    listen_on: Option<Hosts>,
    retention: Option<Duration>,
    finished: mpsc::UnboundedReceiver<Finished>,
    deferred: mpsc::UnboundedReceiver<Task>,
    queues: Arc<Queues>,
    watermarks: Arc<Watermarks>,
    participants: Arc<Participants>,
    capacity: Arc<Capacity>,
    executor: Arc<Executor>,
    wakeups: Arc<Wakeups>,
    status: WorkerStatus,
}

/// What the process can tell of a running worker.
#[derive(Clone)]
pub struct WorkerStatus {
    db: Db,
    metrics: Metrics,
    membership: Arc<Membership>,
    shutdown: Shutdown,
    grace: Duration,
}

impl WorkerStatus {
    /// The database that the worker serves, without user and password.
    pub fn database(&self) -> String {
        self.db.name()
    }

    /// Why the worker is not ready. `None` when it is: registered, with a running lease, next to a
    /// schema that it knows, and not told to stop.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.shutdown.stop.is_cancelled() {
            Some("stopping")
        } else if self.membership.id() == 0 {
            Some("waiting for Postgres")
        } else if !self.membership.lease.holds() {
            Some("no heartbeat was acknowledged for a whole lease")
        } else if !self.membership.schema.fits() {
            Some("a newer pgsaga has migrated the database: upgrade this worker")
        } else {
            None
        }
    }

    /// How long ago the heartbeat loop last came around. `None` before it began, and after the
    /// drain has ended it.
    pub fn silence(&self) -> Option<Duration> {
        // control: watchdog-drained
        if self.shutdown.done.is_cancelled() { None } else { self.membership.watchdog.silence() }
    }

    /// Upper bound on the duration of a statement.
    pub fn statement_timeout(&self) -> Duration {
        self.db.timeout()
    }

    /// See [`Options::lease`].
    pub fn lease(&self) -> Duration {
        self.membership.lease.duration()
    }

    /// See [`Options::grace`].
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Sets the gauges that are read at a scrape only.
    pub fn observe(&self) {
        self.db.observe();
        self.metrics.ready.set(f64::from(u8::from(self.not_ready().is_none())));
    }
}

/// Why the workers of one process are not ready. Empty when all are. With several databases each
/// reason names its own.
pub fn not_ready(workers: &[WorkerStatus]) -> Vec<String> {
    let reason = |worker: &WorkerStatus| {
        let why = worker.not_ready()?;
        Some(if workers.len() > 1 { format!("{}: {why}", worker.database()) } else { why.to_owned() })
    };
    workers.iter().filter_map(reason).collect()
}

impl Worker {
    /// Makes a worker that has not registered yet. It works until `stop`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the database's URL cannot be read.
    pub fn new(options: Options, http: HttpExecutor, stop: CancellationToken) -> Result<Worker, Error> {
        let metrics = Metrics::new(&options.database.series);
        metrics.call_slots.set(options.calls_max as f64);
        let db = Db::new(options.database)?;
        let (finished_sender, finished) = mpsc::unbounded_channel();
        let (deferred_sender, deferred) = mpsc::unbounded_channel();
        let status = WorkerStatus {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::new(Membership::new(options.lease)),
            shutdown: Shutdown { stop, done: CancellationToken::new() },
            grace: options.grace,
        };
        let capacity = Arc::new(Capacity::new(options.calls_max, options.calls_max * 2));
        let wakeups = Arc::new(Wakeups::default());
        let executor = Arc::new(Executor {
            db,
            metrics: metrics.clone(),
            membership: Arc::clone(&status.membership),
            capacity: Arc::clone(&capacity),
            wakeups: Arc::clone(&wakeups),
            shutdown: status.shutdown.clone(),
            http,
            finished: finished_sender,
            deferred: deferred_sender,
        });
        Ok(Worker {
            listen_on: options.listen_on,
            retention: options.retention,
            finished,
            deferred,
            queues: Arc::new(Queues::new(&options.queues)),
            watermarks: Arc::default(),
            participants: Participants::new(options.calls_max, options.participant_limits, metrics),
            capacity,
            executor,
            wakeups,
            status,
        })
    }

    /// A handle that tells how the worker is.
    pub fn status(&self) -> WorkerStatus {
        self.status.clone()
    }

    /// Works until the worker is told to stop, then drains: no new call starts, calls in flight
    /// may end within the grace, everything is settled, and what was not started is released.
    ///
    /// # Errors
    /// [`Error::Schema`] where the database was not migrated for this release,
    /// [`Error::LoopEnded`] where a loop ended by itself.
    pub async fn run(self) -> Result<(), Error> {
        let status = self.status();
        let (capacity, wakeups) = (Arc::clone(&self.capacity), Arc::clone(&self.wakeups));
        let ended = self.work().await;
        if let Ok(Some(mut loops)) = ended {
            drain(&status, &capacity, &wakeups, &mut loops).await;
            status.db.close().await;
            return Ok(());
        }
        status.db.close().await;
        ended.map(drop)
    }

    /// Runs the loops until the worker is told to stop. `None` when it was told before it had
    /// registered.
    async fn work(self) -> Result<Option<Loops>, Error> {
        let heartbeat = self.heartbeat();
        if !register(&self.status, &heartbeat).await? {
            return Ok(None);
        }
        let shutdown = self.status.shutdown.clone();
        let mut loops = self.start(heartbeat);
        let ended = tokio::select! {
            () = shutdown.stop.cancelled() => None,
            ended = loops.first_ended() => Some(ended),
        };
        if let Some(name) = ended.filter(|_| !shutdown.stop.is_cancelled()) {
            shutdown.done.cancel();
            return Err(Error::LoopEnded(name));
        }
        Ok(Some(loops))
    }

    fn heartbeat(&self) -> Heartbeat {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Heartbeat {
            db,
            metrics,
            membership,
            participants: Arc::clone(&self.participants),
            watermarks: Arc::clone(&self.watermarks),
            wakeups: Arc::clone(&self.wakeups),
            shutdown,
        }
    }

    fn start(self, heartbeat: Heartbeat) -> Loops {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status;
        let Worker { queues, watermarks, participants, capacity, executor, wakeups, .. } = self;
        let done = shutdown.done.clone();
        let unreadable = UnreadableRows {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::clone(&membership),
            wakeups: Arc::clone(&wakeups),
        };
        let rescue = Rescue {
            db: db.clone(),
            metrics: metrics.clone(),
            wakeups: Arc::clone(&wakeups),
            done: done.clone(),
        };
        let reconcile = Reconcile {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::clone(&membership),
            watermarks: Arc::clone(&watermarks),
            wakeups: Arc::clone(&wakeups),
            unreadable: unreadable.clone(),
            shutdown: shutdown.clone(),
        };
        let settler = Settler {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::clone(&membership),
            capacity: Arc::clone(&capacity),
            participants: Arc::clone(&participants),
            wakeups: Arc::clone(&wakeups),
            shutdown: shutdown.clone(),
            executor: Arc::clone(&executor),
        };
        let defer = Defer {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::clone(&membership),
            participants: Arc::clone(&participants),
            watermarks: Arc::clone(&watermarks),
            wakeups: Arc::clone(&wakeups),
            done: done.clone(),
        };
        let sample = Sample {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::clone(&membership),
            shutdown: shutdown.clone(),
        };
        let partitions = Partitions {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::clone(&membership),
            done: done.clone(),
        };
        let listen = Listen {
            db: db.clone(),
            metrics: metrics.clone(),
            wakeups: Arc::clone(&wakeups),
            every_queue: queues.are_all(),
            lease: membership.lease.duration(),
            done,
        };
        let mut loops = Loops::default();
        if let Some(age) = self.retention {
            let retention = Retention {
                db: db.clone(),
                metrics: metrics.clone(),
                membership: Arc::clone(&membership),
                wakeups: Arc::clone(&wakeups),
                stop: shutdown.stop.clone(),
                age,
            };
            loops.spawn("retention", retention.run());
        }
        let claimer = Claimer {
            db,
            metrics,
            membership,
            capacity,
            participants,
            queues,
            definitions: Definitions::default(),
            watermarks,
            wakeups,
            shutdown,
            executor,
            unreadable,
        };
        let (dead, dying) = mpsc::unbounded_channel();
        loops.spawn("heartbeat", heartbeat.run(dead.clone()));
        loops.spawn("rescue", rescue.run(dying));
        loops.spawn("reconcile", reconcile.run(dead));
        loops.spawn("settle", settler.run(self.finished));
        loops.spawn("defer", defer.run(self.deferred));
        loops.spawn("sample", sample.run());
        loops.spawn("partitions", partitions.run());
        match self.listen_on {
            Some(hosts) => loops.spawn("listen", listen.run(hosts)),
            None => tracing::info!("no direct connection for LISTEN: this worker polls"),
        }
        loops.spawn("claim", claimer.run());
        loops
    }
}

/// Waits until Postgres is ready and the worker is registered. Returns false if the worker was
/// stopped meanwhile.
async fn register(status: &WorkerStatus, heartbeat: &Heartbeat) -> Result<bool, Error> {
    let (db, stop) = (&status.db, &status.shutdown.stop);
    let mut reconnect = Reconnect::new();
    while !stop.is_cancelled() {
        let fits = async {
            db.answers().await?;
            db.check_schema().await?;
            partitions::make(db).await.map_err(Error::from)
        };
        let fits = tokio::select! {
            () = stop.cancelled() => break,
            fits = fits => fits,
        };
        // A registration that is dropped half-way may leave a row that nobody signs off, and that
        // the other workers bury after the lease.
        let given_up = async {
            stop.cancelled().await;
            tokio::time::sleep(SIGN_OFF_MAX).await;
        };
        let registered = match fits {
            Ok(()) => tokio::select! {
                registered = heartbeat.register() => registered.map_err(Error::from),
                () = given_up => break,
            },
            Err(error) => Err(error),
        };
        match registered {
            Ok(()) => return Ok(true),
            Err(Error::Database(error))
                if matches!(Class::of(&error), Class::Connection | Class::Conflict) =>
            {
                let again = reconnect.pause();
                db.count(&error);
                tracing::warn!(%error, again_ms = again.as_millis() as u64, "waiting for Postgres");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(again) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

async fn drain(status: &WorkerStatus, capacity: &Capacity, wakeups: &Wakeups, loops: &mut Loops) {
    let started = Instant::now();
    fail::point("drain:before");
    let held = status.membership.in_flight.len();
    tracing::info!(held, grace_ms = status.grace.as_millis() as u64, "draining");
    // Every slot is free again when every task is settled, or dropped unstarted.
    let all = capacity.task_slots.acquire_many(capacity.tasks_max as u32);
    let within_grace = tokio::time::timeout(status.grace, all).await.is_ok();
    fail::point("drain:calls_ended");
    status.shutdown.done.cancel();
    // A loop may be in the middle of a statement. The statement's own timeout bounds it, and
    // nothing below depends on its end.
    let _ = tokio::time::timeout(LOOPS_END_MAX, loops.join()).await;
    let signed_off = sign_off(status, wakeups, within_grace, started);
    if tokio::time::timeout(SIGN_OFF_MAX, signed_off).await.is_err() {
        tracing::warn!(
            held = status.membership.in_flight.len(),
            "the database did not answer at sign-off: other workers rescue the held tasks after the lease"
        );
    }
    fail::point("drain:after");
}

/// Releases what was not started. Calls that outlasted the grace are left to be rescued, which
/// records them as unknown. The worker's row says that the worker is dead, so that nobody waits
/// for a lease.
async fn sign_off(status: &WorkerStatus, wakeups: &Wakeups, within_grace: bool, started: Instant) {
    let (db, membership) = (&status.db, &status.membership);
    let (unstarted, cut_off): (Vec<_>, Vec<_>) =
        membership.in_flight.all().into_iter().partition(|(_, entry)| !entry.started);
    let unstarted: Vec<Release> = unstarted
        .into_iter()
        .map(|(task, entry)| Release { task, epoch: entry.epoch, delay: Duration::ZERO, participant: None })
        .collect();
    let mut released = 0;
    for batch in unstarted.chunks(RELEASE_BATCH) {
        released += release(db, membership, wakeups, membership.id(), batch).await;
    }
    for (doing, statement) in [("retire", query::RETIRE), ("bury", query::BURY)] {
        if let Err(error) = db.run(PoolKind::Control, sqlx::query(statement).bind(membership.id())).await {
            db.failed(doing, &error);
            break;
        }
    }
    tracing::info!(
        released,
        cut_off = cut_off.len(),
        within_grace,
        took_ms = started.elapsed().as_millis() as u64,
        "drained"
    );
}

/// The running loops, which return their names.
#[derive(Default)]
struct Loops(JoinSet<&'static str>);

impl Loops {
    fn spawn(&mut self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let loop_to_its_end = async move {
            run.await;
            name
        };
        // The span names the database that the worker serves.
        self.0.spawn(loop_to_its_end.instrument(Span::current()));
    }

    async fn first_ended(&mut self) -> String {
        match self.0.join_next().await {
            Some(Ok(name)) => name.to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "every".to_owned(),
        }
    }

    async fn join(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}
