//! The point of no return.

use super::super::Outcome::*;
use super::super::*;
use super::told::{Saga, limited, saga};

/// Where the pivot has just been queued.
fn at_the_pivot(retry_limit: Option<u32>) -> [Saga; 2] {
    ["a > p pivot > c bare", "a, p pivot after a, c bare after p"].map(|told| {
        let mut saga = limited(told, retry_limit, None);
        saga.answers("a", Success);
        assert_eq!(saga.tasks(), "p1");
        saga
    })
}

fn after_the_pivot(retry_limit: Option<u32>) -> [Saga; 2] {
    at_the_pivot(retry_limit).map(|mut saga| {
        saga.answers("p", Success);
        assert_eq!(saga.tasks(), "c1");
        saga
    })
}

#[test]
fn a_pivot_that_was_not_called_can_be_turned_back() {
    for mut saga in at_the_pivot(None) {
        saga.is_aborted();
        assert!(saga.is_met("p").unwinds);
        assert_eq!(saga.tasks(), "~a1");
    }
    for mut saga in at_the_pivot(None) {
        saga.answers("p", Unsent);
        saga.is_overdue();
        let plan = saga.is_met("p");
        assert_eq!((plan.unwinds, plan.abort), (true, Some((0, AbortCause::Timeout))));
        assert_eq!(saga.tasks(), "~a1");
    }
}

/// docs/races.md, R13.
#[test]
fn once_it_was_called_an_abort_waits_for_its_definite_outcome() {
    for first in [Unknown, Ongoing] {
        for mut saga in at_the_pivot(None) {
            saga.answers("p", first);
            saga.is_aborted();
            assert!(saga.may_be_called("p"));
            let plan = saga.answers("p", Unknown);
            assert!(matches!(plan.tasks[..], [TaskPlan::Retry { awaited: true, .. }]), "{plan:?}");
            assert!(!plan.unwinds);
            // The next task bears the request, and waits on.
            assert!(saga.may_be_called("p"));
            saga.answers("p", Failure);
            let plan = saga.answers("p", Failure);
            assert!(plan.unwinds);
            assert_eq!(plan.abort, None, "the abort's reason stays");
            assert_eq!(saga.tasks(), "~p1");
        }
    }
}

#[test]
fn an_abort_during_its_call_waits_too() {
    for mut saga in at_the_pivot(None) {
        saga.is_aborted();
        let plan = saga.answers("p", Unknown);
        assert!(matches!(plan.tasks[..], [TaskPlan::Retry { awaited: true, .. }]), "{plan:?}");
        assert_eq!((plan.unwinds, saga.tasks()), (false, "p2".to_owned()));
    }
    for mut saga in at_the_pivot(None) {
        saga.is_aborted();
        assert!(saga.answers("p", Unsent).unwinds);
        assert_eq!(saga.tasks(), "~a1");
    }
}

#[test]
fn a_deadline_waits_for_its_definite_outcome() {
    for mut saga in at_the_pivot(None) {
        saga.answers("p", Ongoing);
        saga.is_overdue();
        assert!(saga.may_be_called("p"));
        let plan = saga.answers("p", Ongoing);
        assert_eq!((plan.unwinds, plan.abort), (false, Some((0, AbortCause::Timeout))));
        let plan = saga.answers("p", Ongoing);
        assert_eq!((plan.unwinds, plan.abort), (false, None), "said once");
        let plan = saga.answers("p", Failure);
        assert_eq!((plan.unwinds, plan.abort), (true, None));
        assert_eq!(saga.tasks(), "~a1");
    }
}

#[test]
fn its_success_overrules_the_abort_and_the_deadline() {
    for mut saga in at_the_pivot(None) {
        saga.answers("p", Unknown);
        saga.is_aborted();
        saga.is_overdue();
        let plan = saga.answers("p", Success);
        assert_eq!((plan.unwinds, plan.abort), (false, None));
        assert_eq!(saga.tasks(), "c1");
        let last = Event { overdue: false, ..saga.event("c", Some(Success)) };
        assert_eq!(saga.settles(&[last]).ends, Some(SagaEnd::Succeeded));
    }
}

#[test]
fn its_retry_limit_ends_with_its_first_call() {
    for mut saga in at_the_pivot(Some(0)) {
        assert_eq!(saga.answers("p", Unsent).abort, Some((0, AbortCause::RetryLimit(0))));
        assert_eq!(saga.tasks(), "~a1");
    }
    for called in [Unknown, Ongoing] {
        for mut saga in at_the_pivot(Some(1)) {
            saga.answers("p", called);
            for _ in 0..5 {
                assert_eq!(saga.answers("p", Unknown).abort, None);
                assert_eq!(saga.answers("p", Unsent).abort, None);
            }
        }
    }
}

#[test]
fn its_refusal_turns_the_saga_and_what_may_have_happened_of_it_is_undone() {
    for mut saga in at_the_pivot(None) {
        assert_eq!(saga.answers("p", Failure).abort, Some((0, AbortCause::Refused)));
        assert_eq!(saga.tasks(), "~a1");
    }
    for mut saga in at_the_pivot(None) {
        saga.answers("p", Unknown);
        saga.answers("p", Failure);
        saga.answers("p", Failure);
        assert_eq!(saga.tasks(), "~p1");
    }
}

#[test]
fn after_its_success_a_refusal_needs_a_person() {
    for mut saga in after_the_pivot(None) {
        let plan = saga.answers("c", Failure);
        assert!(matches!(plan.tasks[..], [TaskPlan::Stuck { why: AbortCause::Refused, .. }]), "{plan:?}");
        assert_eq!((plan.unwinds, plan.abort, plan.ends), (false, None, None));
    }
    for mut saga in after_the_pivot(None) {
        saga.answers("c", Unknown);
        assert!(matches!(saga.answers("c", Failure).tasks[..], [TaskPlan::Retry { .. }]), "asked once more");
        assert!(matches!(
            saga.answers("c", Failure).tasks[..],
            [TaskPlan::Stuck { why: AbortCause::Refused, .. }]
        ));
    }
}

#[test]
fn after_its_success_steps_are_retried_for_ever() {
    for mut saga in after_the_pivot(Some(0)) {
        for _ in 0..20 {
            let plan = saga.answers("c", Unknown);
            assert_eq!(plan.abort, None);
            assert!(matches!(plan.tasks[..], [TaskPlan::Retry { awaited: false, .. }]), "{plan:?}");
        }
    }
}

#[test]
fn after_its_success_a_deadline_is_void() {
    for mut saga in after_the_pivot(None) {
        saga.is_overdue();
        let plan = saga.answers("c", Unknown);
        assert_eq!((plan.unwinds, plan.abort, saga.tasks().as_str()), (false, None, "c2"));
    }
}

#[test]
fn before_it_a_step_turns_the_saga_back_as_ever() {
    let mut saga = saga("a, b, p pivot after a b, c bare after p");
    saga.answers("a", Success);
    assert!(saga.answers("b", Failure).unwinds);
    assert_eq!(saga.tasks(), "~a1");
}
