//! What the planner answers: what becomes of each task, what is queued, and how the saga ends.

use crate::event::{Attempt, Fault, Op};
use crate::progress::{Progress, State};

/// The rule for the wait before an attempt. The worker adds the jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The retry interval, doubled for each counted attempt after the first.
    Backoff {
        /// Counted attempts so far, at least 1.
        counted: u32,
    },
    /// The unchanged retry interval: the participant is working, or must confirm a refusal.
    Interval,
}

/// What becomes of an event's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskPlan {
    /// The op is over and is not attempted again.
    Done,
    /// The same op is attempted again later.
    Retry {
        /// The next attempt.
        next: Attempt,
        /// The wait before it.
        wait: Wait,
        /// The saga unwinds as soon as this op, a pivot that was called, has definitely failed.
        /// The next task bears [`crate::Interrupt::Unwind`].
        awaited: bool,
    },
    /// The task goes back as it is, with the end of its wait. Nothing is recorded.
    Waits {
        /// The attempt that the task stands for.
        now: Attempt,
        /// As in [`TaskPlan::Retry`].
        awaited: bool,
    },
    /// A person must decide.
    Stuck {
        /// The attempt that a person's retry makes.
        next: Attempt,
        /// The reason.
        why: AbortCause,
    },
}

/// How a saga ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SagaEnd {
    /// Every action succeeded.
    Succeeded,
    /// Every effect was compensated.
    Failed,
    /// A person decided how it ends.
    Decided,
}

/// What a settle must write for the events of one saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The state of each step afterwards.
    pub progress: Progress,
    /// What becomes of each event's task, in the order of the events.
    pub tasks: Vec<TaskPlan>,
    /// First attempts of the ops that are ready now.
    pub queued: Vec<Attempt>,
    /// The saga goes backward from here on.
    pub unwinds: bool,
    /// The index of the event that aborts the saga, and the cause. The saga unwinds now, or once
    /// its pivot has definitely failed. `None` also where the abort was requested before.
    pub abort: Option<(usize, AbortCause)>,
    /// How the saga ends, if it is over.
    pub ends: Option<SagaEnd>,
}

/// Why a saga is aborted or stuck. The worker writes the step's name before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbortCause {
    /// A definite refusal. The participant's message follows.
    Refused,
    /// The retry limit is used up: `retry limit N reached`, in DTM's words.
    RetryLimit(u32),
    /// The deadline passed: `timeout after N seconds`, in DTM's words.
    Timeout,
    /// The task cannot be called at all.
    Fault(Fault),
    /// A wait ended without a completion: `no completion within N seconds`.
    NoCompletion,
    /// The call succeeded, and its completion is a failure.
    Contradicted,
}

/// Events that cannot belong to this saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The progress has another number of steps.
    #[error("a progress of {told} steps for a saga with {steps} steps")]
    Progress {
        /// Number of steps in the progress.
        told: usize,
        /// Number of steps of the saga.
        steps: usize,
    },
    /// The saga has no such step.
    #[error("step {step} of a saga with {steps} steps")]
    Step {
        /// The event's step, from 1.
        step: usize,
        /// Number of steps of the saga.
        steps: usize,
    },
    /// The step's op is not running.
    #[error("a {} of step {step}, which is {state:?}", op.as_str())]
    NotRunning {
        /// The step, from 1.
        step: usize,
        /// The op that came back.
        op: Op,
        /// The state of the step.
        state: State,
    },
}
