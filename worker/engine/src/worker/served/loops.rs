//! The loops of a worker, each with the parts that it uses.

use std::future::Future;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::DatabaseWorker;
use crate::claim::Claimer;
use crate::claim::defer::Defer;
use crate::execute::task::definitions::Definitions;
use crate::liveness::handlers::supervise::Supervise;
use crate::liveness::heartbeat::Heartbeat;
use crate::liveness::reconcile::Reconcile;
use crate::liveness::rescue::Rescue;
use crate::liveness::unreadable::UnreadableRows;
use crate::settle::Settler;
use crate::upkeep::partitions::Partitions;
use crate::upkeep::retention::Retention;
use crate::upkeep::sample::Sample;
use crate::wake::listen::Listen;
use crate::worker::status::WorkerStatus;

impl DatabaseWorker {
    /// Starts every loop of a registered worker.
    pub(super) fn start(self, heartbeat: Heartbeat) -> Loops {
        let (dead, dying) = mpsc::unbounded_channel();
        let mut loops = Loops::default();
        // control: heartbeat-thread
        loops.spawn("heartbeat", on_own_thread("pgsaga heartbeat", heartbeat.run(dead.clone())));
        loops.spawn("rescue", self.rescue().run(dying));
        loops.spawn("reconcile", self.reconcile().run(dead));
        if self.executor.executors.named.in_process().next().is_some() {
            loops.spawn("handlers", self.supervise().run());
        }
        loops.spawn("sample", self.sample().run());
        loops.spawn("partitions", self.partitions().run());
        if let Some(retention) = self.retention() {
            loops.spawn("retention", retention.run());
        }
        match self.listen_on.clone() {
            Some(hosts) => loops.spawn("listen", self.listen().run(hosts)),
            None => tracing::info!("no direct connection for LISTEN: this worker polls"),
        }
        loops.spawn("claim", self.claimer().run());
        let (settler, defer) = (self.settler(), self.defer());
        loops.spawn("settle", settler.run(self.finished, self.transactional));
        loops.spawn("defer", defer.run(self.deferred));
        loops
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Heartbeat {
            db,
            metrics,
            membership,
            participants: Arc::clone(&self.participants),
            queues: self.queues.names(),
            named: self.executor.executors.named.task_names().collect(),
            transactional: self.executor.executors.named.transactional().collect(),
            watermarks: Arc::clone(&self.watermarks),
            wakeups: Arc::clone(&self.wakeups),
            shutdown,
            running: Arc::clone(&self.executor.handlers.running),
            runtime: Handle::current(),
        }
    }

    fn supervise(&self) -> Supervise {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Supervise { db, metrics, membership, running: Arc::clone(&self.executor.handlers.running), shutdown }
    }

    fn unreadable(&self) -> UnreadableRows {
        let WorkerStatus { db, metrics, membership, .. } = self.status();
        UnreadableRows { db, metrics, membership, wakeups: Arc::clone(&self.wakeups) }
    }

    fn rescue(&self) -> Rescue {
        let WorkerStatus { db, metrics, shutdown, .. } = self.status();
        Rescue { db, metrics, wakeups: Arc::clone(&self.wakeups), done: shutdown.done }
    }

    fn reconcile(&self) -> Reconcile {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Reconcile {
            db,
            metrics,
            membership,
            watermarks: Arc::clone(&self.watermarks),
            wakeups: Arc::clone(&self.wakeups),
            unreadable: self.unreadable(),
            shutdown,
        }
    }

    fn settler(&self) -> Settler {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Settler {
            db,
            metrics,
            membership,
            capacity: Arc::clone(&self.capacity),
            participants: Arc::clone(&self.participants),
            wakeups: Arc::clone(&self.wakeups),
            executor: Arc::clone(&self.executor),
            log_limits: Arc::default(),
            shutdown,
        }
    }

    fn defer(&self) -> Defer {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Defer {
            db,
            metrics,
            membership,
            participants: Arc::clone(&self.participants),
            watermarks: Arc::clone(&self.watermarks),
            wakeups: Arc::clone(&self.wakeups),
            done: shutdown.done,
        }
    }

    fn sample(&self) -> Sample {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Sample { db, metrics, membership, shutdown }
    }

    fn partitions(&self) -> Partitions {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Partitions { db, metrics, membership, done: shutdown.done }
    }

    fn retention(&self) -> Option<Retention> {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        let wakeups = Arc::clone(&self.wakeups);
        let age = self.retention?;
        Some(Retention { db, metrics, membership, wakeups, stop: shutdown.stop, age })
    }

    fn listen(&self) -> Listen {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Listen {
            db,
            metrics,
            wakeups: Arc::clone(&self.wakeups),
            every_queue: self.queues.are_all(),
            named: self.executor.executors.named.task_names().collect(),
            lease: membership.lease.duration(),
            done: shutdown.done,
        }
    }

    fn claimer(&self) -> Claimer {
        let WorkerStatus { db, metrics, membership, shutdown, .. } = self.status();
        Claimer {
            db,
            metrics,
            membership,
            capacity: Arc::clone(&self.capacity),
            participants: Arc::clone(&self.participants),
            queues: Arc::clone(&self.queues),
            named: self.executor.executors.named.task_names().collect(),
            definitions: Definitions::default(),
            watermarks: Arc::clone(&self.watermarks),
            wakeups: Arc::clone(&self.wakeups),
            executor: Arc::clone(&self.executor),
            unreadable: self.unreadable(),
            shutdown,
        }
    }
}

/// The running loops, which return their names.
#[derive(Default)]
pub(super) struct Loops(JoinSet<&'static str>);

impl Loops {
    fn spawn(&mut self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let loop_to_its_end = async move {
            run.await;
            name
        };
        // The span names the database that the worker serves.
        self.0.spawn(loop_to_its_end.instrument(Span::current()));
    }

    pub(super) async fn first_ended(&mut self) -> String {
        match self.0.join_next().await {
            Some(Ok(name)) => name.to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "every".to_owned(),
        }
    }

    pub(super) async fn join(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// Runs a loop in a thread and a runtime of its own, which nothing else can hold up. The thread
/// ends with the loop, or when the returned future is dropped.
fn on_own_thread(name: &str, run: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> {
    let dropped = CancellationToken::new();
    let drops = dropped.clone().drop_guard();
    let (ends, ended) = oneshot::channel::<()>();
    let run = async move {
        tokio::select! {
            () = run => {}
            () = dropped.cancelled() => {}
        }
    };
    let run = run.instrument(Span::current());
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ends = ends;
        match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run),
            Err(error) => tracing::error!(%error, "a thread has no runtime"),
        }
    });
    async move {
        let _drops = drops;
        if let Err(error) = started {
            tracing::error!(%error, "a thread cannot be started");
        }
        // The thread has dropped its end.
        let _ = ended.await;
    }
}
