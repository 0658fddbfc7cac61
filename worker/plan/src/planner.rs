//! The planner. It folds the events of one saga into everything that must be written for them.
//!
//! Forward, an action runs when every step it waits for is done. Backward, a compensation runs when
//! no action runs any more and every step that waits for its step is undone or had no effect
//! (Garcia-Molina and Salem, *Sagas*, 1987, for any partial order). A pivot is a point of no
//! return: once it has succeeded, the saga only goes forward.

use std::time::Duration;

use crate::event::{Attempt, Event, Fault, Interrupt, Op};
use crate::graph::StepGraph;
use crate::outcome::Outcome;
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
        /// The next task bears [`Interrupt::Unwind`].
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

/// Whether a claimed task may be called. If not, it goes straight to [`plan`].
pub fn may_call(graph: &StepGraph, event: &Event) -> bool {
    // control: poison-not-called
    if event.fault.is_some() {
        return false;
    }
    match (event.interrupt, event.now.op) {
        (Some(Interrupt::Skip | Interrupt::End), _) => false,
        (Some(Interrupt::Unwind), Op::Action) => is_awaited(graph, event.now),
        (None, Op::Action) => !event.overdue || is_awaited(graph, event.now),
        (Some(Interrupt::Unwind) | None, Op::Compensate) => true,
    }
}

/// A pivot that was called and may have taken effect. Nothing is compensated before its definite
/// outcome is known (docs/races.md, R13).
fn is_awaited(graph: &StepGraph, now: Attempt) -> bool {
    // control: pivot-awaited
    graph.pivot() == Some(now.step) && now.op == Op::Action && now.may_have_taken_effect()
}

/// A refusal after an unknown attempt is asked once more before it counts. A service that answers
/// 409 while the first attempt still runs would otherwise abort a payment in progress
/// (docs/races.md, R14).
fn must_confirm(now: Attempt) -> bool {
    // control: refusal-asked-again
    now.unknown_before && now.last != Some(Outcome::Failure)
}

/// What one event says by itself.
enum Verdict {
    /// The op succeeded, or counts as a success.
    Success,
    /// The action is over without a success, which aborts the saga.
    Failed { maybe_done: bool, why: AbortCause },
    /// Another attempt follows, unless the saga unwinds: then the action is over as it is.
    Retry { next: Attempt, wait: Wait },
    /// A person must decide.
    Stuck { next: Attempt, why: AbortCause },
    /// A person ended the saga; the outcome is recorded.
    Ended { state: State },
}

/// Decides what follows from `events`, all of one saga.
///
/// # Errors
/// [`Illegal`] when a task does not fit the saga: somebody changed its rows by hand.
pub fn plan(graph: &StepGraph, before: &Progress, events: &[Event]) -> Result<Plan, Illegal> {
    check(graph, before, events)?;
    // The pivot never runs together with a step after it. So the progress before the events tells
    // for each of them whether the saga can only go forward.
    let forward_only = has_passed_pivot(graph, before);
    let verdicts: Vec<Verdict> = events.iter().map(|event| judge(graph, forward_only, event)).collect();
    let mut progress = before.clone();
    record(&mut progress, events, &verdicts);
    let ended = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Ended { .. }));
    let abort = abort_cause(events, &verdicts)
        .filter(|_| !ended && !progress.abort_requested && !has_passed_pivot(graph, &progress));
    progress.abort_requested |= abort.is_some();
    let awaited = verdicts.iter().any(|verdict| match verdict {
        Verdict::Retry { next, .. } | Verdict::Stuck { next, .. } => is_awaited(graph, *next),
        Verdict::Success | Verdict::Failed { .. } | Verdict::Ended { .. } => false,
    });
    let unwinding = !ended && !awaited && is_unwinding(graph, &progress);
    let tasks =
        verdicts.into_iter().map(|verdict| plan_task(verdict, &mut progress, unwinding, awaited)).collect();
    let (queued, ends) = if ended {
        (Vec::new(), (!progress.is_running()).then_some(SagaEnd::Decided))
    } else if unwinding {
        unwind(graph, &mut progress)
    } else {
        advance(graph, &mut progress)
    };
    // While a called pivot was running, a requested abort had not unwound anything yet.
    let pivot_ran = graph.pivot().is_some_and(|pivot| before.steps[pivot] == State::Acting);
    let unwinds = unwinding && (pivot_ran || !is_unwinding(graph, before));
    Ok(Plan { progress, tasks, queued, unwinds, abort, ends })
}

fn check(graph: &StepGraph, before: &Progress, events: &[Event]) -> Result<(), Illegal> {
    if before.steps.len() != graph.count() {
        return Err(Illegal::Progress { told: before.steps.len(), steps: graph.count() });
    }
    for event in events {
        let step = event.now.step;
        let Some(&state) = before.steps.get(step) else {
            return Err(Illegal::Step { step: step.saturating_add(1), steps: graph.count() });
        };
        let running = match event.now.op {
            Op::Action => State::Acting,
            Op::Compensate => State::Undoing,
        };
        if state != running {
            return Err(Illegal::NotRunning { step: step + 1, op: event.now.op, state });
        }
    }
    Ok(())
}

fn judge(graph: &StepGraph, forward_only: bool, event: &Event) -> Verdict {
    let now = event.now;
    let next = now.after(event.outcome);
    match event.interrupt {
        // control: skip-decides
        Some(Interrupt::Skip) => return Verdict::Success,
        Some(Interrupt::End) => {
            let state = match (now.op, event.outcome) {
                (Op::Action, Some(Outcome::Success)) => State::Done,
                (Op::Compensate, Some(Outcome::Success)) => State::Undone,
                (Op::Action, _) if !next.may_have_taken_effect() => State::NoEffect,
                _ => State::MaybeDone,
            };
            return Verdict::Ended { state };
        }
        Some(Interrupt::Unwind) | None => {}
    }
    match (now.op, event.outcome) {
        (_, Some(Outcome::Success)) => Verdict::Success,
        (_, None) => match event.fault {
            Some(fault) => Verdict::Stuck { next, why: AbortCause::Fault(fault) },
            // Only an action of a saga that unwinds comes here without a call.
            None => Verdict::Retry { next, wait: Wait::Interval },
        },
        (_, Some(Outcome::Ongoing)) => Verdict::Retry { next, wait: Wait::Interval },
        (_, Some(Outcome::Failure)) if must_confirm(now) => Verdict::Retry { next, wait: Wait::Interval },
        (Op::Action, Some(Outcome::Failure)) if forward_only => {
            Verdict::Stuck { next, why: AbortCause::Refused }
        }
        // control: refused-in-doubt
        (Op::Action, Some(Outcome::Failure)) => {
            Verdict::Failed { maybe_done: next.unknown_before, why: AbortCause::Refused }
        }
        (Op::Compensate, Some(Outcome::Failure)) => Verdict::Stuck { next, why: AbortCause::Refused },
        (op, Some(Outcome::Unknown | Outcome::Unsent)) => match retry_limit(graph, forward_only, next) {
            Some(limit) if next.counted > limit => {
                let why = AbortCause::RetryLimit(limit);
                match op {
                    Op::Action => Verdict::Failed { maybe_done: next.may_have_taken_effect(), why },
                    Op::Compensate => Verdict::Stuck { next, why },
                }
            }
            _ => Verdict::Retry { next, wait: Wait::Backoff { counted: next.counted } },
        },
    }
}

/// The limit on the retries of an op whose next attempt would be `next`. After the pivot has
/// succeeded (`forward_only`), and for a pivot that may have taken effect, there is none.
pub fn retry_limit(graph: &StepGraph, forward_only: bool, next: Attempt) -> Option<u32> {
    // control: pivot-retries
    let unlimited = forward_only || is_awaited(graph, next);
    match next.op {
        Op::Action => graph.retry_limit(next.step).filter(|_| !unlimited),
        Op::Compensate => graph.compensate_retry_limit(next.step),
    }
}

/// Writes what the events say about their steps.
fn record(progress: &mut Progress, events: &[Event], verdicts: &[Verdict]) {
    for (event, verdict) in events.iter().zip(verdicts) {
        let state = &mut progress.steps[event.now.step];
        *state = match (verdict, event.now.op) {
            (Verdict::Success, Op::Action) => State::Done,
            (Verdict::Success, Op::Compensate) => State::Undone,
            (Verdict::Failed { maybe_done, .. }, _) => over(*maybe_done),
            (Verdict::Stuck { .. }, Op::Action) => State::StuckActing,
            (Verdict::Stuck { .. }, Op::Compensate) => State::StuckUndoing,
            (Verdict::Ended { state }, _) => *state,
            (Verdict::Retry { .. }, _) => continue,
        };
    }
    let interrupted = events.iter().any(|event| event.interrupt == Some(Interrupt::Unwind));
    progress.abort_requested |= interrupted;
}

/// The state of an action that is over without a success.
fn over(maybe_done: bool) -> State {
    if maybe_done { State::MaybeDone } else { State::NoEffect }
}

/// The first event that aborts the saga: a failed action comes before a passed deadline.
fn abort_cause(events: &[Event], verdicts: &[Verdict]) -> Option<(usize, AbortCause)> {
    let failed = verdicts.iter().enumerate().find_map(|(index, verdict)| match verdict {
        Verdict::Failed { why, .. } => Some((index, *why)),
        _ => None,
    });
    let overdue = || events.iter().position(|event| event.overdue && event.now.op == Op::Action);
    failed.or_else(|| Some((overdue()?, AbortCause::Timeout)))
}

fn plan_task(verdict: Verdict, progress: &mut Progress, unwinding: bool, awaited: bool) -> TaskPlan {
    match verdict {
        Verdict::Retry { next, .. } | Verdict::Stuck { next, .. } if unwinding && next.op == Op::Action => {
            progress.steps[next.step] = over(next.may_have_taken_effect());
            TaskPlan::Done
        }
        Verdict::Retry { next, wait } => {
            TaskPlan::Retry { next, wait, awaited: awaited && progress.abort_requested }
        }
        Verdict::Stuck { next, why } => TaskPlan::Stuck { next, why },
        Verdict::Success | Verdict::Failed { .. } | Verdict::Ended { .. } => TaskPlan::Done,
    }
}

fn has_passed_pivot(graph: &StepGraph, progress: &Progress) -> bool {
    graph.pivot().is_some_and(|pivot| progress.steps[pivot] == State::Done)
}

/// Whether the saga goes backward: an abort was requested, and its pivot has not succeeded. (While
/// the pivot runs nothing else does, so the pivot's own event decides.)
fn is_unwinding(graph: &StepGraph, progress: &Progress) -> bool {
    progress.abort_requested && !has_passed_pivot(graph, progress)
}

/// Starts every compensation that is ready. The saga has failed when none is left.
fn unwind(graph: &StepGraph, progress: &mut Progress) -> (Vec<Attempt>, Option<SagaEnd>) {
    for state in &mut progress.steps {
        // The action killed workers, or a person left it: its effect is not known.
        if *state == State::StuckActing {
            *state = State::MaybeDone;
        }
    }
    let mut queued = Vec::new();
    // Actions in flight end first, so that one failure causes one unwind.
    if progress.steps.contains(&State::Acting) {
        return (queued, None);
    }
    for index in graph.backward() {
        let waits = graph.successors(index).iter().any(|&after| !progress.steps[after].is_without_effect());
        if !matches!(progress.steps[index], State::Done | State::MaybeDone) || waits {
            continue;
        }
        if graph.has_compensation(index) {
            progress.steps[index] = State::Undoing;
            queued.push(Attempt::first(index, Op::Compensate));
        } else {
            progress.steps[index] = State::Undone;
        }
    }
    let over = progress.steps.iter().all(|state| state.is_without_effect());
    (queued, over.then_some(SagaEnd::Failed))
}

/// Starts every action that is ready. The saga has succeeded when all are done.
fn advance(graph: &StepGraph, progress: &mut Progress) -> (Vec<Attempt>, Option<SagaEnd>) {
    let mut queued = Vec::new();
    for index in 0..graph.count() {
        let ready = progress.steps[index] == State::Waiting
            && graph.after(index).iter().all(|&before| progress.steps[before] == State::Done);
        if ready {
            progress.steps[index] = State::Acting;
            queued.push(Attempt::first(index, Op::Action));
        }
    }
    let over = progress.steps.iter().all(|state| *state == State::Done);
    (queued, over.then_some(SagaEnd::Succeeded))
}

/// The delay of `wait` before jitter.
pub fn nominal_delay(wait: Wait, interval: Duration, cap: Duration) -> Duration {
    match wait {
        Wait::Interval => interval.min(cap),
        Wait::Backoff { counted } => {
            let doublings = counted.saturating_sub(1).min(31);
            interval.saturating_mul(1u32 << doublings).min(cap)
        }
    }
}
