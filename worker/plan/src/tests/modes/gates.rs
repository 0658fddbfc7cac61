//! Gates, decisions and workflows, a rule at a time.

use super::super::super::Outcome::{Failure, Ongoing, Success, Unknown};
use super::super::super::*;
use super::super::told::{Saga, saga};

fn is_submitted(saga: &mut Saga) -> Plan {
    saga.completes("g", Completion::Success);
    saga.is_met("g")
}

#[test]
fn a_submit_opens_the_gate() {
    let mut saga = saga("g bare gate > a");
    assert_eq!(saga.tasks(), "g1", "a prepared saga has the task of its gate");
    is_submitted(&mut saga);
    assert_eq!(saga.tasks(), "a1");
}

#[test]
fn a_submit_counts_though_the_gates_end_has_passed() {
    let mut saga = saga("g bare gate > a");
    saga.wait_ends("g");
    is_submitted(&mut saga);
    assert_eq!(saga.tasks(), "a1", "it returned before the settle");
}

#[test]
fn the_end_of_a_gate_without_a_question_aborts() {
    let mut saga = saga("g bare gate > a");
    saga.wait_ends("g");
    let plan = saga.is_met("g");
    assert_eq!((plan.abort, plan.ends), (Some((0, AbortCause::Timeout)), Some(SagaEnd::Failed)));
}

#[test]
fn a_gate_with_a_question_asks_at_its_end_and_not_before() {
    let mut saga = saga("g bare asks > a");
    assert!(!saga.may_be_called("g"));
    saga.wait_ends("g");
    assert!(saga.may_be_called("g"));
    for again in [Ongoing, Unknown, Outcome::Unsent] {
        let plan = saga.answers("g", again);
        let [TaskPlan::Retry { next, .. }] = plan.tasks[..] else { panic!("{plan:?}") };
        assert_eq!((next.unknown_before, next.last), (false, None), "{again:?} leaves nothing unknown");
    }
    assert_eq!(saga.answers("g", Success).queued.len(), 1);
}

#[test]
fn a_refused_question_ends_the_saga_as_failed() {
    let mut saga = saga("g bare asks > a");
    saga.wait_ends("g");
    saga.answers("g", Unknown);
    assert_eq!(saga.answers("g", Failure).ends, Some(SagaEnd::Failed), "asked once is enough");
}

#[test]
fn an_abort_waits_for_no_question() {
    let mut saga = saga("t outside > g bare asks pivot > c bare");
    saga.wait_ends("g");
    saga.answers("g", Unknown);
    saga.is_aborted();
    assert!(saga.is_met("g").unwinds);
    assert_eq!(saga.tasks(), "~t1");
}

#[test]
fn an_answer_after_the_abort_opens_no_gate_and_is_not_recorded() {
    let mut saga = saga("g bare asks pivot > c bare");
    saga.wait_ends("g");
    saga.is_aborted();
    assert_eq!(recorded(&saga.graph, &saga.event("g", Some(Success))), [None, None]);
    assert_eq!(saga.answers("g", Success).ends, Some(SagaEnd::Failed));
}

#[test]
fn a_submit_before_the_abort_overrules_it_where_the_decision_is_the_pivot() {
    let mut saga = saga("g bare gate pivot > c bare");
    saga.is_aborted();
    is_submitted(&mut saga);
    assert_eq!(saga.tasks(), "c1");
    let mut saga = self::saga("g bare gate > a");
    saga.is_aborted();
    assert_eq!(is_submitted(&mut saga).ends, Some(SagaEnd::Failed), "a gate of a saga is no pivot");
}

#[test]
fn after_the_decision_a_refusal_needs_a_person() {
    let mut saga = saga("t > d bare decision pivot > c bare");
    saga.answers("t", Success);
    saga.answers("d", Success);
    let plan = saga.answers("c", Failure);
    assert!(matches!(plan.tasks[..], [TaskPlan::Stuck { why: AbortCause::Refused, .. }]), "{plan:?}");
}

#[test]
fn an_abort_of_a_workflow_is_noted_and_told_to_the_next_replay() {
    let mut saga = saga("w bare code pivot");
    saga.is_aborted();
    assert!(saga.may_be_called("w"), "the code rolls back by itself");
    let plan = saga.answers("w", Ongoing);
    assert!(matches!(plan.tasks[..], [TaskPlan::Retry { awaited: true, .. }]), "{plan:?}");
    assert!(!plan.unwinds, "the status stays");
    saga.completes("w", Completion::Failure);
    assert_eq!(saga.is_met("w").ends, Some(SagaEnd::Failed));
}

#[test]
fn a_question_that_cannot_be_asked_refuses_nothing() {
    for (told, refuses) in [("a", Some(Failure)), ("a asks", None), ("a code pivot", None)] {
        let saga = saga(told);
        assert_eq!(unbuildable(&saga.graph, Attempt::first(0, Op::Action)), refuses, "{told}");
    }
}
