//! The planner. It folds the events of one saga into everything that must be written for them.
//!
//! Forward, an action runs when every step it waits for is done. Backward, a compensation runs when
//! no action runs any more and every step that waits for its step is undone or had no effect
//! (Garcia-Molina and Salem, *Sagas*, 1987, for any partial order). A pivot is a point of no
//! return: once it has succeeded, the saga only goes forward.

use std::time::Duration;

mod judge;
mod plan;

use self::judge::{Verdict, is_awaited, judge};
pub use self::judge::{attempt_after, begin, recorded, retry_limit, unbuildable};
pub use self::plan::{AbortCause, Illegal, Plan, SagaEnd, TaskPlan, Wait};
use crate::completion::TaskWait;
use crate::event::{Attempt, Event, Interrupt, Op};
use crate::graph::{ActionKind, StepGraph};
use crate::progress::{Progress, State};

/// Whether a claimed task may be called. If not, it goes straight to [`plan`].
pub fn may_call(graph: &StepGraph, event: &Event) -> bool {
    // control: poison-not-called
    if event.fault.is_some() {
        return false;
    }
    if event.completion.is_some() || event.wait == TaskWait::Pending || !calls_somebody(graph, event.now) {
        return false;
    }
    match (event.interrupt, event.now.op) {
        (Some(Interrupt::Skip | Interrupt::End), _) => false,
        (Some(Interrupt::Unwind), Op::Action) => is_awaited(graph, event.now),
        (None, Op::Action) => !event.overdue || is_awaited(graph, event.now),
        (Some(Interrupt::Unwind) | None, Op::Compensate) => true,
    }
}

/// Whether the op of a task whose wait is over has somebody to call, or to ask.
fn calls_somebody(graph: &StepGraph, now: Attempt) -> bool {
    match (now.op, graph.action(now.step)) {
        (Op::Compensate, _) => true,
        (Op::Action, ActionKind::Call | ActionKind::Decision | ActionKind::Workflow) => true,
        (Op::Action, ActionKind::Gate { asks }) => asks,
        (Op::Action, ActionKind::Wait | ActionKind::Outside) => false,
    }
}

/// The progress of a saga that is inserted now, and the attempts of its first tasks.
pub fn insert(graph: &StepGraph) -> (Progress, Vec<Attempt>) {
    let state = |index| match graph.action(index) {
        ActionKind::Outside => State::Done,
        _ => State::Waiting,
    };
    let steps = (0..graph.count()).map(state).collect();
    let mut progress = Progress { steps, abort_requested: false };
    let (queued, _) = advance(graph, &mut progress);
    (progress, queued)
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
        Verdict::Retry { next: open, .. }
        | Verdict::Stuck { next: open, .. }
        | Verdict::Waits { now: open } => is_awaited(graph, *open),
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
            (Verdict::Retry { .. } | Verdict::Waits { .. }, _) => continue,
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
    let awaited = awaited && progress.abort_requested;
    match verdict {
        Verdict::Retry { next: open, .. }
        | Verdict::Stuck { next: open, .. }
        | Verdict::Waits { now: open }
            if unwinding && open.op == Op::Action =>
        {
            progress.steps[open.step] = over(open.may_have_taken_effect());
            TaskPlan::Done
        }
        Verdict::Retry { next, wait } => TaskPlan::Retry { next, wait, awaited },
        Verdict::Waits { now } => TaskPlan::Waits { now, awaited },
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
        // The action killed workers, or a person left it: its effect is not known. Or a completion
        // reported its success before its turn.
        if matches!(state, State::StuckActing | State::Reported) {
            *state = State::MaybeDone;
        }
    }
    let mut queued = Vec::new();
    // Actions in flight end first, so that one failure causes one unwind.
    if progress.steps.contains(&State::Acting) {
        return (queued, None);
    }
    // A step may have taken effect before its turn, while steps before it never ran. Only a waiting
    // step can; without one the vector stays empty.
    let mut holds_up = vec![false; if graph.waits() { graph.count() } else { 0 }];
    for index in graph.backward() {
        let waits = graph.successors(index).iter().any(|&after| {
            !progress.steps[after].is_without_effect() || holds_up.get(after).is_some_and(|holds| *holds)
        });
        if let Some(holds) = holds_up.get_mut(index) {
            *holds = waits;
        }
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
        let ready = matches!(progress.steps[index], State::Waiting | State::Reported)
            && graph.after(index).iter().all(|&before| progress.steps[before] == State::Done);
        if ready {
            progress.steps[index] = State::Acting;
            queued.push(begin(graph, Attempt::first(index, Op::Action)));
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
