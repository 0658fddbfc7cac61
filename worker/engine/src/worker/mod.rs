//! A worker: its parts, and its life. It waits for Postgres, registers, runs the loops, and drains.

mod drain;
mod loops;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::db::{Class, Db, Hosts, Reconnect};
use crate::error::Error;
use crate::execute::finished::Finished;
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
pub use status::{WorkerStatus, not_ready};

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

impl Worker {
    /// Makes a worker that has not registered yet. It works until `stop`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the database's URL cannot be read.
    pub fn new(options: Options, executors: Executors, stop: CancellationToken) -> Result<Worker, Error> {
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
            executors,
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
            drain::drain(&status, &capacity, &wakeups, &mut loops).await;
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
            tokio::time::sleep(drain::SIGN_OFF_MAX).await;
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
