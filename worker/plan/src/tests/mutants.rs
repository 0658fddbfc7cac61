//! Planners broken on purpose: each changes what the real one hears or says.

use super::super::*;
use crate::Rules;

type Planned = Result<Plan, Illegal>;

/// Hears something else.
fn heard(shape: &Shape, before: &Progress, events: &[Event], change: impl Fn(&mut Event)) -> Planned {
    let mut events = events.to_vec();
    events.iter_mut().for_each(change);
    plan(shape, before, &events)
}

fn next_of(then: &mut Then) -> Option<&mut Try> {
    match then {
        Then::Again { next, .. } => Some(next),
        Then::Gone | Then::Stick { .. } => None,
    }
}

/// Starts `op` of every step that `ready` picks.
fn start(planned: &mut Plan, op: Op, ready: impl Fn(usize, State) -> bool) {
    for step in 0..planned.progress.steps.len() {
        if ready(step, planned.progress.steps[step]) {
            planned.progress.steps[step] = if op == Op::Action { State::Acting } else { State::Undoing };
            planned.queued.push(Try::first(step, op));
        }
    }
}

pub(super) fn takes_no_answer_after_an_abort(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    match events.iter().find(|event| event.interrupt == Some(Interrupt::Turn)) {
        Some(event) => {
            let Try { step, op, .. } = event.now;
            Err(Illegal::NotRunning { step: step + 1, op, state: before.steps[step] })
        }
        None => plan(shape, before, events),
    }
}

pub(super) fn drops_retries(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.tasks.iter_mut().for_each(|then| *then = Then::Gone);
    Ok(planned)
}

pub(super) fn ends_where_it_turns(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.ends = planned.ends.or(planned.turned.then_some(End::Failed));
    Ok(planned)
}

pub(super) fn starts_all_steps(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    if !planned.progress.requested {
        start(&mut planned, Op::Action, |_, state| state == State::Waiting);
    }
    Ok(planned)
}

pub(super) fn undoes_all_at_once(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    if planned.turned {
        start(&mut planned, Op::Compensate, |_, state| matches!(state, State::Done | State::Doubtful));
    }
    Ok(planned)
}

pub(super) fn starts_one_of_many(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    for late in planned.queued.drain(1.min(planned.queued.len())..) {
        planned.progress.steps[late.step] =
            if late.op == Op::Action { State::Waiting } else { before.steps[late.step] };
    }
    Ok(planned)
}

pub(super) fn starts_what_runs(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    let others = |step| events.iter().all(|event| event.now.step != step);
    start(&mut planned, Op::Action, |step, state| state == State::Acting && others(step));
    Ok(planned)
}

pub(super) fn takes_a_failure_for_success(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.ends = planned.ends.map(|_| End::Succeeded);
    Ok(planned)
}

/// RACES 3.
pub(super) fn forgets_what_is_ongoing(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| {
        if event.interrupt == Some(Interrupt::Turn) {
            event.now.last = event.now.last.filter(|last| *last != Outcome::Ongoing);
            event.outcome = event.outcome.filter(|outcome| *outcome != Outcome::Ongoing);
        }
    })
}

pub(super) fn forgets_what_is_unknown(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| {
        if event.interrupt == Some(Interrupt::Turn) {
            event.now.unknown_before = false;
            event.outcome = event.outcome.filter(|outcome| *outcome != Outcome::Unknown);
        }
    })
}

pub(super) fn undoes_what_was_refused(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    if planned.turned {
        planned.ends = None;
        start(&mut planned, Op::Compensate, |_, state| state == State::Void);
    }
    Ok(planned)
}

pub(super) fn asks_again_after_success(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    for (event, then) in events.iter().zip(&mut planned.tasks) {
        if event.outcome == Some(Outcome::Success) {
            let next = event.now.again(Outcome::Success);
            *then = Then::Again { next, wait: Wait::Interval, awaited: false };
            (planned.ends, planned.progress) = (None, before.clone());
        }
    }
    Ok(planned)
}

pub(super) fn numbers_from_one_again(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.tasks.iter_mut().filter_map(next_of).for_each(|next| next.attempt = 1);
    Ok(planned)
}

pub(super) fn does_not_pass_on_what_is_unknown(
    shape: &Shape,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.tasks.iter_mut().filter_map(next_of).for_each(|next| next.unknown_before = false);
    Ok(planned)
}

pub(super) fn counts_what_is_ongoing(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.tasks.iter_mut().filter_map(next_of).for_each(|next| next.counted = next.attempt - 1);
    Ok(planned)
}

pub(super) fn turns_at_every_step_back(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    planned.turned = planned.progress.requested;
    Ok(planned)
}

pub(super) fn undoes_beside_running_actions(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut alone = before.clone();
    for (step, state) in alone.steps.iter_mut().enumerate() {
        if *state == State::Acting && events.iter().all(|event| event.now.step != step) {
            *state = State::StuckUndoing;
        }
    }
    let mut planned = plan(shape, &alone, events)?;
    for (now, before) in planned.progress.steps.iter_mut().zip(&before.steps) {
        if *now == State::StuckUndoing {
            *now = *before;
        }
    }
    Ok(planned)
}

/// RACES 13.
pub(super) fn awaits_no_pivot(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let stands = events.iter().any(|event| event.outcome == Some(Outcome::Success));
    if stands { plan(shape, before, events) } else { knows_no_pivot(shape, before, events) }
}

pub(super) fn knows_no_pivot(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let rules = (0..shape.count()).map(|step| Rules {
        has_compensation: shape.has_compensation(step),
        retry_limit: shape.retry_limit(step),
        compensate_retry_limit: shape.compensate_retry_limit(step),
    });
    plan(&Shape::sequential(rules.collect(), None), before, events)
}

pub(super) fn loses_a_success(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    if planned.ends.is_none() {
        let done = planned.progress.steps.iter_mut().filter(|state| **state == State::Done);
        done.for_each(|state| *state = State::Doubtful);
    }
    Ok(planned)
}

pub(super) fn turns_in_silence_after_a_request(
    shape: &Shape,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let planned = plan(shape, before, events)?;
    Ok(Plan { turned: planned.turned && !before.requested, ..planned })
}

pub(super) fn sticks_for_another_reason(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    for then in &mut planned.tasks {
        if let Then::Stick { why, .. } = then {
            *why = Why::Fault(Fault::Killer);
        }
    }
    Ok(planned)
}

pub(super) fn takes_unbuildable_for_refused(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| {
        if event.fault == Some(Fault::Unbuildable) {
            (event.now.last, event.now.unknown_before) = (None, false);
            (event.outcome, event.fault) = (Some(Outcome::Failure), None);
        }
    })
}

pub(super) fn turns_without_a_reason(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    Ok(Plan { turns: None, ..plan(shape, before, events)? })
}

pub(super) fn gives_a_second_reason(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(shape, before, events)?;
    let refused = events.iter().position(|event| event.outcome == Some(Outcome::Failure));
    planned.turns = planned.turns.or(refused.map(|index| (index, Why::Refused)));
    Ok(planned)
}

pub(super) fn does_not_hear_an_abort(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| {
        if event.outcome == Some(Outcome::Success) {
            event.interrupt = None;
        }
    })
}

pub(super) fn knows_no_limit(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    let planned = plan(shape, before, events)?;
    let [Event { now, outcome: Some(outcome), .. }] = events else { return Ok(planned) };
    if !matches!(planned.turns, Some((_, Why::RetryLimit(_)))) {
        return Ok(planned);
    }
    let again = Then::Again { next: now.again(*outcome), wait: Wait::Interval, awaited: false };
    let (progress, tasks) = (before.clone(), vec![again]);
    Ok(Plan { progress, tasks, queued: vec![], turned: false, turns: None, ends: None })
}

pub(super) fn gives_up_at_once(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| {
        if matches!(event.outcome, Some(Outcome::Unknown | Outcome::Unsent)) {
            event.now.counted += 9;
        }
    })
}

/// RACES 14.
pub(super) fn believes_the_first_refusal(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| {
        if event.outcome == Some(Outcome::Failure) {
            event.now.last = Some(Outcome::Failure);
        }
    })
}

pub(super) fn does_not_hear_the_deadline(shape: &Shape, before: &Progress, events: &[Event]) -> Planned {
    heard(shape, before, events, |event| event.overdue = false)
}
