//! A claimed task: what a worker holds in memory.

pub mod bounds;
pub mod definition;
pub mod definitions;
pub mod references;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::flow::participants::{Participants, Ticket};
use crate::flow::queues;
use crate::task::definition::{Definition, FreshKeys, Step};
use crate::task::references::Answers;
use crate::telemetry::metrics::OfQueue;
use pgsaga_plan::Outcome;
use pgsaga_plan::{Attempt, Event, Fault, Interrupt, Op};

/// A task that lost this many workers runs alone (DESIGN.md §6, poison).
pub const SUSPECT_AFTER_LOST: i16 = 3;
/// A task that killed this many workers while it ran alone makes its saga stuck.
pub const STUCK_AFTER_LOST_ALONE: i16 = 10;
/// Bytes of definitions that a worker holds at once; a larger saga is held alone.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many bytes of definitions a worker holds.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// What may still be claimed of `max` bytes.
    pub fn room(&self, max: usize) -> usize {
        max.saturating_sub(self.0.load(Ordering::Acquire))
    }

    /// Adds a definition, until the weight is dropped.
    pub fn add(&self, bytes: usize) -> Weight {
        self.0.fetch_add(bytes, Ordering::AcqRel);
        Weight { load: self.clone(), bytes }
    }
}

/// A definition's part of the [`Load`].
#[derive(Debug)]
pub struct Weight {
    load: Load,
    bytes: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.load.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// One claimed task.
#[derive(Debug)]
pub struct Task {
    /// The row's id.
    pub id: i64,
    /// The fence: what the row's epoch was when this worker last wrote it.
    pub epoch: i32,
    /// The saga's row id.
    pub saga_id: i64,
    /// The worker id under which it was claimed; a worker that had to register anew drops what the old id held.
    pub worker: i64,
    /// Which op of which step, and what its earlier tries came to.
    pub now: Attempt,
    /// Workers lost while they held it.
    pub lost: i16,
    /// Workers lost while they ran it alone.
    pub lost_alone: i16,
    /// The mark that it bore when this worker last looked.
    pub interrupt: Option<Interrupt>,
    /// Its saga, a parallel one, had been asked to turn back when it was claimed: a mark that it lacks, because somebody
    /// had it locked at that moment, counts as borne.
    pub requested: bool,
    /// When the saga's deadline passes, by this process's clock; `None` where none applies.
    pub deadline: Option<Instant>,
    /// What the INSERT said.
    pub saga: Arc<Definition>,
    /// The answers that the saga refers to.
    pub answers: Answers,
    /// Ops that a person gave a fresh idempotency key.
    pub fresh_keys: FreshKeys,
    /// Why its request cannot be built, where an earlier try may have taken effect.
    pub unbuildable: Option<String>,
    /// Its place with the participant that it calls.
    pub ticket: Ticket,
    /// Its place in its queue's limit.
    pub queue: Option<queues::Place>,
    /// What is counted of its queue.
    pub counted: Arc<OfQueue>,
    /// How old the saga was when it was claimed, by the database's clock.
    pub age: Duration,
    /// When that was.
    pub claimed: Instant,
    /// The place it takes among the tasks that this worker may hold; free again when the task is dropped.
    pub place: OwnedSemaphorePermit,
}

impl Task {
    /// The step that it is about. `None` cannot happen for a claimed task: [`crate::claim`] checks it.
    pub fn step(&self) -> Option<&Step> {
        self.saga.steps.get(self.now.step)
    }

    /// Its step's name.
    pub fn step_name(&self) -> &str {
        self.step().map_or("?", |step| step.name.as_str())
    }

    /// Whether it must run alone.
    pub fn is_suspect(&self) -> bool {
        self.lost >= SUSPECT_AFTER_LOST
    }

    /// How long it is put off because of its participant; `None` where nothing keeps it from being
    /// called.
    pub fn put_off(&self, participants: &Participants) -> Option<Duration> {
        // A claim brought it whatever its participant, because an interrupt or the deadline may
        // need no call.
        let plans = self.interrupt.is_some() || self.is_overdue();
        participants.put_off(self.ticket.participant(), self.id, plans)
    }

    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// What the planner hears of it. `None`: it was not called.
    pub fn event(&self, outcome: Option<Outcome>) -> Event {
        Event {
            now: self.now,
            outcome,
            interrupt: self
                .interrupt
                .or((self.requested && self.now.op == Op::Action).then_some(Interrupt::Unwind)),
            overdue: self.is_overdue(),
            fault: if self.lost_alone >= STUCK_AFTER_LOST_ALONE {
                Some(Fault::Poison)
            } else {
                self.unbuildable.as_ref().map(|_| Fault::Unbuildable)
            },
        }
    }
}
