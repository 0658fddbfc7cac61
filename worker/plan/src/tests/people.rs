//! What needs a person, and what a person decides.

use super::super::Outcome::*;
use super::super::*;
use super::told::{Saga, saga};

fn sticks(plan: &Plan, why: AbortCause) -> bool {
    matches!(plan.tasks[..], [TaskPlan::Stuck { why: told, .. }] if told == why)
}

#[test]
fn a_refused_compensation_is_stuck_and_remembers_its_next_try() {
    for told in ["a > b", "a, b after a"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.answers("b", Failure);
        saga.answers("a", Unsent);
        let plan = saga.answers("a", Failure);
        let [TaskPlan::Stuck { next, why: AbortCause::Refused }] = plan.tasks[..] else { panic!("{plan:?}") };
        assert_eq!((next.attempt, next.last, plan.ends), (3, Some(Failure), None), "{told}");
    }
}

#[test]
fn a_stuck_compensation_holds_up_what_it_waits_for_and_nothing_else() {
    let mut saga = saga("a, b after a, c, d after b c");
    saga.all_answer(&[("a", Success), ("c", Success)]);
    saga.answers("b", Success);
    saga.answers("d", Failure);
    assert_eq!(saga.tasks(), "~b1 ~c1");
    assert!(sticks(&saga.answers("b", Failure), AbortCause::Refused));
    assert_eq!(saga.answers("c", Success).ends, None);
    assert_eq!((saga.tasks().as_str(), saga.progress().as_str()), ("", "dxuv"));
}

#[test]
fn a_stuck_action_stops_no_independent_one() {
    let mut saga = saga("a, b, c after b");
    let killer = Event { fault: Some(Fault::Poison), ..saga.event("a", None) };
    assert!(sticks(&saga.settles(&[killer]), AbortCause::Fault(Fault::Poison)));
    saga.answers("b", Success);
    assert_eq!(saga.tasks(), "c1");
    let plan = saga.answers("c", Success);
    assert_eq!((plan.ends, saga.progress()), (None, "sdd".to_owned()));
}

#[test]
fn a_stuck_action_is_undone_when_another_step_turns_the_saga() {
    let mut saga = saga("a, b, c after b");
    let killer = Event { fault: Some(Fault::Poison), ..saga.event("a", None) };
    saga.settles(&[killer]);
    assert!(saga.answers("b", Failure).unwinds);
    assert_eq!(saga.tasks(), "~a1", "what it did is not known");
}

#[test]
fn a_task_that_killed_workers_is_not_called_and_undone_if_the_saga_turns_back() {
    for told in ["a > b", "a, b after a"] {
        let mut saga = saga(told);
        saga.answers("a", Unknown);
        let killer = Event { fault: Some(Fault::Poison), ..saga.event("a", None) };
        assert!(!may_call(&saga.graph, &killer));
        saga.is_aborted();
        let killer = Event { fault: Some(Fault::Poison), ..saga.event("a", None) };
        saga.settles(&[killer]);
        assert_eq!(saga.tasks(), "~a1", "{told}");
    }
    let mut saga = saga("a > b");
    saga.answers("a", Success);
    saga.answers("b", Failure);
    let killer = Event { fault: Some(Fault::Poison), ..saga.event("a", None) };
    assert!(!may_call(&saga.graph, &killer));
    assert!(sticks(&saga.settles(&[killer]), AbortCause::Fault(Fault::Poison)));
}

/// docs/races.md, R23.
#[test]
fn a_skipped_op_counts_as_done_whatever_its_call_came_to() {
    for told in ["a > b", "a, b after a"] {
        for outcome in Outcome::ALL.map(Some).into_iter().chain([None]) {
            let mut saga = saga(told);
            saga.is_interrupted("a", Interrupt::Skip);
            assert!(!saga.may_be_called("a"));
            saga.settles(&[saga.event("a", outcome)]);
            assert_eq!(saga.tasks(), "b1", "{told}: {outcome:?}");
            saga.answers("b", Failure);
            assert_eq!(saga.tasks(), "~a1", "{told}: {outcome:?}");
            saga.is_interrupted("a", Interrupt::Skip);
            let plan = saga.settles(&[saga.event("a", outcome)]);
            assert_eq!(plan.ends, Some(SagaEnd::Failed), "{told}: {outcome:?}");
        }
    }
}

#[test]
fn a_saga_that_a_person_ended_ends_with_its_last_call() {
    let mut saga = saga("a, b, c");
    for step in ["a", "b", "c"] {
        saga.is_interrupted(step, Interrupt::End);
        assert!(!saga.may_be_called(step));
    }
    let plan = saga.all_answer(&[("a", Failure), ("b", Unknown)]);
    assert_eq!((plan.unwinds, plan.abort, plan.ends), (false, None, None));
    assert_eq!((saga.tasks().as_str(), saga.progress().as_str()), ("c1", "vma"));
    let plan = saga.answers("c", Success);
    assert_eq!((plan.queued, plan.ends), (vec![], Some(SagaEnd::Decided)));
    assert_eq!(saga.progress(), "vmd");
}

#[test]
fn a_saga_that_a_person_ended_does_not_turn_back_any_more() {
    for told in ["a > p pivot > c bare", "a, p pivot after a, c bare after p"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.is_aborted();
        saga.is_overdue();
        saga.is_interrupted("p", Interrupt::End);
        let plan = saga.answers("p", Ongoing);
        assert_eq!((plan.unwinds, plan.abort, plan.ends), (false, None, Some(SagaEnd::Decided)), "{told}");
    }
}

#[test]
fn which_tasks_may_be_called() {
    let saga = saga("a > p pivot > c bare");
    let (first, undo) = (Attempt::first(0, Op::Action), Attempt::first(0, Op::Compensate));
    let pivot = Attempt::first(1, Op::Action);
    let called = pivot.after(Some(Unknown));
    let (turn, skip, end) = (Some(Interrupt::Unwind), Some(Interrupt::Skip), Some(Interrupt::End));
    for (now, interrupt, overdue, killer, expected) in [
        (first, None, false, false, true),
        (first, None, true, false, false),
        (first, None, false, true, false),
        (first, turn, false, false, false),
        (first, skip, false, false, false),
        (first, end, false, false, false),
        (undo, None, true, false, true),
        (undo, turn, false, false, true),
        (undo, skip, false, false, false),
        (undo, end, false, false, false),
        (undo, None, false, true, false),
        (pivot, turn, false, false, false),
        (pivot, None, true, false, false),
        (called, turn, false, false, true),
        (called, None, true, false, true),
        (called, skip, false, false, false),
        (called, end, false, false, false),
        (called, None, false, true, false),
    ] {
        let fault = killer.then_some(Fault::Poison);
        let event =
            Event { now, outcome: None, interrupt, overdue, fault, completion: None, wait: TaskWait::None };
        assert_eq!(may_call(&saga.graph, &event), expected, "{event:?}");
    }
}

#[test]
fn what_does_not_fit_the_saga_is_an_error_and_not_a_panic() {
    for told in ["a > b > c", "a, b after a, c after b"] {
        let saga = saga(told);
        let before =
            Progress { steps: vec![State::Done, State::Acting, State::Waiting], abort_requested: false };
        let event = |now| Event {
            now,
            outcome: Some(Success),
            interrupt: None,
            overdue: false,
            fault: None,
            completion: None,
            wait: TaskWait::None,
        };
        let said = |now| plan(&saga.graph, &before, &[event(now)]).unwrap_err().to_string();
        assert_eq!(said(Attempt::first(3, Op::Action)), "step 4 of a saga with 3 steps");
        assert_eq!(
            said(Attempt::first(usize::MAX - 1, Op::Action)),
            format!("step {} of a saga with 3 steps", usize::MAX)
        );
        assert_eq!(said(Attempt::first(2, Op::Action)), "a action of step 3, which is Waiting");
        assert_eq!(said(Attempt::first(1, Op::Compensate)), "a compensate of step 2, which is Acting");
        let short = Progress { steps: vec![State::Acting], abort_requested: false };
        let said =
            plan(&saga.graph, &short, &[event(Attempt::first(0, Op::Action))]).unwrap_err().to_string();
        assert_eq!(said, "a progress of 1 steps for a saga with 3 steps");
    }
}

#[test]
fn every_word_and_letter_can_be_read_back() {
    for op in Op::ALL {
        assert_eq!(Op::of(op.as_str()), Some(op));
    }
    for interrupt in Interrupt::ALL {
        assert_eq!(Interrupt::of(interrupt.as_str()), Some(interrupt));
    }
    let all = Progress { steps: State::ALL.to_vec(), abort_requested: true };
    assert_eq!(Progress::parse(&all.text(), true), Some(all));
    assert_eq!(Progress::parse("dq", false), None);
}

#[test]
fn a_request_that_cannot_be_built_refuses_nothing_that_may_have_happened() {
    let now = Attempt::first(1, Op::Action);
    for (before, refuses) in [
        (vec![], true),
        (vec![Unsent], true),
        (vec![Ongoing], false),
        (vec![Ongoing, Unsent], false),
        (vec![Unknown], false),
        (vec![Unknown, Failure], false),
        (vec![Ongoing, Failure], true),
    ] {
        let tried = before.iter().fold(now, |now, outcome| now.after(Some(*outcome)));
        assert_eq!(tried.unbuildable(), refuses.then_some(Failure), "{before:?}");
    }
    for told in ["a > b", "a, b after a", "a > b pivot"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.answers("b", Ongoing);
        let unbuildable = |saga: &Saga| Event { fault: Some(Fault::Unbuildable), ..saga.event("b", None) };
        let event = unbuildable(&saga);
        let [TaskPlan::Stuck { next, why }] = saga.settles(&[event]).tasks[..] else { panic!("{told}") };
        assert_eq!(
            (next, why),
            (event.now, AbortCause::Fault(Fault::Unbuildable)),
            "{told}: no try was made"
        );
    }
}
