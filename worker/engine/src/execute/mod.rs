//! Makes the calls: each held task waits for its slots, is called, and goes on to be settled.

pub mod address;
pub mod call;
pub mod client;
pub(crate) mod finished;
pub mod handler;
pub mod http;
pub mod intercept;
pub mod registry;
pub(crate) mod task;
pub mod trace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::contract::Target;
use pgsaga_sql::{fail, query};
use sqlx::Row as _;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit, mpsc};

use crate::db::{Db, PoolKind};
use crate::execute::call::{Call, CallResult, Called, NotSent, clean};
use crate::execute::finished::Finished;
use crate::execute::handler::HandlerExecutor;
use crate::execute::http::HttpExecutor;
use crate::execute::intercept::Intercept;
use crate::execute::registry::{Registry, Service};
use crate::execute::task::Task;
use crate::execute::trace::Traces;
use crate::flow::capacity::Capacity;
use crate::flow::participants::{Admission, Reach};
use crate::flow::queues::QueuePermit;
use crate::liveness::clock::DatabaseClock;
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;
use pgsaga_plan::{Outcome, may_call};

/// The permits that a call needs.
struct Slots<'a> {
    _queue: Option<OwnedSemaphorePermit>,
    _worker: SemaphorePermit<'a>,
}

/// Why a task gets no permit.
enum NoSlot {
    Stopping,
    ParticipantBlocked,
}

/// What makes the calls, for each kind of [`Target`].
#[derive(Debug)]
pub struct Executors {
    /// Calls plain URLs, and named participants.
    pub http: HttpExecutor,
    /// The participants that this worker knows by name.
    pub named: Registry,
    /// Upper bound on the bytes of an answer that is read and kept.
    pub answer_bytes_max: usize,
    /// Adds a tracing span to each call.
    pub traces: Option<Traces>,
    /// Decides about each call, for test kits.
    pub intercept: Option<Arc<dyn Intercept>>,
}

impl Executors {
    /// Calls whom the task's op is for.
    async fn call(&self, task: &Task, clock: &DatabaseClock, handlers: &HandlerExecutor) -> Called {
        let started = Instant::now();
        let Some(step) = task.step() else { return Err("no such step".to_owned().into()) };
        let Some(target) = step.target(task.now.op) else {
            return Ok(CallResult::without_call(Outcome::Success, None));
        };
        let mut call = Call::new(task, step, started, clock, self.answer_bytes_max)?;
        let span = trace::begin(self.traces.as_ref(), &mut call, target);
        let called = match &self.intercept {
            None => self.make(&call, target, handlers).await,
            Some(intercept) => Box::pin(self.intercepted(intercept, &call, target, handlers)).await,
        };
        if let Some(span) = span {
            span.end(&called);
        }
        called
    }

    async fn make(&self, call: &Call<'_>, target: &Target, handlers: &HandlerExecutor) -> Called {
        match target {
            Target::Http(url) => self.http.call(call, url, None).await,
            Target::Named(named) => match self.named.get(named.name()) {
                Some(Service::Http(service)) => self.http.call(call, named.path(), Some(service)).await,
                // Boxed, because every task would carry room for a handler and its transaction.
                Some(Service::Process(participant)) => {
                    Box::pin(handlers.call(call, named.path(), participant)).await
                }
                None => Err(NotSent::Denied(format!(
                    "not called: this worker has no participant {:?}, neither in the file of --participants nor in its process",
                    named.name()
                ))),
            },
        }
    }

    fn is_transactional(&self, target: &Target) -> bool {
        let Target::Named(named) = target else { return false };
        matches!(self.named.get(named.name()), Some(Service::Process(participant)) if participant.is_transactional())
    }
}

/// Starts the calls of held tasks.
pub(crate) struct Executor {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) shutdown: Shutdown,
    pub(crate) executors: Executors,
    pub(crate) handlers: HandlerExecutor,
    /// Finished calls, on their way to a settle.
    pub(crate) finished: mpsc::UnboundedSender<Finished>,
    /// Those that are settled in the transaction of their handler.
    pub(crate) transactional: mpsc::UnboundedSender<Finished>,
    /// Sender of tasks that are deferred because of their participant.
    pub(crate) deferred: mpsc::UnboundedSender<Task>,
}

impl Executor {
    /// Starts a task. A task that is not called, because the worker stops or lost its identity, is
    /// dropped here: the drain releases what is held and was not started.
    pub(crate) fn start(self: &Arc<Self>, task: Box<Task>) {
        let executor = Arc::clone(self);
        tokio::spawn(async move { executor.execute(task).await });
    }

    async fn execute(&self, mut task: Box<Task>) {
        if !self.membership.fits() {
            return self.defer(*task);
        }
        if !may_call(&task.saga.graph, &task.event(None)) {
            return self.uncalled(task);
        }
        let _slots = match self.wait_for_slots(&mut task).await {
            Ok(slots) => slots,
            Err(NoSlot::Stopping) => return,
            Err(NoSlot::ParticipantBlocked) => return drop(self.deferred.send(*task)),
        };
        // The deadline may have passed during the wait.
        if !may_call(&task.saga.graph, &task.event(None)) {
            return self.uncalled(task);
        }
        if !self.membership.fits() {
            return self.defer(*task);
        }
        // Boxed, because every task would carry room for the statement otherwise, and be copied
        // with it.
        // control: suspect-marked-first
        if task.is_isolated() && !Box::pin(self.mark_isolated(&mut task)).await {
            return;
        }
        if self.may_start(&task).await {
            self.call(task).await;
        }
    }

    /// Waits for a permit of the participant, of the queue and of the worker, in this order.
    async fn wait_for_slots(&self, task: &mut Task) -> Result<Slots<'_>, NoSlot> {
        let stop = &self.shutdown.stop;
        if stop.is_cancelled() {
            return Err(NoSlot::Stopping);
        }
        if !task.permit.participant().is_empty() {
            // A wait is rare, and a select that also watches the stop has its price.
            let admission = match task.permit.try_admit() {
                Some(admission) => admission,
                None => tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(NoSlot::Stopping),
                    admission = task.permit.admit() => admission,
                },
            };
            if admission == Admission::Defer {
                return Err(NoSlot::ParticipantBlocked);
            }
        }
        let queue = match task.queue.as_ref().map(QueuePermit::call_slots) {
            None => None,
            Some(slots) => tokio::select! {
                biased;
                () = stop.cancelled() => return Err(NoSlot::Stopping),
                slot = slots.acquire_owned() => slot.ok(),
            },
        };
        // control: suspect-alone
        let slots = if task.is_isolated() { self.capacity.calls_max as u32 } else { 1 };
        let worker = match self.capacity.call_slots.try_acquire_many(slots) {
            Ok(slot) => Ok(slot),
            Err(_) => tokio::select! {
                biased;
                () = stop.cancelled() => return Err(NoSlot::Stopping),
                slot = self.capacity.call_slots.acquire_many(slots) => slot,
            },
        };
        Ok(Slots { _queue: queue, _worker: worker.map_err(|_| NoSlot::Stopping)? })
    }

    async fn call(&self, mut task: Box<Task>) {
        self.membership.in_flight.start(task.worker, task.id);
        self.metrics.in_flight.increment(1);
        fail::point("call:before");
        let called = self.executors.call(&task, &self.membership.clock, &self.handlers).await;
        fail::point("call:after");
        self.metrics.in_flight.decrement(1);
        let result = match called {
            Ok(result) => {
                self.metrics.called(task.now.op, result.duration);
                self.metrics.calls_sent_again.increment(result.sent_again.into());
                task.permit.ended(result.reached, result.status_code);
                result
            }
            Err(NotSent::Unbuildable(why)) => {
                let why = clean(&why);
                task.permit.ended(Reach::Nobody, None);
                match task.now.unbuildable() {
                    Some(outcome) => CallResult::without_call(outcome, Some(why)),
                    None => {
                        task.unbuildable = Some(why);
                        // The call was not started after all.
                        self.membership.in_flight.advance(task.worker, task.id, task.epoch);
                        return self.uncalled(task);
                    }
                }
            }
            Err(NotSent::Busy(calls)) => {
                if let Some(calls) = calls {
                    task.permit.busy(calls);
                }
                return self.not_started(*task);
            }
            // The task stays started, so that the sign-off leaves it to be rescued.
            Err(NotSent::Dropped) => return,
            // control: denied-is-no-try
            Err(NotSent::Denied(why)) => return self.denied(*task, &clean(&why)),
        };
        let to_settle = if result.transaction.is_some() {
            // Counted when it has committed.
            &self.transactional
        } else {
            self.metrics.attempts.count(task.now.op, result.outcome);
            &self.finished
        };
        let _ = to_settle.send(Finished { task, result: Some(result) });
    }

    /// Defers the task, because another worker may be allowed to call. Counts no attempt.
    fn denied(&self, mut task: Task, why: &str) {
        self.metrics.denied_calls.increment(1);
        if task.permit.denied(why) {
            let (participant, gid) = (task.permit.participant(), &task.saga.gid);
            let (step, op) = (task.step_name(), task.now.op.as_str());
            tracing::warn!(participant, gid, step, op, reason = why, "a call was denied");
        }
        self.not_started(task);
    }

    /// Defers a task whose call was not started after all. Counts no attempt.
    fn not_started(&self, task: Task) {
        self.membership.in_flight.advance(task.worker, task.id, task.epoch);
        self.defer(task);
    }

    /// Passes the task to settle without a call, because of an interrupt, the deadline or a fault.
    fn uncalled(&self, task: Box<Task>) {
        if !self.shutdown.stop.is_cancelled() {
            let _ = self.finished.send(Finished { task, result: None });
        }
    }

    /// Returns the task to the queue for other workers, which may be able to run it.
    fn defer(&self, task: Task) {
        if !self.shutdown.stop.is_cancelled() {
            let _ = self.deferred.send(task);
        }
    }

    /// Waits until the lease is valid, because a worker starts no call after its lease expired.
    /// Returns false if the worker stops or registers again: another worker then owns the task.
    async fn may_start(&self, task: &Task) -> bool {
        loop {
            if self.membership.id() != task.worker || self.shutdown.stop.is_cancelled() {
                return false;
            }
            // control: lease-checked
            if self.membership.lease.holds() {
                return true;
            }
            tokio::select! {
                () = self.shutdown.stop.cancelled() => return false,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    /// Marks the task as isolated. Only deaths from now on count towards the limit after which the
    /// saga becomes stuck (docs/races.md, R20).
    async fn mark_isolated(&self, task: &mut Task) -> bool {
        let statement = sqlx::query(query::RUN_ISOLATED).bind(task.worker).bind(task.id).bind(task.epoch);
        let moving = self.membership.gate.read().await;
        let rows = self.db.run(PoolKind::Control, statement).await;
        match rows.as_ref().map(|rows| rows.first().map(|row| row.try_get::<i32, _>("epoch"))) {
            Ok(Some(Ok(epoch))) => {
                tracing::info!(
                    gid = task.saga.gid,
                    step = task.now.step + 1,
                    lost = task.lost,
                    "a task runs isolated"
                );
                task.epoch = epoch;
                self.membership.in_flight.advance(task.worker, task.id, epoch);
                true
            }
            _ => {
                if let Err(error) = &rows {
                    self.db.failed("run isolated", error);
                }
                drop(moving);
                // A row that memory does not know is released by reconciling.
                self.membership.in_flight.forget(task.worker, task.id);
                self.wakeups.reconcile.notify_one();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each task is spawned, and copied, with all that it may need until its end. What few tasks
    /// need is boxed. A future of 10 KB cost a third of the worker's CPU.
    #[test]
    fn a_task_that_runs_is_small() {
        fn bytes<F>(_: fn(Arc<Executor>, Box<Task>) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = bytes(|executor, task| async move { executor.execute(task).await });
        assert!(bytes <= 2048, "{bytes}");
    }
}
