//! What the planner hears: a task that came back, and how its attempts ended.

use crate::completion::{Completion, TaskWait};
use crate::outcome::{Effect, Outcome};

/// An operation of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The forward operation.
    Action,
    /// The operation that undoes the action.
    Compensate,
}

impl Op {
    /// Both, in the order of a saga's life.
    pub const ALL: [Op; 2] = [Op::Action, Op::Compensate];

    /// The word in SQL, calls, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Action => "action",
            Op::Compensate => "compensate",
        }
    }
}

/// An attempt at one op of one step, with what the earlier attempts came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The step's index, from 0.
    pub step: usize,
    /// Which operation.
    pub op: Op,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// Earlier attempts that count against the retry limit ([`Facts`](crate::Facts)).
    pub counted: u32,
    /// Some earlier attempt ended unknown.
    pub unknown_before: bool,
    /// How the last earlier attempt ended that says how the op stands.
    pub last: Option<Outcome>,
}

impl Attempt {
    /// The first attempt of an op.
    pub fn first(step: usize, op: Op) -> Attempt {
        Attempt { step, op, attempt: 1, counted: 0, unknown_before: false, last: None }
    }

    /// The attempt that follows this one. Without an outcome this one was not made, and stays.
    pub fn after(self, outcome: Option<Outcome>) -> Attempt {
        let Some(outcome) = outcome else { return self };
        let facts = outcome.facts();
        Attempt {
            attempt: self.attempt.saturating_add(1),
            counted: self.counted.saturating_add(u32::from(facts.is_counted)),
            // control: try-unknown-before
            unknown_before: self.unknown_before || facts.effect == Effect::Maybe,
            // control: try-last-outcome
            last: if facts.overrides { Some(outcome) } else { self.last },
            ..self
        }
    }

    /// Whether the op may have taken effect: some attempt ended unknown, or the last that left
    /// this process ended ongoing.
    pub fn may_have_taken_effect(self) -> bool {
        // control: may-have-happened
        self.unknown_before || self.last.is_some_and(|last| last.facts().effect == Effect::Pending)
    }

    /// The outcome of an attempt whose request cannot be built: a refusal, unless an earlier
    /// attempt may have taken effect. Only the participant's own response overrides that. `None`:
    /// the attempt is not recorded, and a person must decide.
    pub fn unbuildable(self) -> Option<Outcome> {
        // control: unbuildable-refuses
        (!self.may_have_taken_effect()).then_some(Outcome::Failure)
    }
}

/// A flag on a task. The worker that meets it plans anew instead of calling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// The saga unwinds: it was aborted, or another step failed.
    Unwind,
    /// A person decided that the op counts as done.
    Skip,
    /// A person ended the saga (force, resolve). The saga's row says how.
    End,
}

impl Interrupt {
    /// All interrupts.
    pub const ALL: [Interrupt; 3] = [Interrupt::Unwind, Interrupt::Skip, Interrupt::End];

    /// The word in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Interrupt::Unwind => "unwind",
            Interrupt::Skip => "skip",
            Interrupt::End => "end",
        }
    }
}

/// Why no worker can call a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The task killed too many workers while it ran isolated.
    Poison,
    /// The task's request cannot be built, and an earlier attempt may have taken effect.
    Unbuildable,
}

/// A task that came back from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    /// The attempt that the task stands for.
    pub now: Attempt,
    /// How the call ended. `None` where [`crate::may_call`] forbade it.
    pub outcome: Option<Outcome>,
    /// The interrupt that the task bore.
    pub interrupt: Option<Interrupt>,
    /// The saga's deadline has passed.
    pub overdue: bool,
    /// Why the task cannot be called at all.
    pub fault: Option<Fault>,
    /// What a completion says of the op. It stands beside the interrupt.
    pub completion: Option<Completion>,
    /// Where the task's wait stands.
    pub wait: TaskWait,
}
