//! What the planner is told: a task that came back, with what its tries came to.

use crate::outcome::Outcome;

/// Which operation of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The forward operation.
    Action,
    /// Its undoing.
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

    /// The inverse of [`Op::as_str`].
    pub fn parse(word: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.as_str() == word)
    }
}

/// One op of one step with what its earlier tries came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Try {
    /// The step's index, from 0.
    pub step: usize,
    /// Which operation.
    pub op: Op,
    /// The number of this try, from 1.
    pub attempt: u32,
    /// Earlier tries that count against the limit: all but ongoing ones.
    pub counted: u32,
    /// Some earlier try ended unknown.
    pub unknown_before: bool,
    /// How the last earlier try that left this process ended (unsent tries say nothing).
    pub last: Option<Outcome>,
}

impl Try {
    /// The first try of an op.
    pub fn first(step: usize, op: Op) -> Try {
        Try { step, op, attempt: 1, counted: 0, unknown_before: false, last: None }
    }

    /// The next try of the same op after this one ended with `outcome`.
    pub(crate) fn again(self, outcome: Outcome) -> Try {
        Try {
            attempt: self.attempt.saturating_add(1),
            counted: self.counted.saturating_add(u32::from(outcome != Outcome::Ongoing)),
            unknown_before: self.unknown_before || outcome == Outcome::Unknown,
            // A try that never left says nothing about the ones before it: the last answer stands.
            last: if outcome == Outcome::Unsent { self.last } else { Some(outcome) },
            ..self
        }
    }

    /// The next try after this one, where it was made.
    pub fn after(self, outcome: Option<Outcome>) -> Try {
        outcome.map_or(self, |outcome| self.again(outcome))
    }

    /// Some try ended unknown, or the last that left ended ongoing: the op may have taken effect.
    pub fn may_have_happened(self) -> bool {
        self.unknown_before || self.last == Some(Outcome::Ongoing)
    }

    /// The outcome of a try whose request cannot be built: a refusal, unless an earlier try may
    /// have taken effect. Only the participant's own answer overrides that. `None`: the try is not
    /// recorded, and a person is needed.
    pub fn unbuildable(self) -> Option<Outcome> {
        (!self.may_have_happened()).then_some(Outcome::Failure)
    }
}

/// A mark on a task: the worker that meets it plans anew instead of calling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// The saga turns back: it was aborted, or another step failed.
    Turn,
    /// A person decided that the op counts as done.
    Skip,
    /// A person ended the saga (force, resolve); what it came to is on its row.
    End,
}

impl Interrupt {
    /// All of them.
    pub const ALL: [Interrupt; 3] = [Interrupt::Turn, Interrupt::Skip, Interrupt::End];

    /// The word in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Interrupt::Turn => "turn",
            Interrupt::Skip => "skip",
            Interrupt::End => "end",
        }
    }

    /// The inverse of [`Interrupt::as_str`].
    pub fn parse(word: &str) -> Option<Interrupt> {
        Interrupt::ALL.into_iter().find(|interrupt| interrupt.as_str() == word)
    }
}

/// Why a task cannot be called at all, whoever tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It killed too many workers while it ran alone.
    Killer,
    /// Its request cannot be built, and an earlier try may have taken effect.
    Unbuildable,
}

/// A task that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    /// The task.
    pub now: Try,
    /// How the call ended; `None` where [`crate::may_call`] forbade it.
    pub outcome: Option<Outcome>,
    /// The mark that the task bore.
    pub interrupt: Option<Interrupt>,
    /// The saga's deadline has passed.
    pub overdue: bool,
    /// Why it cannot be called at all.
    pub fault: Option<Fault>,
}
