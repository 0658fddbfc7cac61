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
        assert!(saga.is_met("p").turned);
        assert_eq!(saga.tasks(), "~a1");
    }
    for mut saga in at_the_pivot(None) {
        saga.answers("p", Unsent);
        saga.is_overdue();
        let plan = saga.is_met("p");
        assert_eq!((plan.turned, plan.turns), (true, Some((0, Why::Timeout))));
        assert_eq!(saga.tasks(), "~a1");
    }
}

/// RACES 13.
#[test]
fn once_it_was_called_an_abort_waits_for_its_definite_outcome() {
    for first in [Unknown, Ongoing] {
        for mut saga in at_the_pivot(None) {
            saga.answers("p", first);
            saga.is_aborted();
            assert!(saga.may_be_called("p"));
            let plan = saga.answers("p", Unknown);
            assert!(matches!(plan.tasks[..], [Then::Again { awaited: true, .. }]), "{plan:?}");
            assert!(!plan.turned);
            // The next task bears the request, and waits on.
            assert!(saga.may_be_called("p"));
            saga.answers("p", Failure);
            let plan = saga.answers("p", Failure);
            assert!(plan.turned);
            assert_eq!(plan.turns, None, "the abort's reason stays");
            assert_eq!(saga.tasks(), "~p1");
        }
    }
}

#[test]
fn an_abort_during_its_call_waits_too() {
    for mut saga in at_the_pivot(None) {
        saga.is_aborted();
        let plan = saga.answers("p", Unknown);
        assert!(matches!(plan.tasks[..], [Then::Again { awaited: true, .. }]), "{plan:?}");
        assert_eq!((plan.turned, saga.tasks()), (false, "p2".to_owned()));
    }
    for mut saga in at_the_pivot(None) {
        saga.is_aborted();
        assert!(saga.answers("p", Unsent).turned);
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
        assert_eq!((plan.turned, plan.turns), (false, Some((0, Why::Timeout))));
        let plan = saga.answers("p", Ongoing);
        assert_eq!((plan.turned, plan.turns), (false, None), "said once");
        let plan = saga.answers("p", Failure);
        assert_eq!((plan.turned, plan.turns), (true, None));
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
        assert_eq!((plan.turned, plan.turns), (false, None));
        assert_eq!(saga.tasks(), "c1");
        let last = Event { overdue: false, ..saga.event("c", Some(Success)) };
        assert_eq!(saga.settles(&[last]).ends, Some(End::Succeeded));
    }
}

#[test]
fn its_retry_limit_ends_with_its_first_call() {
    for mut saga in at_the_pivot(Some(0)) {
        assert_eq!(saga.answers("p", Unsent).turns, Some((0, Why::RetryLimit(0))));
        assert_eq!(saga.tasks(), "~a1");
    }
    for called in [Unknown, Ongoing] {
        for mut saga in at_the_pivot(Some(1)) {
            saga.answers("p", called);
            for _ in 0..5 {
                assert_eq!(saga.answers("p", Unknown).turns, None);
                assert_eq!(saga.answers("p", Unsent).turns, None);
            }
        }
    }
}

#[test]
fn its_refusal_turns_the_saga_and_what_may_have_happened_of_it_is_undone() {
    for mut saga in at_the_pivot(None) {
        assert_eq!(saga.answers("p", Failure).turns, Some((0, Why::Refused)));
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
        assert!(matches!(plan.tasks[..], [Then::Stick { why: Why::Refused, .. }]), "{plan:?}");
        assert_eq!((plan.turned, plan.turns, plan.ends), (false, None, None));
    }
    for mut saga in after_the_pivot(None) {
        saga.answers("c", Unknown);
        assert!(matches!(saga.answers("c", Failure).tasks[..], [Then::Again { .. }]), "asked once more");
        assert!(matches!(saga.answers("c", Failure).tasks[..], [Then::Stick { why: Why::Refused, .. }]));
    }
}

#[test]
fn after_its_success_steps_are_retried_for_ever() {
    for mut saga in after_the_pivot(Some(0)) {
        for _ in 0..20 {
            let plan = saga.answers("c", Unknown);
            assert_eq!(plan.turns, None);
            assert!(matches!(plan.tasks[..], [Then::Again { awaited: false, .. }]), "{plan:?}");
        }
    }
}

#[test]
fn after_its_success_a_deadline_is_void() {
    for mut saga in after_the_pivot(None) {
        saga.is_overdue();
        let plan = saga.answers("c", Unknown);
        assert_eq!((plan.turned, plan.turns, saga.tasks().as_str()), (false, None, "c2"));
    }
}

#[test]
fn before_it_a_step_turns_the_saga_back_as_ever() {
    let mut saga = saga("a, b, p pivot after a b, c bare after p");
    saga.answers("a", Success);
    assert!(saga.answers("b", Failure).turned);
    assert_eq!(saga.tasks(), "~a1");
}
