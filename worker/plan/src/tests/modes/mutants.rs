//! Planners broken on purpose, a rule of waits, gates and modes each.

use super::super::super::*;
use super::super::mutants::{Planned, heard, knows_no_pivot};

fn is_wait(graph: &StepGraph, now: &Attempt) -> bool {
    now.op == Op::Action && graph.action(now.step) == ActionKind::Wait
}

fn is_gate(graph: &StepGraph, now: &Attempt) -> bool {
    now.op == Op::Action && matches!(graph.action(now.step), ActionKind::Gate { .. })
}

pub(super) fn hears_no_completion(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| event.completion = None)
}

pub(super) fn asks_again_after_a_completion(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    heard(graph, before, events, |event| {
        if event.completion == Some(Completion::Failure) && event.now.unknown_before {
            (event.completion, event.outcome) = (None, Some(Outcome::Failure));
        }
    })
}

pub(super) fn believes_a_completion_after_unknown(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    heard(graph, before, events, |event| {
        if event.completion == Some(Completion::Failure) {
            event.now.unknown_before = false;
            event.outcome = event.outcome.filter(|outcome| *outcome != Outcome::Unknown);
        }
    })
}

pub(super) fn believes_a_completion_against_the_call(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    heard(graph, before, events, |event| {
        if event.completion == Some(Completion::Failure) {
            event.outcome = event.outcome.filter(|outcome| *outcome != Outcome::Success);
        }
    })
}

pub(super) fn lets_the_call_decide(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if event.outcome.is_some_and(|outcome| outcome != Outcome::Success) {
            event.completion = None;
        }
    })
}

pub(super) fn takes_the_end_of_a_wait_for_a_refusal(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let mut planned = plan(graph, before, events)?;
    let ended = events.iter().any(|event| is_wait(graph, &event.now) && event.wait == TaskWait::Over);
    if ended && planned.unwinds {
        planned.queued.retain(|next| events.iter().all(|event| event.now.step != next.step));
        for event in events {
            planned.progress.steps[event.now.step] = State::NoEffect;
        }
        let over = planned.progress.steps.iter().all(|state| state.is_without_effect());
        planned.ends = over.then_some(SagaEnd::Failed);
    }
    Ok(planned)
}

pub(super) fn unwinds_at_the_end_of_a_pivots_wait(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let ended = |event: &Event| {
        let is_pivot = graph.pivot() == Some(event.now.step) && is_wait(graph, &event.now);
        is_pivot && event.wait == TaskWait::Over && event.completion.is_none()
    };
    if !events.iter().any(ended) {
        return plan(graph, before, events);
    }
    knows_no_pivot(graph, before, events)
}

pub(super) fn waits_for_ever(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if is_wait(graph, &event.now) && event.wait == TaskWait::Over {
            event.wait = TaskWait::Pending;
        }
    })
}

pub(super) fn ends_a_wait_that_is_claimed(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if event.wait == TaskWait::Pending && !is_gate(graph, &event.now) {
            event.wait = TaskWait::Over;
        }
    })
}

pub(super) fn begins_a_wait_without_an_attempt(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let mut planned = plan(graph, before, events)?;
    for next in planned.queued.iter_mut().filter(|next| is_wait(graph, next)) {
        *next = Attempt::first(next.step, next.op);
    }
    Ok(planned)
}

pub(super) fn forgets_what_came_before_its_turn(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let planned = plan(graph, before, events)?;
    if !planned.unwinds {
        return Ok(planned);
    }
    let mut early = before.clone();
    for state in early.steps.iter_mut().filter(|state| **state == State::Reported) {
        *state = State::Waiting;
    }
    plan(graph, &early, events)
}

pub(super) fn undoes_the_first_beside_the_last(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let mut planned = plan(graph, before, events)?;
    let waits = |step: usize, steps: &[State]| {
        graph.successors(step).iter().any(|&after| !steps[after].is_without_effect())
    };
    for step in 0..graph.count() {
        let stands = matches!(planned.progress.steps[step], State::Done | State::MaybeDone);
        if planned.unwinds && stands && !waits(step, &planned.progress.steps) {
            planned.progress.steps[step] = State::Undoing;
            planned.queued.push(Attempt::first(step, Op::Compensate));
        }
    }
    Ok(planned)
}

pub(super) fn takes_a_question_for_a_call(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    for (event, then) in events.iter().zip(&mut planned.tasks) {
        if let (TaskPlan::Retry { next, .. }, true) = (then, is_gate(graph, &event.now)) {
            *next = event.now.after(event.outcome);
        }
    }
    Ok(planned)
}

pub(super) fn opens_a_gate_at_its_end(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if is_gate(graph, &event.now) && event.wait == TaskWait::Over && event.outcome.is_none() {
            event.completion = Some(Completion::Success);
        }
    })
}

pub(super) fn closes_a_gate_that_was_submitted(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    heard(graph, before, events, |event| {
        if is_gate(graph, &event.now) && event.wait == TaskWait::Over {
            event.completion = None;
        }
    })
}

pub(super) fn opens_a_gate_after_an_abort(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    heard(graph, before, events, |event| {
        if is_gate(graph, &event.now) && event.outcome == Some(Outcome::Success) {
            event.interrupt = None;
        }
    })
}

pub(super) fn calls_what_is_done_outside(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    let mut planned = plan(graph, before, events)?;
    let outside = (0..graph.count()).find(|&step| graph.action(step) == ActionKind::Outside);
    if let (Some(step), false) = (outside, planned.progress.abort_requested) {
        planned.progress.steps[step] = State::Acting;
        planned.queued.push(Attempt::first(step, Op::Action));
        planned.ends = None;
    }
    Ok(planned)
}

pub(super) fn rolls_a_workflow_back_by_itself(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let goes_on = |event: &Event| event.outcome == Some(Outcome::Ongoing);
    let is_aborted = events.iter().any(|event| goes_on(event) && event.interrupt.is_some());
    if !is_aborted {
        return plan(graph, before, events);
    }
    Ok(Plan { unwinds: true, ..knows_no_pivot(graph, before, events)? })
}

pub(super) fn spares_what_was_refused(graph: &StepGraph, before: &Progress, events: &[Event]) -> Planned {
    plan(&graph.clone().with_compensate_failed(false), before, events)
}

pub(super) fn unwinds_a_contradicted_pivot(
    graph: &StepGraph,
    before: &Progress,
    events: &[Event],
) -> Planned {
    let is_contradicted =
        |event: &Event| event.outcome.is_some() && event.completion == Some(Completion::Failure);
    if events.iter().any(is_contradicted) {
        return knows_no_pivot(graph, before, events);
    }
    plan(graph, before, events)
}
