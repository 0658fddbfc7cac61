//! Waits and completions, a rule at a time.

use super::super::super::Outcome::{Failure, Ongoing, Success, Unknown};
use super::super::super::*;
use super::super::told::{Saga, saga};

/// The settle of a task that bears a completion; nobody was called.
fn applies(saga: &mut Saga, name: &str, completion: Completion) -> Plan {
    saga.completes(name, completion);
    saga.is_met(name)
}

#[test]
fn a_wait_begins_with_an_attempt_that_is_ongoing() {
    let mut saga = saga("a > w wait");
    let plan = saga.answers("a", Success);
    let [next] = plan.queued[..] else { panic!("{plan:?}") };
    assert_eq!((next.attempt, next.last, next.counted), (2, Some(Ongoing), 0));
    assert!(!saga.may_be_called("w"), "nobody is called");
}

#[test]
fn a_completion_ends_a_wait() {
    let mut saga = saga("w wait > b");
    applies(&mut saga, "w", Completion::Success);
    assert_eq!(saga.tasks(), "b1");
    let mut saga = self::saga("a > w wait");
    saga.answers("a", Success);
    let plan = applies(&mut saga, "w", Completion::Failure);
    assert_eq!(plan.abort, Some((0, AbortCause::Refused)));
    assert_eq!(saga.tasks(), "~a1", "a failure is definite: nothing of the wait is undone");
}

#[test]
fn a_wait_that_is_claimed_earlier_goes_back() {
    let mut saga = saga("w wait > b");
    let plan = saga.is_met("w");
    assert!(matches!(plan.tasks[..], [TaskPlan::Waits { awaited: false, .. }]), "{plan:?}");
    assert_eq!((saga.tasks().as_str(), plan.abort, plan.ends), ("w2", None, None));
}

#[test]
fn a_wait_that_ends_without_a_completion_is_in_doubt() {
    let mut saga = saga("a > w wait");
    saga.answers("a", Success);
    saga.wait_ends("w");
    assert_eq!(recorded(&saga.graph, &saga.event("w", None)), [Some(Unknown), None]);
    let plan = saga.is_met("w");
    assert_eq!(plan.abort, Some((0, AbortCause::NoCompletion)));
    assert_eq!(saga.tasks(), "~w1", "the money may arrive a second later");
}

#[test]
fn a_wait_that_an_abort_ends_is_in_doubt() {
    let mut saga = saga("a > w wait");
    saga.answers("a", Success);
    saga.is_aborted();
    saga.is_met("w");
    assert_eq!(saga.tasks(), "~w1");
}

#[test]
fn a_pivots_wait_that_ends_without_a_completion_needs_a_person() {
    for told in ["a > w wait pivot", "w pivot > v wait bare"] {
        let mut saga = saga(told);
        let name = if told.starts_with('a') { "w" } else { "v" };
        saga.answers(if told.starts_with('a') { "a" } else { "w" }, Success);
        saga.wait_ends(name);
        let plan = saga.is_met(name);
        let is_stuck = matches!(plan.tasks[..], [TaskPlan::Stuck { why: AbortCause::NoCompletion, .. }]);
        assert!(is_stuck && plan.abort.is_none() && !plan.unwinds, "{told}: {plan:?}");
    }
}

#[test]
fn an_abort_waits_for_a_pivots_wait() {
    let mut saga = saga("a > w wait pivot");
    saga.answers("a", Success);
    saga.is_aborted();
    let plan = saga.is_met("w");
    assert!(matches!(plan.tasks[..], [TaskPlan::Waits { awaited: true, .. }]), "{plan:?}");
    assert!(applies(&mut saga, "w", Completion::Failure).unwinds);
    assert_eq!(saga.tasks(), "~a1");
}

#[test]
fn a_failure_by_completion_is_never_asked_again() {
    let mut saga = saga("a > b");
    saga.answers("a", Success);
    saga.answers("b", Unknown);
    let plan = applies(&mut saga, "b", Completion::Failure);
    assert_eq!(plan.abort, Some((0, AbortCause::Refused)), "a refusal would be asked once more");
    assert_eq!(saga.tasks(), "~b1", "the unknown attempt leaves the step in doubt");
}

#[test]
fn a_success_before_its_turn_is_compensated_and_first() {
    let mut saga = saga("a > b > w wait");
    saga.is_reported("w");
    saga.answers("a", Success);
    saga.answers("b", Failure);
    assert_eq!(saga.tasks(), "~w1", "its turn never came");
    saga.answers("w", Success);
    assert_eq!(saga.tasks(), "~a1");
}

#[test]
fn a_success_before_its_turn_counts_when_its_turn_comes() {
    let mut saga = saga("a > w wait > c");
    saga.is_reported("w");
    saga.answers("a", Success);
    assert_eq!(saga.tasks(), "w2");
    saga.is_met("w");
    assert_eq!(saga.tasks(), "c1");
}

#[test]
fn a_completion_between_the_call_and_its_settle_decides() {
    for outcome in Outcome::ALL {
        let mut saga = saga("a > b");
        saga.completes("a", Completion::Success);
        saga.answers("a", outcome);
        assert_eq!(saga.tasks(), "b1", "{outcome:?}");
    }
    for (outcome, undone) in
        [(Success, "~a1"), (Unknown, "~a1"), (Failure, ""), (Ongoing, ""), (Outcome::Unsent, "")]
    {
        let mut saga = saga("a > b");
        saga.completes("a", Completion::Failure);
        assert!(saga.answers("a", outcome).unwinds);
        assert_eq!(saga.tasks(), undone, "{outcome:?}");
    }
}

#[test]
fn a_pivot_whose_completion_contradicts_its_call_needs_a_person() {
    let mut saga = saga("a > p pivot");
    saga.answers("a", Success);
    saga.completes("p", Completion::Failure);
    let plan = saga.answers("p", Success);
    let [TaskPlan::Stuck { next, why: AbortCause::Contradicted }] = plan.tasks[..] else {
        panic!("{plan:?}")
    };
    assert!(next.unknown_before && next.attempt == 3, "both are recorded: {next:?}");
}

#[test]
fn a_called_op_may_wait_in_both_directions() {
    let mut saga = saga("a > b");
    saga.accepts("a");
    assert!(!saga.may_be_called("a"), "the worker stops polling");
    saga.wait_ends("a");
    assert!(saga.may_be_called("a"), "as after ongoing");
    saga.answers("a", Success);
    saga.answers("b", Failure);
    saga.accepts("a");
    assert_eq!((saga.tasks().as_str(), saga.may_be_called("a")), ("~a2", false));
    assert_eq!(applies(&mut saga, "a", Completion::Success).ends, Some(SagaEnd::Failed));
}

#[test]
fn a_compensation_whose_completion_is_a_failure_needs_a_person() {
    let mut saga = saga("a > b");
    saga.answers("a", Success);
    saga.answers("b", Failure);
    saga.accepts("a");
    let plan = applies(&mut saga, "a", Completion::Failure);
    assert!(matches!(plan.tasks[..], [TaskPlan::Stuck { why: AbortCause::Refused, .. }]), "{plan:?}");
}

#[test]
fn a_completion_and_an_interrupt_stand_beside_each_other() {
    let mut saga = saga("w wait > b");
    saga.is_aborted();
    applies(&mut saga, "w", Completion::Success);
    assert_eq!(saga.tasks(), "~w1");
    let mut saga = self::saga("w wait > b");
    saga.is_interrupted("w", Interrupt::Skip);
    applies(&mut saga, "w", Completion::Failure);
    assert_eq!(saga.tasks(), "b1", "a person decided");
}

#[test]
fn a_refused_step_is_compensated_where_the_saga_says_so() {
    let mut saga = saga("a > b");
    saga.graph = saga.graph.with_compensate_failed(true);
    saga.answers("a", Success);
    saga.answers("b", Failure);
    assert_eq!(saga.tasks(), "~b1");
    saga.answers("b", Success);
    assert_eq!(saga.tasks(), "~a1");
}

#[test]
fn only_a_saga_with_a_wait_or_in_parallel_keeps_its_progress() {
    for (told, keeps) in [("a > b", false), ("g bare gate > a", false), ("a > w wait", true), ("a, b", true)]
    {
        assert_eq!(saga(told).graph.keeps_progress(), keeps, "{told}");
    }
}
