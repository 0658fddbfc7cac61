//! Where each step of a saga stands. A sequential saga's progress is its one task; a parallel saga's is a column of its row.

use crate::event::{Op, Try};

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Its action has not been queued.
    Waiting,
    /// Its action has a task.
    Acting,
    /// Its action succeeded.
    Done,
    /// Its action is over and took no effect.
    Void,
    /// Its action is over and may have taken effect.
    Doubtful,
    /// Its compensation has a task.
    Undoing,
    /// Undone, or there was nothing to undo.
    Undone,
    /// Its action needs a person.
    StuckActing,
    /// Its compensation needs a person.
    StuckUndoing,
}

impl State {
    /// All of them.
    pub const ALL: [State; 9] = [
        State::Waiting,
        State::Acting,
        State::Done,
        State::Void,
        State::Doubtful,
        State::Undoing,
        State::Undone,
        State::StuckActing,
        State::StuckUndoing,
    ];

    /// The character in `pgsaga.saga.progress`.
    pub fn as_char(self) -> char {
        match self {
            State::Waiting => '.',
            State::Acting => 'a',
            State::Done => 'd',
            State::Void => 'v',
            State::Doubtful => 'm',
            State::Undoing => 'c',
            State::Undone => 'u',
            State::StuckActing => 's',
            State::StuckUndoing => 'x',
        }
    }

    /// Nothing of the step stands: it never ran, took no effect, or is undone.
    pub fn is_settled(self) -> bool {
        matches!(self, State::Waiting | State::Void | State::Undone)
    }
}

/// Where every step stands, and whether the saga was asked to turn back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    /// One a step.
    pub steps: Vec<State>,
    /// A failure, an abort or the deadline asks the saga to turn back. It does, unless its pivot stands.
    pub requested: bool,
}

impl Progress {
    /// The progress of a sequential saga of `count` steps whose one task is `now`: every earlier step is done, every later
    /// one never began or is undone.
    pub fn of_sequential(count: usize, now: Try) -> Progress {
        let mut steps = vec![State::Waiting; count];
        for (index, state) in steps.iter_mut().enumerate() {
            *state = match (now.op, index.cmp(&now.step)) {
                (_, std::cmp::Ordering::Less) => State::Done,
                (Op::Action, std::cmp::Ordering::Equal) => State::Acting,
                (Op::Compensate, std::cmp::Ordering::Equal) => State::Undoing,
                (Op::Action, std::cmp::Ordering::Greater) => State::Waiting,
                (Op::Compensate, std::cmp::Ordering::Greater) => State::Undone,
            };
        }
        Progress { steps, requested: now.op == Op::Compensate }
    }

    /// Reads the column; `None` for text that no release writes.
    pub fn parse(text: &str, requested: bool) -> Option<Progress> {
        let state = |char| State::ALL.into_iter().find(|state| state.as_char() == char);
        Some(Progress { steps: text.chars().map(state).collect::<Option<_>>()?, requested })
    }

    /// The column's text.
    pub fn text(&self) -> String {
        self.steps.iter().map(|state| state.as_char()).collect()
    }

    /// Some op has a task.
    pub fn is_running(&self) -> bool {
        self.steps.iter().any(|state| matches!(state, State::Acting | State::Undoing))
    }
}
