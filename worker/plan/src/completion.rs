//! Completions: what the world reports about an op that nobody calls, or that a participant has
//! accepted.

use crate::outcome::Outcome;

/// What a completion says. It is the op's outcome, and the first one counts. `pgsaga.complete`
/// reports it for a step, `pgsaga.submit` for a gate, and the end of a workflow for its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Completion {
    /// The op took effect, or the gate opens.
    Success,
    /// A definite no. It is never asked again.
    Failure,
}

impl Completion {
    /// All completions.
    pub const ALL: [Completion; 2] = [Completion::Success, Completion::Failure];

    /// The word in SQL.
    pub fn as_str(self) -> &'static str {
        self.outcome().as_str()
    }

    /// The outcome of the attempt that records the completion.
    pub fn outcome(self) -> Outcome {
        match self {
            Completion::Success => Outcome::Success,
            Completion::Failure => Outcome::Failure,
        }
    }
}

/// Where the wait of a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TaskWait {
    /// The task does not wait for a completion.
    #[default]
    None,
    /// The wait has not ended. A task that is claimed earlier goes back.
    Pending,
    /// The wait has ended.
    Over,
}
