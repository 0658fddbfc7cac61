//! What follows from finished tries. Pure: no clock, no I/O, no randomness; everything else executes plans.
//!
//! A saga is a [`Shape`] (who waits for whom, what can be undone), a [`Progress`] (where each step stands) and tasks, each
//! a [`Try`]. An [`Event`] is a task that came back from a worker: called, or met by an interrupt. [`plan`] folds the
//! events of one saga into what must be written, all at once.
//!
//! Forward, an action runs when every step it waits for is done. Backward, a compensation runs when no action runs any
//! more and every step that waits for its step is undone or never took effect (Garcia-Molina and Salem, *Sagas*, 1987,
//! in any partial order). A pivot is a point of no return: from its success on the saga only goes forward.

use std::time::Duration;

use crate::event::{Event, Fault, Interrupt, Op, Try};
use crate::graph::Shape;
use crate::outcome::Outcome;
use crate::progress::{Progress, State};

/// How long to wait before a try. The durations themselves come from the worker.
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

/// What becomes of an event's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Its op is over.
    Gone,
    /// Another try of the same op, later.
    Again {
        /// The next try.
        next: Try,
        /// When.
        wait: Wait,
        /// The saga turns back as soon as this op, a pivot that was called, has definitely failed. The next task bears
        /// [`Interrupt::Turn`].
        awaited: bool,
    },
    /// A person is needed.
    Stick {
        /// The try that a person's retry would make.
        next: Try,
        /// What for.
        why: Why,
    },
}

/// How a saga ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// All done.
    Succeeded,
    /// All undone.
    Failed,
    /// As a person decided.
    Decided,
}

/// What a settle must write for the events of one saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where each step stands afterwards.
    pub progress: Progress,
    /// What becomes of each event's task, in the order of the events.
    pub tasks: Vec<Then>,
    /// First tries of the ops that are ready now.
    pub queued: Vec<Try>,
    /// It goes backward from here on.
    pub turned: bool,
    /// Why it turns back, or will unless its pivot succeeds: by which event, and what for. `None` also where it was asked
    /// to before.
    pub turns: Option<(usize, Why)>,
    /// It is over.
    pub ends: Option<End>,
}

/// Why a saga turns back or sticks; the reason starts with the step's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// A definite refusal: the participant's words follow.
    Refused,
    /// The limit is used up: `retry limit N reached`, as DTM says it.
    RetryLimit(u32),
    /// The deadline passed: `timeout after N seconds`, as DTM says it.
    Timeout,
    /// It cannot be called at all.
    Fault(Fault),
}

/// Events that cannot belong to this saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The progress is of another number of steps.
    #[error("a progress of {told} steps for a saga with {steps} steps")]
    Progress {
        /// How many steps it tells of.
        told: usize,
        /// How many there are.
        steps: usize,
    },
    /// No such step.
    #[error("step {step} of a saga with {steps} steps")]
    Step {
        /// The step asked for, from 1.
        step: usize,
        /// How many there are.
        steps: usize,
    },
    /// The step's op is not running.
    #[error("a {} of step {step}, which is {state:?}", op.as_str())]
    NotRunning {
        /// The step, from 1.
        step: usize,
        /// The op that came back.
        op: Op,
        /// Where the step stands.
        state: State,
    },
}

/// Whether a claimed task may be called. If not, it goes straight to [`plan`].
pub fn may_call(shape: &Shape, event: &Event) -> bool {
    if event.fault.is_some() {
        return false;
    }
    match (event.interrupt, event.now.op) {
        (Some(Interrupt::Skip | Interrupt::End), _) => false,
        (Some(Interrupt::Turn), Op::Action) => is_awaited(shape, event.now),
        (None, Op::Action) => !event.overdue || is_awaited(shape, event.now),
        (Some(Interrupt::Turn) | None, Op::Compensate) => true,
    }
}

/// A pivot that was called and may have taken effect: nothing is undone before its definite outcome (RACES 13).
fn is_awaited(shape: &Shape, now: Try) -> bool {
    shape.pivot() == Some(now.step) && now.op == Op::Action && now.may_have_happened()
}

/// A refusal after an unknown try is asked once more before it counts: a service that answers 409 while the first try
/// still runs would otherwise abort a payment in progress (RACES 14).
fn must_confirm(now: Try) -> bool {
    now.unknown_before && now.last != Some(Outcome::Failure)
}

/// What one event says by itself.
enum Verdict {
    /// The op succeeded, or counts as if it had.
    Success,
    /// The action is over without a success, which turns the saga back.
    Failed { doubtful: bool, why: Why },
    /// Another try, unless the saga turns back: then the action is over as it stands.
    Again { next: Try, wait: Wait },
    /// A person is needed.
    Stick { next: Try, why: Why },
    /// A person ended the saga; the answer is recorded.
    Ended { state: State },
}

/// Decides what follows from `events`, all of one saga.
///
/// # Errors
/// [`Illegal`] when a task does not fit the saga: someone changed its rows by hand.
pub fn plan(shape: &Shape, before: &Progress, events: &[Event]) -> Result<Plan, Illegal> {
    if before.steps.len() != shape.count() {
        return Err(Illegal::Progress { told: before.steps.len(), steps: shape.count() });
    }
    for event in events {
        check(shape, before, event)?;
    }
    let mut progress = before.clone();
    let pivot_passed =
        |progress: &Progress| shape.pivot().is_some_and(|pivot| progress.steps[pivot] == State::Done);
    // The pivot and what comes after it never run together, so the progress before the events tells the phase of each.
    let forward_only = pivot_passed(before);
    let verdicts: Vec<Verdict> = events.iter().map(|event| judge(shape, forward_only, event)).collect();

    let mut turns = None;
    let mut ended = false;
    for (index, (event, verdict)) in events.iter().zip(&verdicts).enumerate() {
        let state = &mut progress.steps[event.now.step];
        match verdict {
            Verdict::Success if event.now.op == Op::Action => *state = State::Done,
            Verdict::Success => *state = State::Undone,
            Verdict::Failed { doubtful, why } => {
                *state = if *doubtful { State::Doubtful } else { State::Void };
                turns = turns.or(Some((index, *why)));
            }
            Verdict::Stick { .. } if event.now.op == Op::Action => *state = State::StuckActing,
            Verdict::Stick { .. } => *state = State::StuckUndoing,
            Verdict::Ended { state: reached } => {
                *state = *reached;
                ended = true;
            }
            Verdict::Again { .. } => {}
        }
        if event.interrupt == Some(Interrupt::Turn) {
            progress.requested = true;
        }
    }
    let overdue = events.iter().position(|event| event.overdue && event.now.op == Op::Action);
    turns = turns.or(overdue.map(|index| (index, Why::Timeout)));
    // The first reason stays.
    if ended || progress.requested || pivot_passed(&progress) {
        turns = None;
    } else if turns.is_some() {
        progress.requested = true;
    }
    let awaited = events.iter().zip(&verdicts).any(|(_, verdict)| match verdict {
        Verdict::Again { next, .. } | Verdict::Stick { next, .. } => is_awaited(shape, *next),
        Verdict::Success | Verdict::Failed { .. } | Verdict::Ended { .. } => false,
    });
    let turned = !ended && !awaited && is_turned(shape, &progress);

    let mut tasks = Vec::with_capacity(events.len());
    for verdict in verdicts {
        tasks.push(match verdict {
            Verdict::Again { next, .. } | Verdict::Stick { next, .. } if turned && next.op == Op::Action => {
                progress.steps[next.step] =
                    if next.may_have_happened() { State::Doubtful } else { State::Void };
                Then::Gone
            }
            Verdict::Again { next, wait } => {
                Then::Again { next, wait, awaited: awaited && progress.requested }
            }
            Verdict::Stick { next, why } => Then::Stick { next, why },
            Verdict::Success | Verdict::Failed { .. } | Verdict::Ended { .. } => Then::Gone,
        });
    }
    let (queued, ends) = if ended {
        (Vec::new(), (!progress.is_running()).then_some(End::Decided))
    } else if turned {
        go_back(shape, &mut progress)
    } else {
        go_on(shape, &mut progress)
    };
    // A request that waited for the pivot has not turned anything yet.
    let pivot_ran = shape.pivot().is_some_and(|pivot| before.steps[pivot] == State::Acting);
    let turned = turned && (pivot_ran || !is_turned(shape, before));
    Ok(Plan { progress, tasks, queued, turned, turns, ends })
}

fn check(shape: &Shape, progress: &Progress, event: &Event) -> Result<(), Illegal> {
    let step = event.now.step;
    let Some(&state) = progress.steps.get(step) else {
        return Err(Illegal::Step { step: step.saturating_add(1), steps: shape.count() });
    };
    let running = match event.now.op {
        Op::Action => State::Acting,
        Op::Compensate => State::Undoing,
    };
    if state != running {
        return Err(Illegal::NotRunning { step: step + 1, op: event.now.op, state });
    }
    Ok(())
}

fn judge(shape: &Shape, forward_only: bool, event: &Event) -> Verdict {
    let now = event.now;
    let next = now.after(event.outcome);
    match event.interrupt {
        Some(Interrupt::Skip) => return Verdict::Success,
        Some(Interrupt::End) => {
            let state = match (now.op, event.outcome) {
                (Op::Action, Some(Outcome::Success)) => State::Done,
                (Op::Compensate, Some(Outcome::Success)) => State::Undone,
                (Op::Action, _) if !next.may_have_happened() => State::Void,
                _ => State::Doubtful,
            };
            return Verdict::Ended { state };
        }
        Some(Interrupt::Turn) | None => {}
    }
    match (now.op, event.outcome) {
        (_, Some(Outcome::Success)) => Verdict::Success,
        (_, None) => match event.fault {
            Some(fault) => Verdict::Stick { next, why: Why::Fault(fault) },
            // Only an action of a saga that turns back comes here uncalled.
            None => Verdict::Again { next, wait: Wait::Interval },
        },
        (_, Some(Outcome::Ongoing)) => Verdict::Again { next, wait: Wait::Interval },
        (_, Some(Outcome::Failure)) if must_confirm(now) => Verdict::Again { next, wait: Wait::Interval },
        (Op::Action, Some(Outcome::Failure)) if forward_only => Verdict::Stick { next, why: Why::Refused },
        (Op::Action, Some(Outcome::Failure)) => {
            Verdict::Failed { doubtful: next.unknown_before, why: Why::Refused }
        }
        (Op::Compensate, Some(Outcome::Failure)) => Verdict::Stick { next, why: Why::Refused },
        (op, Some(Outcome::Unknown | Outcome::Unsent)) => match retry_limit(shape, forward_only, next) {
            Some(limit) if next.counted > limit => {
                let why = Why::RetryLimit(limit);
                match op {
                    Op::Action => Verdict::Failed { doubtful: next.may_have_happened(), why },
                    Op::Compensate => Verdict::Stick { next, why },
                }
            }
            _ => Verdict::Again { next, wait: Wait::Backoff { counted: next.counted } },
        },
    }
}

/// The limit on the retries of an op whose next try would be `next`. After the pivot has succeeded
/// (`forward_only`), and for a pivot that may have taken effect, there is none.
pub fn retry_limit(shape: &Shape, forward_only: bool, next: Try) -> Option<u32> {
    match next.op {
        Op::Action if forward_only || is_awaited(shape, next) => None,
        Op::Action => shape.retry_limit(next.step),
        Op::Compensate => shape.compensate_retry_limit(next.step),
    }
}

/// Whether the saga goes backward: it was asked to, and its pivot neither stands nor runs. (While the pivot runs nothing
/// else does, so its own event decides.)
fn is_turned(shape: &Shape, progress: &Progress) -> bool {
    progress.requested && shape.pivot().is_none_or(|pivot| progress.steps[pivot] != State::Done)
}

/// Starts every compensation that is ready; the saga has failed when none is left.
fn go_back(shape: &Shape, progress: &mut Progress) -> (Vec<Try>, Option<End>) {
    for state in &mut progress.steps {
        // It killed workers, or a person left it: what it did is not known.
        if *state == State::StuckActing {
            *state = State::Doubtful;
        }
    }
    let mut queued = Vec::new();
    // What is in flight ends first: one failure, one unwind.
    if progress.steps.contains(&State::Acting) {
        return (queued, None);
    }
    for index in shape.backward() {
        let waits = shape.successors(index).iter().any(|&after| !progress.steps[after].is_settled());
        if !matches!(progress.steps[index], State::Done | State::Doubtful) || waits {
            continue;
        }
        if shape.has_compensation(index) {
            progress.steps[index] = State::Undoing;
            queued.push(Try::first(index, Op::Compensate));
        } else {
            progress.steps[index] = State::Undone;
        }
    }
    let over = progress.steps.iter().all(|state| state.is_settled());
    (queued, over.then_some(End::Failed))
}

/// Starts every action that is ready; the saga has succeeded when all are done.
fn go_on(shape: &Shape, progress: &mut Progress) -> (Vec<Try>, Option<End>) {
    let mut queued = Vec::new();
    for index in 0..shape.count() {
        let ready = progress.steps[index] == State::Waiting
            && shape.after(index).iter().all(|&before| progress.steps[before] == State::Done);
        if ready {
            progress.steps[index] = State::Acting;
            queued.push(Try::first(index, Op::Action));
        }
    }
    let over = progress.steps.iter().all(|state| *state == State::Done);
    (queued, over.then_some(End::Succeeded))
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
