//! What follows from a finished try. Pure: no clock, no I/O, no randomness; everything else executes plans.
//!
//! A sequential saga has exactly one task at a time, so its whole progress is that task: in the forward direction every
//! earlier step has succeeded; in the backward direction every earlier step has succeeded and every later one is undone
//! or never took effect.

use std::time::Duration;

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

/// What the planner needs of a step.
pub trait Steps {
    /// How many steps the saga has; at least 1.
    fn count(&self) -> usize;
    /// Whether step `index` (from 0) has something to undo.
    fn has_compensation(&self, index: usize) -> bool;
    /// How many counted retries the action of step `index` gets after its first try; `None` is without limit. A try that
    /// was lost with its worker counts, and is always followed by another: nobody has heard its answer.
    fn retry_limit(&self, index: usize) -> Option<u32>;
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
    fn again(self, outcome: Outcome) -> Try {
        Try {
            attempt: self.attempt.saturating_add(1),
            counted: self.counted.saturating_add(u32::from(outcome != Outcome::Ongoing)),
            unknown_before: self.unknown_before || outcome == Outcome::Unknown,
            // A try that never left says nothing about the ones before it: the last answer stands.
            last: if outcome == Outcome::Unsent { self.last } else { Some(outcome) },
            ..self
        }
    }
}

/// How long to wait before a try. The durations themselves come from [`crate::backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The retry interval doubled for each counted try after the first.
    Backoff {
        /// Counted tries so far, at least 1.
        counted: u32,
    },
    /// The unchanged retry interval: the participant is working, or is asked to confirm a refusal.
    Interval,
}

/// What a settle must do for one finished try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The next step's action, in the same task row.
    Advance(Try),
    /// Another try of the same op, later.
    Retry(Try, Wait),
    /// The unwind begins (`why` is set) or goes on with this compensation.
    Compensate(Try, Option<Why>),
    /// The saga is over and all done.
    Succeed,
    /// The saga is over and all undone. `why` is set when nothing had to be undone.
    Fail(Option<Why>),
    /// A person is needed: a compensation was refused.
    Stick(Why),
}

/// Why a saga turns back or sticks; the reason starts with the step's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A definite refusal: the participant's words follow.
    Refused,
    /// The limit is used up: `retry limit N reached`, as DTM says it.
    RetryLimit(u32),
}

/// A task that cannot belong to this definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step} of a saga with {steps} steps")]
pub struct Illegal {
    /// The step asked for, from 1.
    pub step: usize,
    /// How many there are.
    pub steps: usize,
}

/// Decides what follows when `done` ended with `outcome`.
///
/// # Errors
/// [`Illegal`] when the step does not exist.
pub fn plan(steps: &impl Steps, done: Try, outcome: Outcome) -> Result<Plan, Illegal> {
    if done.step >= steps.count() {
        return Err(Illegal { step: done.step + 1, steps: steps.count() });
    }
    let again = done.again(outcome);
    Ok(match (done.op, outcome) {
        (Op::Action, Outcome::Success) => {
            if done.step + 1 == steps.count() {
                Plan::Succeed
            } else {
                Plan::Advance(Try::first(done.step + 1, Op::Action))
            }
        }
        (Op::Compensate, Outcome::Success) => match undo_before(steps, done.step) {
            Some(next) => Plan::Compensate(next, None),
            None => Plan::Fail(None),
        },
        (_, Outcome::Ongoing) => Plan::Retry(again, Wait::Interval),
        (_, Outcome::Failure) if must_confirm(done) => Plan::Retry(again, Wait::Interval),
        (Op::Action, Outcome::Failure) => unwind(steps, again, Why::Refused),
        (Op::Compensate, Outcome::Failure) => Plan::Stick(Why::Refused),
        (Op::Action, Outcome::Unknown | Outcome::Unsent) => match steps.retry_limit(done.step) {
            Some(limit) if again.counted > limit => unwind(steps, again, Why::RetryLimit(limit)),
            _ => Plan::Retry(again, Wait::Backoff { counted: again.counted }),
        },
        // Compensations have a limit of their own, by default none.
        (Op::Compensate, Outcome::Unknown | Outcome::Unsent) => {
            Plan::Retry(again, Wait::Backoff { counted: again.counted })
        }
    })
}

/// A refusal after an unknown try is asked once more before it counts: a service that answers 409 while the first try
/// still runs would otherwise abort a payment in progress (RACES 14).
fn must_confirm(done: Try) -> bool {
    done.unknown_before && done.last != Some(Outcome::Failure)
}

/// One failure, one unwind: `failed` is the action with all its tries behind it.
fn unwind(steps: &impl Steps, failed: Try, why: Why) -> Plan {
    // May have taken effect: some try ended unknown, or the last that left ended ongoing. (A success is not here.)
    let may_have_happened = failed.unknown_before || failed.last == Some(Outcome::Ongoing);
    let first = if may_have_happened && steps.has_compensation(failed.step) {
        Some(Try::first(failed.step, Op::Compensate))
    } else {
        undo_before(steps, failed.step)
    };
    match first {
        Some(first) => Plan::Compensate(first, Some(why)),
        None => Plan::Fail(Some(why)),
    }
}

/// The next compensation in reverse order: the nearest earlier step with something to undo.
fn undo_before(steps: &impl Steps, step: usize) -> Option<Try> {
    (0..step)
        .rev()
        .find(|&index| steps.has_compensation(index))
        .map(|index| Try::first(index, Op::Compensate))
}

/// The delay of `wait` before jitter, for documentation and `pgsaga show`.
pub fn nominal_delay(wait: Wait, interval: Duration, cap: Duration) -> Duration {
    match wait {
        Wait::Interval => interval.min(cap),
        Wait::Backoff { counted } => {
            let doublings = counted.saturating_sub(1).min(31);
            interval.saturating_mul(1u32 << doublings).min(cap)
        }
    }
}

#[cfg(test)]
mod tests;
