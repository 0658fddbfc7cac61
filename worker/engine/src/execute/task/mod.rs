//! A claimed task, as the worker holds it in memory.

pub(crate) mod bounds;
pub(crate) mod definition;
pub(crate) mod definitions;
pub(crate) mod references;
pub(crate) mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::execute::task::definition::{Definition, FreshKeys, Step};
use crate::execute::task::references::Answers;
use crate::execute::task::report::Report;
use crate::flow::participants::{ParticipantPermit, Participants};
use crate::flow::queues::QueuePermit;
use crate::telemetry::metrics::QueueMetrics;
use pgsaga_plan::Outcome;
use pgsaga_plan::{Attempt, Event, Fault, Interrupt, Op, TaskWait};

/// Number of lost workers after which a task runs isolated.
pub(crate) const ISOLATE_AFTER_LOST: i16 = 3;
/// Number of workers lost during isolated runs after which the task's saga becomes stuck.
pub(crate) const STUCK_AFTER_LOST_ISOLATED: i16 = 10;

/// A task that this worker has claimed.
#[derive(Debug)]
pub(crate) struct Task {
    /// Id of the task's row.
    pub(crate) id: i64,
    /// The row's epoch after this worker's last write. It fences the next write.
    pub(crate) epoch: i32,
    /// Id of the saga's row.
    pub(crate) saga_id: i64,
    /// Worker id of the claim. A worker that registers again drops all tasks of its previous id.
    pub(crate) worker: i64,
    /// The op and step to run, and the results of earlier attempts.
    pub(crate) now: Attempt,
    /// Number of workers lost while they held the task.
    pub(crate) lost: i16,
    /// Number of workers lost while they ran the task isolated.
    pub(crate) lost_isolated: i16,
    /// The row's interrupt, as of this worker's last read.
    pub(crate) interrupt: Option<Interrupt>,
    /// What the row says that was reported of the op, as of this worker's last read. Boxed, because
    /// few tasks have one.
    pub(crate) report: Option<Box<Report>>,
    /// The end of the task's wait for a completion, by this process's clock.
    pub(crate) wait_ends: Option<Instant>,
    /// An abort of the task's parallel saga was requested before the claim. The row has no
    /// interrupt if another transaction had locked it at that moment. The task then counts as
    /// interrupted.
    pub(crate) requested: bool,
    /// End of the saga's deadline, by this process's clock; `None` without a deadline.
    pub(crate) deadline: Option<Instant>,
    /// The saga's decoded definition, shared by its tasks.
    pub(crate) saga: Arc<Definition>,
    /// The answers to which the saga refers.
    pub(crate) answers: Answers,
    /// Ops for which an operator assigned a fresh idempotency key.
    pub(crate) fresh_keys: FreshKeys,
    /// The reason why the request cannot be built, if an earlier attempt may have taken effect.
    pub(crate) unbuildable: Option<String>,
    /// The task's slot at its participant.
    pub(crate) permit: ParticipantPermit,
    /// The task's slot in the limit of its queue.
    pub(crate) queue: Option<QueuePermit>,
    /// Metrics of the task's queue.
    pub(crate) counted: Arc<QueueMetrics>,
    /// Age of the saga at the claim, by the database's clock.
    pub(crate) age: Duration,
    /// Time of the claim, by this process's clock.
    pub(crate) claimed: Instant,
    /// Permit among the tasks that this worker may hold. Dropping the task frees the permit.
    pub(crate) _slot: OwnedSemaphorePermit,
}

impl Task {
    /// Returns the task's step. Never `None` for a claimed task, because [`crate::claim`] checks
    /// the index.
    pub(crate) fn step(&self) -> Option<&Step> {
        self.saga.steps.get(self.now.step)
    }

    /// The participant that an attempt of this saga calls. Empty where nobody is called.
    pub(crate) fn participant_of(&self, attempt: Attempt) -> &str {
        self.saga.steps.get(attempt.step).map_or("", |step| step.participant(attempt.op))
    }

    /// Returns the name of the task's step.
    pub(crate) fn step_name(&self) -> &str {
        self.saga.step_name(self.now.step)
    }

    /// Whether the task must run isolated.
    pub(crate) fn is_isolated(&self) -> bool {
        self.lost >= ISOLATE_AFTER_LOST
    }

    /// Returns how long the task is deferred because of its participant; `None` if a call is
    /// possible.
    pub(crate) fn defer_for(&self, participants: &Participants) -> Option<Duration> {
        // Such a task is claimed without regard to its participant, because it may need no call.
        let plans = self.interrupt.is_some() || self.report.is_some() || self.is_overdue();
        participants.defer_for(self.permit.participant(), self.id, plans)
    }

    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Returns the planner's event for the task. `None` means that there was no call.
    pub(crate) fn event(&self, outcome: Option<Outcome>) -> Event {
        Event {
            now: self.now,
            outcome,
            interrupt: self
                .interrupt
                .or((self.requested && self.now.op == Op::Action).then_some(Interrupt::Unwind)),
            overdue: self.is_overdue(),
            fault: if self.lost_isolated >= STUCK_AFTER_LOST_ISOLATED {
                Some(Fault::Poison)
            } else {
                self.unbuildable.as_ref().map(|_| Fault::Unbuildable)
            },
            completion: self.report.as_ref().map(|report| report.completion),
            wait: match self.wait_ends {
                None => TaskWait::None,
                Some(end) if end > Instant::now() => TaskWait::Pending,
                Some(_) => TaskWait::Over,
            },
        }
    }
}
