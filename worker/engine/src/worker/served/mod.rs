//! The worker of one database: its parts, and its life. It waits for Postgres, registers, runs the
//! loops, and drains.

mod drain;
mod loops;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::status::WorkerStatus;
use crate::db::{Class, Db, Hosts, PoolKind, Reconnect};
use crate::error::Error;
use crate::execute::finished::Finished;
use crate::execute::handler::HandlerExecutor;
use crate::execute::task::Task;
use crate::execute::{Executor, Executors};
use crate::flow::capacity::Capacity;
use crate::flow::participants::Participants;
use crate::flow::queues::{Queues, Served};
use crate::liveness::heartbeat::Heartbeat;
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use crate::upkeep::partitions;
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::Watermarks;
use loops::Loops;

/// The database, limits and times of one worker.
#[derive(Debug)]
pub(super) struct Options {
    /// The database that the worker serves.
    pub(super) database: crate::db::Options,
    /// The environment that the worker works for: it works in databases of that name only.
    pub(super) environment: Option<String>,
    /// The direct connection for LISTEN. Without one the worker polls.
    pub(super) listen_on: Option<Hosts>,
    /// Upper bound on the calls in flight.
    pub(super) calls_max: usize,
    /// A worker that was silent for this long is dead, and its tasks are rescued.
    pub(super) lease: Duration,
    /// How long calls in flight may take to end after the worker was told to stop.
    pub(super) grace: Duration,
    /// How long finished sagas are kept. `None`: for ever.
    pub(super) retention: Option<Duration>,
    /// The queues that the worker serves. Empty: every queue.
    pub(super) queues: Vec<Served>,
    /// Upper bound on the calls in flight of single participants, by their name.
    pub(super) participant_limits: HashMap<String, usize>,
}

/// How often a worker that may not work in the database asks whether it may now.
const HOME_PAUSE: Duration = Duration::from_secs(2);

/// The parts of a worker. Each loop is handed those that it uses.
pub(super) struct DatabaseWorker {
    pub(super) listen_on: Option<Hosts>,
    pub(super) retention: Option<Duration>,
    pub(super) finished: mpsc::UnboundedReceiver<Finished>,
    pub(super) transactional: mpsc::UnboundedReceiver<Finished>,
    pub(super) deferred: mpsc::UnboundedReceiver<Task>,
    pub(super) queues: Arc<Queues>,
    pub(super) watermarks: Arc<Watermarks>,
    pub(super) participants: Arc<Participants>,
    pub(super) capacity: Arc<Capacity>,
    pub(super) executor: Arc<Executor>,
    pub(super) wakeups: Arc<Wakeups>,
    pub(super) status: WorkerStatus,
}

impl DatabaseWorker {
    /// Makes a worker that has not registered yet. It works until `stop`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the database's URL cannot be read.
    pub(super) fn new(
        options: Options,
        executors: Executors,
        stop: CancellationToken,
    ) -> Result<DatabaseWorker, Error> {
        let metrics = Metrics::new(&options.database.series);
        metrics.call_slots.set(options.calls_max as f64);
        let db = Db::new(options.database)?;
        let (finished_sender, finished) = mpsc::unbounded_channel();
        let (transactional_sender, transactional) = mpsc::unbounded_channel();
        let (deferred_sender, deferred) = mpsc::unbounded_channel();
        let status = WorkerStatus {
            db: db.clone(),
            metrics: metrics.clone(),
            membership: Arc::new(Membership::new(options.lease, options.environment)),
            shutdown: Shutdown { stop, done: CancellationToken::new() },
            grace: options.grace,
        };
        let served: HashSet<String> = executors.named.task_names().collect();
        let in_process = executors.named.in_process().collect();
        let capacity = Arc::new(Capacity::new(options.calls_max, options.calls_max * 2));
        let wakeups = Arc::new(Wakeups::default());
        let handlers = HandlerExecutor::new(db.clone(), options.lease);
        let executor = Arc::new(Executor {
            db,
            metrics: metrics.clone(),
            membership: Arc::clone(&status.membership),
            capacity: Arc::clone(&capacity),
            wakeups: Arc::clone(&wakeups),
            shutdown: status.shutdown.clone(),
            executors,
            handlers,
            finished: finished_sender,
            transactional: transactional_sender,
            deferred: deferred_sender,
        });
        Ok(DatabaseWorker {
            listen_on: options.listen_on,
            retention: options.retention,
            finished,
            transactional,
            deferred,
            queues: Arc::new(Queues::new(&options.queues)),
            watermarks: Arc::default(),
            participants: Participants::new(
                options.calls_max,
                options.participant_limits,
                served,
                in_process,
                metrics,
            ),
            capacity,
            executor,
            wakeups,
            status,
        })
    }

    /// A handle that tells how the worker is.
    pub(super) fn status(&self) -> WorkerStatus {
        self.status.clone()
    }

    /// Works until the worker is told to stop, then drains: no new call starts, calls in flight
    /// may end within the grace, everything is settled, and what was not started is released.
    ///
    /// # Errors
    /// [`Error::Schema`] where the database was not migrated for this release,
    /// [`Error::LoopEnded`] where a loop ended by itself.
    pub(super) async fn run(self) -> Result<(), Error> {
        let status = self.status();
        let (capacity, wakeups) = (Arc::clone(&self.capacity), Arc::clone(&self.wakeups));
        let running = Arc::clone(&self.executor.handlers.running);
        let ended = self.work().await;
        if let Ok(Some(mut loops)) = ended {
            drain::drain(&status, &capacity, &wakeups, &running, &mut loops).await;
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
}

/// Waits for so long, or until the worker is stopped.
async fn rest(stop: &CancellationToken, duration: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
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
            db.refuse_pooler().await?;
            db.check_schema().await?;
            let is_at_home = heartbeat.is_at_home().await?;
            if is_at_home {
                match partitions::make(db).await {
                    // Without new partitions, most sagas can go on. The loop tries again.
                    Err(error) if Class::of(&error) != Class::Connection => partitions::failed(db, &error),
                    made => made?,
                }
            }
            Ok::<bool, Error>(is_at_home)
        };
        let fits = tokio::select! {
            () = stop.cancelled() => break,
            fits = fits => fits,
        };
        // A registration that is dropped half-way may leave a row that nobody signs off, and that
        // the other workers bury after the lease.
        let given_up = async {
            stop.cancelled().await;
            tokio::time::sleep(drain::SIGN_OFF_MAX).await;
        };
        let registered = match fits {
            Ok(true) => tokio::select! {
                registered = heartbeat.register(PoolKind::Control) => registered.map_err(Error::from),
                () = given_up => break,
            },
            waits => waits,
        };
        let error = match registered {
            Ok(true) => return Ok(true),
            Ok(false) => {
                reconnect.reset();
                rest(stop, HOME_PAUSE).await;
                continue;
            }
            Err(error) => error,
        };
        match error.database() {
            Some(source) if matches!(Class::of(source), Class::Connection | Class::Conflict) => {
                let again = reconnect.pause();
                db.count(source);
                tracing::warn!(%error, again_ms = again.as_millis() as u64, "waiting for Postgres");
                rest(stop, again).await;
            }
            _ => return Err(db.explain(error)),
        }
    }
    Ok(false)
}
