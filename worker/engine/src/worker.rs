//! What the loops of one worker share. No loop owns another: each takes this and runs until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, RwLock, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::db::{Class, Db};
use crate::execute::http::Caller;
use crate::flow::participants::Participants;
use crate::flow::queues::Queues;
use crate::liveness::identity::{Identity, Known, Server};
use crate::liveness::in_flight::Held;
use crate::liveness::lease::Lease;
use crate::liveness::schema::Schema;
use crate::liveness::watchdog::Pulse;
use crate::settle::Finished;
use crate::task::definitions::Definitions;
use crate::task::{Load, Task};
use crate::telemetry::metrics::Metrics;
use crate::wake::watermark::Marks;

/// How much one worker does at once, and how long it may.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls running at once.
    pub calls_max: usize,
    /// Tasks held at once: those calls, a small prefetch, and what waits to be settled.
    pub held_max: usize,
    /// The lease.
    pub lease: Duration,
    /// How long running calls may take to end after the first signal.
    pub grace: Duration,
    /// How long finished sagas are kept; `None`: for ever.
    pub retention: Option<Duration>,
}

/// The parts of a running worker.
pub struct Worker {
    /// Its connections.
    pub db: Db,
    /// Its HTTP client.
    pub caller: Caller,
    /// Its numbers.
    pub metrics: Metrics,
    /// Its limits.
    pub limits: Limits,
    /// What it holds.
    pub held: Held,
    /// How long it may believe so.
    pub lease: Lease,
    /// When its heartbeat loop last came around.
    pub pulse: Pulse,
    /// Whether the database's schema is one that it may work on.
    pub schema: Schema,
    /// How many bytes of definitions that is.
    pub load: Load,
    /// Definitions that several of its tasks share.
    pub definitions: Definitions,
    /// Where the claims of each lane start.
    pub marks: Marks,
    /// Whom it calls.
    pub participants: Arc<Participants>,
    /// The queues that it serves.
    pub queues: Queues,
    /// A place for each task that it may hold.
    pub places: Arc<Semaphore>,
    /// A turn for each call that may run. A suspect takes all of them.
    pub turns: Arc<Semaphore>,
    /// Claims and settles share it; reconciling takes it alone, when memory and database must not move.
    pub gate: RwLock<()>,
    /// Something may be due.
    pub wake: Notify,
    /// The same, but another idle worker is at it: look before claiming.
    pub look: Notify,
    /// Something the database holds for us may be unknown to us.
    pub doubt: Notify,
    /// True while there is nothing to do: producers are asked to notify.
    pub idle: watch::Sender<bool>,
    /// Finished calls on their way to a settle.
    pub finished: mpsc::UnboundedSender<Finished>,
    /// Tasks whose participant cannot take them now, on their way back to the queue.
    pub unfit: mpsc::UnboundedSender<Task>,
    /// Claim nothing more.
    pub stop: CancellationToken,
    /// Everything that could be settled is: all loops end.
    pub done: CancellationToken,
    /// Who it is.
    pub known: Known,
    first: AtomicBool,
    another_looks: AtomicBool,
}

/// Why the workers of one process are not ready: none where all are. With several databases each reason names its own.
pub fn not_ready(workers: &[Arc<Worker>]) -> Vec<String> {
    let reason = |worker: &Arc<Worker>| {
        let why = worker.is_ready().err()?;
        Some(if workers.len() > 1 { format!("{}: {why}", worker.db.name()) } else { why.to_owned() })
    };
    workers.iter().filter_map(reason).collect()
}

/// The other ends of a worker's channels.
#[derive(Debug)]
pub struct Receivers {
    /// Finished calls.
    pub finished: mpsc::UnboundedReceiver<Finished>,
    /// Tasks whose participant cannot take them now.
    pub unfit: mpsc::UnboundedReceiver<Task>,
}

impl Worker {
    /// A worker that has not registered yet.
    pub fn new(
        db: Db,
        caller: Caller,
        metrics: Metrics,
        limits: Limits,
        served: (Arc<Participants>, Queues),
        stop: CancellationToken,
    ) -> (Arc<Worker>, Receivers) {
        let (finished, settling) = mpsc::unbounded_channel();
        let (unfit, parking) = mpsc::unbounded_channel();
        let (participants, queues) = served;
        let worker = Worker {
            db,
            caller,
            metrics,
            held: Held::default(),
            lease: Lease::new(limits.lease),
            pulse: Pulse::default(),
            schema: Schema::default(),
            load: Load::default(),
            definitions: Definitions::default(),
            marks: Marks::default(),
            participants,
            queues,
            places: Arc::new(Semaphore::new(limits.held_max)),
            turns: Arc::new(Semaphore::new(limits.calls_max)),
            gate: RwLock::new(()),
            wake: Notify::new(),
            look: Notify::new(),
            doubt: Notify::new(),
            idle: watch::Sender::new(false),
            finished,
            unfit,
            stop,
            done: CancellationToken::new(),
            known: Known::default(),
            first: AtomicBool::new(false),
            another_looks: AtomicBool::new(false),
            limits,
        };
        (Arc::new(worker), Receivers { finished: settling, unfit: parking })
    }

    /// The id under which it claims now.
    pub fn id(&self) -> i64 {
        self.identity().id
    }

    /// That id, and the server that it is known to.
    pub fn identity(&self) -> Identity {
        self.known.identity()
    }

    /// It registered anew. What the old id held is another's, and what is known of rows by their numbers may be of others:
    /// nothing that uses either may run meanwhile, so the caller holds the [`Worker::gate`] alone.
    pub fn begin(&self, id: i64, server: Server, now: DateTime<Utc>) {
        self.held.begin(id);
        self.definitions.clear();
        self.marks.reset();
        self.known.begin(id, server, now);
    }

    /// Whether its id was the lowest of all the living when it last saw them: what one worker does for all is its duty.
    pub fn is_first(&self) -> bool {
        self.first.load(Ordering::Relaxed)
    }

    /// A heartbeat has seen who lives.
    pub fn set_first(&self, first: bool) {
        self.first.store(first, Ordering::Relaxed);
    }

    /// Whether this worker is told of what is inserted, and another idle one that serves every queue looks each second for what
    /// is inserted without a word.
    pub fn another_looks(&self) -> bool {
        self.another_looks.load(Ordering::Relaxed)
    }

    /// The listening connection was told so, or is gone.
    pub fn set_another_looks(&self, another: bool) {
        self.another_looks.store(another, Ordering::Relaxed);
    }

    /// Whether it holds nearly all that it may: half of that is waiting for its call.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() < self.limits.held_max / 8
    }

    /// Ready to work: registered, lease running, next to a schema that it knows, not told to stop.
    pub fn is_ready(&self) -> Result<(), &'static str> {
        if self.stop.is_cancelled() {
            Err("stopping")
        } else if self.id() == 0 {
            Err("waiting for Postgres")
        } else if !self.lease.holds() {
            Err("no heartbeat was acknowledged for a whole lease")
        } else if !self.schema.fits() {
            Err("a newer pgsaga has migrated the database: upgrade this worker")
        } else {
            Ok(())
        }
    }

    /// Counts and logs a failed statement, once.
    pub fn database_failed(&self, doing: &'static str, error: &sqlx::Error) -> Class {
        let class = Class::of(error);
        self.metrics.database_error(class);
        match class {
            Class::Connection => tracing::warn!(%error, doing, "the database did not answer"),
            Class::Conflict => tracing::debug!(%error, doing, "a conflict in the database"),
            Class::Data | Class::Other => tracing::error!(%error, doing, "a statement failed"),
        }
        class
    }
}
