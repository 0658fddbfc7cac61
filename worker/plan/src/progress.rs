//! The state of each step of a saga. A sequential saga's progress follows from its one task; a
//! parallel saga's progress is a column of its row.

use crate::event::{Attempt, Op};

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The action has not been queued.
    Waiting,
    /// The action has not been queued, and a completion has reported its success.
    Reported,
    /// The action has a task.
    Acting,
    /// The action succeeded.
    Done,
    /// The action is over and had no effect.
    NoEffect,
    /// The action is over and may have taken effect.
    MaybeDone,
    /// The compensation has a task.
    Undoing,
    /// The action was compensated, or has no compensation.
    Undone,
    /// A person must decide about the action.
    StuckActing,
    /// A person must decide about the compensation.
    StuckUndoing,
}

impl State {
    /// All states.
    pub const ALL: [State; 10] = [
        State::Waiting,
        State::Reported,
        State::Acting,
        State::Done,
        State::NoEffect,
        State::MaybeDone,
        State::Undoing,
        State::Undone,
        State::StuckActing,
        State::StuckUndoing,
    ];

    /// The character in `pgsaga.saga.progress`.
    pub fn as_char(self) -> char {
        match self {
            State::Waiting => '.',
            State::Reported => 'r',
            State::Acting => 'a',
            State::Done => 'd',
            State::NoEffect => 'v',
            State::MaybeDone => 'm',
            State::Undoing => 'c',
            State::Undone => 'u',
            State::StuckActing => 's',
            State::StuckUndoing => 'x',
        }
    }

    /// Whether the step has no effect: the action never ran, had none, or was compensated.
    pub fn is_without_effect(self) -> bool {
        matches!(self, State::Waiting | State::NoEffect | State::Undone)
    }
}

/// The state of every step, and whether an abort was requested.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    /// One state for each step.
    pub steps: Vec<State>,
    /// A failure, a decision or the deadline aborts the saga. It unwinds unless its pivot has
    /// succeeded.
    pub abort_requested: bool,
}

impl Progress {
    /// The progress of a sequential saga of `count` steps whose one task is `now`: every earlier
    /// step is done, every later step never began or was compensated.
    pub fn of_sequential(count: usize, now: Attempt) -> Progress {
        let state = |index: usize| match (now.op, index.cmp(&now.step)) {
            (_, std::cmp::Ordering::Less) => State::Done,
            (Op::Action, std::cmp::Ordering::Equal) => State::Acting,
            (Op::Compensate, std::cmp::Ordering::Equal) => State::Undoing,
            (Op::Action, std::cmp::Ordering::Greater) => State::Waiting,
            (Op::Compensate, std::cmp::Ordering::Greater) => State::Undone,
        };
        Progress { steps: (0..count).map(state).collect(), abort_requested: now.op == Op::Compensate }
    }

    /// Reads the column. `None` for text that no release writes.
    pub fn parse(text: &str, abort_requested: bool) -> Option<Progress> {
        let state = |char| State::ALL.into_iter().find(|state| state.as_char() == char);
        Some(Progress { steps: text.chars().map(state).collect::<Option<_>>()?, abort_requested })
    }

    /// The text of the column.
    pub fn text(&self) -> String {
        self.steps.iter().map(|state| state.as_char()).collect()
    }

    /// Whether some op has a task.
    pub fn is_running(&self) -> bool {
        self.steps.iter().any(|state| matches!(state, State::Acting | State::Undoing))
    }
}
