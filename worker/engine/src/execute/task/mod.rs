//! A claimed task: what a worker holds in memory.

pub(crate) mod bounds;
pub(crate) mod definition;
pub(crate) mod definitions;
pub(crate) mod references;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::execute::task::definition::{Definition, FreshKeys, Step};
use crate::execute::task::references::Answers;
use crate::flow::participants::{ParticipantPermit, Participants};
use crate::flow::queues::QueuePermit;
use crate::telemetry::metrics::QueueMetrics;
use pgsaga_plan::Outcome;
use pgsaga_plan::{Attempt, Event, Fault, Interrupt, Op};

/// A task that lost this many workers runs alone (DESIGN.md §6, poison).
pub(crate) const ISOLATE_AFTER_LOST: i16 = 3;
/// A task that killed this many workers while it ran alone makes its saga stuck.
pub(crate) const STUCK_AFTER_LOST_ISOLATED: i16 = 10;
/// One claimed task.
#[derive(Debug)]
pub(crate) struct Task {
    /// The row's id.
    pub(crate) id: i64,
    /// The fence: what the row's epoch was when this worker last wrote it.
    pub(crate) epoch: i32,
    /// The saga's row id.
    pub(crate) saga_id: i64,
    /// The worker id under which it was claimed; a worker that had to register anew drops what the old id held.
    pub(crate) worker: i64,
    /// Which op of which step, and what its earlier tries came to.
    pub(crate) now: Attempt,
    /// Workers lost while they held it.
    pub(crate) lost: i16,
    /// Workers lost while they ran it alone.
    pub(crate) lost_isolated: i16,
    /// The mark that it bore when this worker last looked.
    pub(crate) interrupt: Option<Interrupt>,
    /// Its saga, a parallel one, had been asked to turn back when it was claimed: a mark that it lacks, because somebody
    /// had it locked at that moment, counts as borne.
    pub(crate) requested: bool,
    /// When the saga's deadline passes, by this process's clock; `None` where none applies.
    pub(crate) deadline: Option<Instant>,
    /// What the INSERT said.
    pub(crate) saga: Arc<Definition>,
    /// The answers that the saga refers to.
    pub(crate) answers: Answers,
    /// Ops that a person gave a fresh idempotency key.
    pub(crate) fresh_keys: FreshKeys,
    /// Why its request cannot be built, where an earlier try may have taken effect.
    pub(crate) unbuildable: Option<String>,
    /// Its place with the participant that it calls.
    pub(crate) permit: ParticipantPermit,
    /// Its place in its queue's limit.
    pub(crate) queue: Option<QueuePermit>,
    /// What is counted of its queue.
    pub(crate) counted: Arc<QueueMetrics>,
    /// How old the saga was when it was claimed, by the database's clock.
    pub(crate) age: Duration,
    /// When that was.
    pub(crate) claimed: Instant,
    /// The place it takes among the tasks that this worker may hold; free again when the task is dropped.
    pub(crate) _slot: OwnedSemaphorePermit,
}

impl Task {
    /// The step that it is about. `None` cannot happen for a claimed task: [`crate::claim`] checks it.
    pub(crate) fn step(&self) -> Option<&Step> {
        self.saga.steps.get(self.now.step)
    }

    /// The participant that an attempt of this saga calls. Empty where nobody is called.
    pub(crate) fn participant_of(&self, attempt: Attempt) -> &str {
        self.saga.steps.get(attempt.step).map_or("", |step| step.participant(attempt.op))
    }

    /// Its step's name.
    pub(crate) fn step_name(&self) -> &str {
        self.step().map_or("?", |step| step.name.as_str())
    }

    /// Whether it must run alone.
    pub(crate) fn is_isolated(&self) -> bool {
        self.lost >= ISOLATE_AFTER_LOST
    }

    /// How long it is put off because of its participant; `None` where nothing keeps it from being
    /// called.
    pub(crate) fn defer_for(&self, participants: &Participants) -> Option<Duration> {
        // A claim brought it whatever its participant, because an interrupt or the deadline may
        // need no call.
        let plans = self.interrupt.is_some() || self.is_overdue();
        participants.defer_for(self.permit.participant(), self.id, plans)
    }

    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// What the planner hears of it. `None`: it was not called.
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
        }
    }
}
