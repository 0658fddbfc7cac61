//! Planners broken on purpose: each changes what the real one hears or says.

use super::super::*;
use crate::StepPolicy;

pub(super) type Planned = Result<Plan, Illegal>;

/// Hears something else.
pub(super) fn heard(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
    change: impl Fn(&mut Event),
) -> Planned {
    let mut events = events.to_vec();
    events.iter_mut().for_each(change);
    plan(graph, before, &events)
}

fn next_of(then: &mut TaskPlan) -> Option<&mut Attempt> {
    match then {
        TaskPlan::Retry { next, .. } => Some(next),
        TaskPlan::Done | TaskPlan::Waits { .. } | TaskPlan::Stuck { .. } => None,
    }
}

/// Starts `op` of every step that `ready` picks.
fn start(planned: &mut Plan, op: Op, ready: impl Fn(usize, State) -> bool) {
    for step in 0..planned.progress.steps.len() {
        if ready(step, planned.progress.steps[step]) {
            planned.progress.steps[step] = if op == Op::Action { State::Acting } else { State::Undoing };
            planned.queued.push(Attempt::first(step, op));
        }
    }
}

pub(super) fn takes_no_answer_after_an_abort(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    match events.iter().find(|event| event.interrupt == Some(Interrupt::Unwind)) {
        Some(event) => {
            let Attempt { step, op, .. } = event.now;
            Err(Illegal::NotRunning { step: step + 1, op, state: before.steps[step] })
        }
        None => plan(graph, before, events),
    }
}

pub(super) fn drops_retries(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.tasks.iter_mut().for_each(|then| *then = TaskPlan::Done);
    Ok(planned)
}

pub(super) fn ends_where_it_turns(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.ends = planned.ends.or(planned.unwinds.then_some(SagaEnd::Failed));
    Ok(planned)
}

pub(super) fn starts_all_steps(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    if !planned.progress.abort_requested {
        start(&mut planned, Op::Action, |_, state| state == State::Waiting);
    }
    Ok(planned)
}

pub(super) fn undoes_all_at_once(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    if planned.unwinds {
        start(&mut planned, Op::Compensate, |_, state| matches!(state, State::Done | State::MaybeDone));
    }
    Ok(planned)
}

pub(super) fn starts_one_of_many(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    for late in planned.queued.drain(1.min(planned.queued.len())..) {
        planned.progress.steps[late.step] =
            if late.op == Op::Action { State::Waiting } else { before.steps[late.step] };
    }
    Ok(planned)
}

pub(super) fn starts_what_runs(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    let others = |step| events.iter().all(|event| event.now.step != step);
    start(&mut planned, Op::Action, |step, state| state == State::Acting && others(step));
    Ok(planned)
}

pub(super) fn takes_a_failure_for_success(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.ends = planned.ends.map(|_| SagaEnd::Succeeded);
    Ok(planned)
}

/// docs/races.md, R3.
pub(super) fn forgets_what_is_ongoing(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if event.interrupt == Some(Interrupt::Unwind) {
            event.now.last = event.now.last.filter(|last| *last != Outcome::Ongoing);
            event.outcome = event.outcome.filter(|outcome| *outcome != Outcome::Ongoing);
        }
    })
}

pub(super) fn forgets_what_is_unknown(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if event.interrupt == Some(Interrupt::Unwind) {
            event.now.unknown_before = false;
            event.outcome = event.outcome.filter(|outcome| *outcome != Outcome::Unknown);
        }
    })
}

pub(super) fn undoes_what_was_refused(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    if planned.unwinds {
        planned.ends = None;
        start(&mut planned, Op::Compensate, |_, state| state == State::NoEffect);
    }
    Ok(planned)
}

pub(super) fn asks_again_after_success(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    for (event, then) in events.iter().zip(&mut planned.tasks) {
        if event.outcome == Some(Outcome::Success) {
            let next = event.now.after(Some(Outcome::Success));
            *then = TaskPlan::Retry { next, wait: Wait::Interval, awaited: false };
            (planned.ends, planned.progress) = (None, before.clone());
        }
    }
    Ok(planned)
}

pub(super) fn numbers_from_one_again(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.tasks.iter_mut().filter_map(next_of).for_each(|next| next.attempt = 1);
    Ok(planned)
}

pub(super) fn does_not_pass_on_what_is_unknown(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.tasks.iter_mut().filter_map(next_of).for_each(|next| next.unknown_before = false);
    Ok(planned)
}

pub(super) fn counts_what_is_ongoing(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.tasks.iter_mut().filter_map(next_of).for_each(|next| next.counted = next.attempt - 1);
    Ok(planned)
}

pub(super) fn turns_at_every_step_back(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    planned.unwinds = planned.progress.abort_requested;
    Ok(planned)
}

pub(super) fn undoes_beside_running_actions(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let mut alone = before.clone();
    for (step, state) in alone.steps.iter_mut().enumerate() {
        if *state == State::Acting && events.iter().all(|event| event.now.step != step) {
            *state = State::StuckUndoing;
        }
    }
    let mut planned = plan(graph, &alone, events)?;
    for (now, before) in planned.progress.steps.iter_mut().zip(&before.steps) {
        if *now == State::StuckUndoing {
            *now = *before;
        }
    }
    Ok(planned)
}

/// docs/races.md, R13.
pub(super) fn awaits_no_pivot(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let stands = events.iter().any(|event| event.outcome == Some(Outcome::Success));
    if stands { plan(graph, before, events) } else { knows_no_pivot(graph, before, events) }
}

pub(super) fn knows_no_pivot(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let rules = (0..graph.count()).map(|step| StepPolicy {
        action: graph.action(step),
        has_compensation: graph.has_compensation(step),
        retry_limit: graph.retry_limit(step),
        compensate_retry_limit: graph.compensate_retry_limit(step),
    });
    plan(&StepGraph::sequential(rules.collect(), None), before, events)
}

pub(super) fn loses_a_success(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    if planned.ends.is_none() {
        let done = planned.progress.steps.iter_mut().filter(|state| **state == State::Done);
        done.for_each(|state| *state = State::MaybeDone);
    }
    Ok(planned)
}

pub(super) fn turns_in_silence_after_a_request(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let planned = plan(graph, before, events)?;
    Ok(Plan { unwinds: planned.unwinds && !before.abort_requested, ..planned })
}

pub(super) fn sticks_for_another_reason(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    for then in &mut planned.tasks {
        if let TaskPlan::Stuck { why, .. } = then {
            *why = AbortCause::Fault(Fault::Poison);
        }
    }
    Ok(planned)
}

pub(super) fn takes_unbuildable_for_refused(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    heard(graph, before, events, |event| {
        if event.fault == Some(Fault::Unbuildable) {
            (event.now.last, event.now.unknown_before) = (None, false);
            (event.outcome, event.fault) = (Some(Outcome::Failure), None);
        }
    })
}

pub(super) fn turns_without_a_reason(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    Ok(Plan { abort: None, ..plan(graph, before, events)? })
}

pub(super) fn gives_a_second_reason(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    let refused = events.iter().position(|event| event.outcome == Some(Outcome::Failure));
    planned.abort = planned.abort.or(refused.map(|index| (index, AbortCause::Refused)));
    Ok(planned)
}

pub(super) fn does_not_hear_an_abort(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if event.outcome == Some(Outcome::Success) {
            event.interrupt = None;
        }
    })
}

pub(super) fn knows_no_limit(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let planned = plan(graph, before, events)?;
    let [Event { now, outcome: Some(outcome), .. }] = events else { return Ok(planned) };
    if !matches!(planned.abort, Some((_, AbortCause::RetryLimit(_)))) {
        return Ok(planned);
    }
    let again = TaskPlan::Retry { next: now.after(Some(*outcome)), wait: Wait::Interval, awaited: false };
    let (progress, tasks) = (before.clone(), vec![again]);
    Ok(Plan { progress, tasks, queued: vec![], unwinds: false, abort: None, ends: None })
}

pub(super) fn gives_up_at_once(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if matches!(event.outcome, Some(Outcome::Unknown | Outcome::Unsent)) {
            event.now.counted += 9;
        }
    })
}

/// docs/races.md, R14.
pub(super) fn believes_the_first_refusal(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if event.outcome == Some(Outcome::Failure) {
            event.now.last = Some(Outcome::Failure);
        }
    })
}

pub(super) fn does_not_hear_the_deadline(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| event.overdue = false)
}
