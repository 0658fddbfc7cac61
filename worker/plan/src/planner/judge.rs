//! What one event says by itself.

use super::plan::{AbortCause, Wait};
use crate::completion::{Completion, TaskWait};
use crate::event::{Attempt, Event, Interrupt, Op};
use crate::graph::{ActionKind, StepGraph};
use crate::outcome::Outcome;
use crate::progress::State;

/// A pivot that was called and may have taken effect, or a workflow, which rolls back by itself.
/// Nothing is compensated before the definite outcome is known (docs/races.md, R13).
pub(super) fn is_awaited(graph: &StepGraph, now: Attempt) -> bool {
    // control: pivot-awaited
    graph.pivot() == Some(now.step) && now.op == Op::Action && is_open(graph, now)
}

fn is_open(graph: &StepGraph, now: Attempt) -> bool {
    now.may_have_taken_effect() || graph.action(now.step) == ActionKind::Workflow
}

/// A refusal after an unknown attempt is asked once more before it counts. A service that answers
/// 409 while the first attempt still runs would otherwise abort a payment in progress
/// (docs/races.md, R14).
fn must_confirm(now: Attempt) -> bool {
    // control: refusal-asked-again
    now.unknown_before && now.last != Some(Outcome::Failure)
}

/// What one event says by itself.
pub(super) enum Verdict {
    /// The op succeeded, or counts as a success.
    Success,
    /// The action is over without a success, which aborts the saga.
    Failed { maybe_done: bool, why: AbortCause },
    /// Another attempt follows, unless the saga unwinds: then the action is over as it is.
    Retry { next: Attempt, wait: Wait },
    /// The wait goes on, unless the saga unwinds: then the action is over as it is.
    Waits { now: Attempt },
    /// A person must decide.
    Stuck { next: Attempt, why: AbortCause },
    /// A person ended the saga; the outcome is recorded.
    Ended { state: State },
}

/// The attempt of a task that is queued now. The beginning of a wait is an attempt by itself, which
/// ends `ongoing`: from then on the world may act. `queued` is the op's first attempt, or the next
/// one where a person retries.
pub fn begin(graph: &StepGraph, queued: Attempt) -> Attempt {
    let waits = queued.op == Op::Action && graph.action(queued.step) == ActionKind::Wait;
    queued.after(waits.then_some(Outcome::Ongoing))
}

/// The attempt that follows `now`, which ended with `outcome`. An attempt that calls nobody, or
/// only asks, leaves nothing unknown.
pub fn attempt_after(graph: &StepGraph, now: Attempt, outcome: Option<Outcome>) -> Attempt {
    let next = now.after(outcome);
    if now.op == Op::Action && !graph.action(now.step).leaves_unknown() {
        return Attempt { unknown_before: false, last: None, ..next };
    }
    next
}

/// The outcomes that a settle records for `event`, in this order: how the call or the wait ended,
/// and what the completion says.
pub fn recorded(graph: &StepGraph, event: &Event) -> [Option<Outcome>; 2] {
    let ended = answer(graph, event).or_else(|| wait_ended(graph, event).then_some(Outcome::Unknown));
    [ended, event.completion.map(Completion::outcome)]
}

/// How the call ended. What `query_prepared` answers after somebody has aborted or ended the saga
/// decides nothing, and is not recorded.
fn answer(graph: &StepGraph, event: &Event) -> Option<Outcome> {
    let is_gate =
        event.now.op == Op::Action && matches!(graph.action(event.now.step), ActionKind::Gate { .. });
    let is_closed = event.interrupt.is_some() && event.completion.is_none();
    event.outcome.filter(|_| !(is_gate && is_closed))
}

/// A waiting step's wait ended, and nothing else ends it.
fn wait_ended(graph: &StepGraph, event: &Event) -> bool {
    event.wait == TaskWait::Over
        && event.now.op == Op::Action
        && graph.action(event.now.step) == ActionKind::Wait
        && event.completion.is_none()
        && event.fault.is_none()
        && !matches!(event.interrupt, Some(Interrupt::Skip | Interrupt::End))
}

/// The call succeeded, and its completion says that nothing was done.
fn is_contradicted(event: &Event) -> bool {
    event.outcome == Some(Outcome::Success) && event.completion == Some(Completion::Failure)
}

/// The attempt after everything that the event records.
fn next_attempt(graph: &StepGraph, event: &Event) -> Attempt {
    let [ended, completion] = recorded(graph, event);
    let next = attempt_after(graph, attempt_after(graph, event.now, ended), completion);
    let leaves_unknown = event.now.op == Op::Compensate || graph.action(event.now.step).leaves_unknown();
    let in_doubt = is_contradicted(event) && leaves_unknown;
    Attempt { unknown_before: next.unknown_before || in_doubt, ..next }
}

pub(super) fn judge(graph: &StepGraph, forward_only: bool, event: &Event) -> Verdict {
    let now = event.now;
    let next = next_attempt(graph, event);
    match event.interrupt {
        // control: skip-decides
        Some(Interrupt::Skip) => return Verdict::Success,
        Some(Interrupt::End) => return Verdict::Ended { state: ended_state(graph, event, next) },
        Some(Interrupt::Unwind) | None => {}
    }
    if let Some(completion) = event.completion {
        return judge_completion(graph, forward_only, event, completion);
    }
    match (now.op, answer(graph, event)) {
        (_, Some(Outcome::Success)) => Verdict::Success,
        (_, None) => judge_uncalled(graph, forward_only, event, next),
        (_, Some(Outcome::Ongoing)) => Verdict::Retry { next, wait: Wait::Interval },
        (_, Some(Outcome::Failure)) if must_confirm(now) => Verdict::Retry { next, wait: Wait::Interval },
        (Op::Action, Some(Outcome::Failure)) if forward_only => {
            Verdict::Stuck { next, why: AbortCause::Refused }
        }
        (Op::Action, Some(Outcome::Failure)) => refused(graph, next),
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

/// A definite refusal. In doubt, or where the saga compensates refused steps, the step is
/// compensated.
fn refused(graph: &StepGraph, next: Attempt) -> Verdict {
    // control: refused-in-doubt
    let maybe_done = next.unknown_before || graph.compensate_failed();
    Verdict::Failed { maybe_done, why: AbortCause::Refused }
}

/// The state of an op in a saga that a person ended.
fn ended_state(graph: &StepGraph, event: &Event, next: Attempt) -> State {
    let success = event.completion.map_or(answer(graph, event), |completion| Some(completion.outcome()));
    match (event.now.op, success) {
        (Op::Action, Some(Outcome::Success)) => State::Done,
        (Op::Compensate, Some(Outcome::Success)) => State::Undone,
        (Op::Action, _) if !next.may_have_taken_effect() => State::NoEffect,
        _ => State::MaybeDone,
    }
}

/// The completion decides, whatever the call came to: it came first.
fn judge_completion(graph: &StepGraph, forward_only: bool, event: &Event, completion: Completion) -> Verdict {
    let next = next_attempt(graph, event);
    let is_contradicted = is_contradicted(event);
    let is_pivot = graph.pivot() == Some(next.step);
    let why = if is_contradicted { AbortCause::Contradicted } else { AbortCause::Refused };
    match (completion, next.op) {
        (Completion::Success, _) => Verdict::Success,
        (Completion::Failure, Op::Action) if forward_only || is_contradicted && is_pivot => {
            Verdict::Stuck { next, why }
        }
        (Completion::Failure, Op::Action) => refused(graph, next),
        (Completion::Failure, Op::Compensate) => Verdict::Stuck { next, why },
    }
}

/// Nobody was called.
fn judge_uncalled(graph: &StepGraph, forward_only: bool, event: &Event, next: Attempt) -> Verdict {
    let action = graph.action(event.now.step);
    match (event.fault, event.wait) {
        (Some(fault), _) => Verdict::Stuck { next, why: AbortCause::Fault(fault) },
        (None, TaskWait::Pending) => Verdict::Waits { now: event.now },
        (None, TaskWait::Over) if event.now.op == Op::Action && action == ActionKind::Wait => {
            let why = AbortCause::NoCompletion;
            if forward_only || graph.pivot() == Some(next.step) {
                Verdict::Stuck { next, why }
            } else {
                Verdict::Failed { maybe_done: true, why }
            }
        }
        (None, TaskWait::Over) if action == (ActionKind::Gate { asks: false }) => {
            Verdict::Failed { maybe_done: false, why: AbortCause::Timeout }
        }
        // Only an action of a saga that unwinds comes here without a call.
        (None, TaskWait::None | TaskWait::Over) => Verdict::Retry { next, wait: Wait::Interval },
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

/// The outcome of an attempt whose request cannot be built, as
/// [`Attempt::unbuildable`](crate::Attempt::unbuildable) says. `None` also for a gate and for a
/// workflow: that the question cannot be asked says nothing about its answer.
pub fn unbuildable(graph: &StepGraph, now: Attempt) -> Option<Outcome> {
    let asks = now.op == Op::Action && !graph.action(now.step).leaves_unknown();
    now.unbuildable().filter(|_| !asks)
}
