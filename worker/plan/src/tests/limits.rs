//! Tries: which are counted, which may have taken effect, and how long to wait.

use std::time::Duration;

use super::super::Outcome::*;
use super::super::*;
use super::told::{limited, saga};

#[test]
fn a_limit_counts_retries_and_not_the_first_try() {
    for outcome in [Unknown, Unsent] {
        for limit in 0..3 {
            let mut saga = limited("a > b", Some(limit), None);
            for _ in 0..limit {
                assert_eq!(saga.answers("a", outcome).abort, None, "{outcome:?} of {limit}");
            }
            let plan = saga.answers("a", outcome);
            assert_eq!(plan.abort, Some((0, AbortCause::RetryLimit(limit))), "{outcome:?} of {limit}");
        }
    }
}

#[test]
fn without_a_limit_an_op_is_tried_for_ever() {
    let mut saga = saga("a > b");
    for attempt in 1..50 {
        assert_eq!(saga.tasks(), format!("a{attempt}"));
        saga.answers("a", Unknown);
    }
}

#[test]
fn ongoing_keeps_the_interval_and_is_not_counted() {
    let mut saga = limited("a > b", Some(1), None);
    for _ in 0..5 {
        let plan = saga.answers("a", Ongoing);
        assert!(
            matches!(&plan.tasks[..], [TaskPlan::Retry { wait: Wait::Interval, next, .. }] if next.counted == 0)
        );
    }
    let plan = saga.answers("a", Unknown);
    assert!(matches!(&plan.tasks[..], [TaskPlan::Retry { wait: Wait::Backoff { counted: 1 }, .. }]));
    assert_eq!(saga.answers("a", Unknown).abort, Some((0, AbortCause::RetryLimit(1))));
}

#[test]
fn an_unsent_try_counts_and_takes_no_effect() {
    let mut saga = limited("a > b", Some(1), None);
    saga.answers("a", Success);
    let plan = saga.answers("b", Unsent);
    assert!(matches!(&plan.tasks[..], [TaskPlan::Retry { wait: Wait::Backoff { counted: 1 }, .. }]));
    assert_eq!(saga.answers("b", Unsent).abort, Some((0, AbortCause::RetryLimit(1))));
    assert_eq!(saga.tasks(), "~a1");
}

/// docs/races.md, R3.
#[test]
fn what_was_only_ever_ongoing_is_undone_when_it_is_given_up() {
    for told in ["a > b", "a, b after a"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.answers("b", Ongoing);
        saga.answers("b", Ongoing);
        saga.is_aborted();
        saga.is_met("b");
        assert_eq!(saga.tasks(), "~b1", "{told}");
    }
}

#[test]
fn a_refusal_after_ongoing_is_a_definite_no() {
    let mut saga = saga("a > b");
    saga.answers("a", Success);
    saga.answers("b", Ongoing);
    saga.answers("b", Failure);
    assert_eq!(saga.tasks(), "~a1");
}

#[test]
fn a_try_that_never_left_leaves_the_last_answer_standing() {
    let mut saga = limited("a > b", Some(1), None);
    saga.answers("a", Success);
    saga.answers("b", Ongoing);
    saga.answers("b", Unsent);
    assert_eq!(saga.answers("b", Unsent).abort, Some((0, AbortCause::RetryLimit(1))));
    assert_eq!(saga.tasks(), "~b1", "it was accepted once");
}

/// docs/races.md, R14.
#[test]
fn a_refusal_after_an_unknown_try_is_asked_once_more() {
    for told in ["a > b > c", "a, b after a, c after b"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.answers("b", Unknown);
        let plan = saga.answers("b", Failure);
        let [TaskPlan::Retry { next, wait: Wait::Interval, .. }] = plan.tasks[..] else { panic!("{plan:?}") };
        assert_eq!((saga.tasks().as_str(), next.last), ("b3", Some(Failure)), "{told}");
        assert_eq!(saga.answers("b", Failure).abort, Some((0, AbortCause::Refused)));
        assert_eq!(saga.tasks(), "~b1", "{told}: the first try may have happened");
    }
}

#[test]
fn a_refusal_that_is_asked_once_more_counts_only_twice_in_a_row() {
    let mut saga = saga("a > b");
    for (said, tasks) in [(Unknown, "a2"), (Failure, "a3"), (Unknown, "a4"), (Failure, "a5"), (Unsent, "a6")]
    {
        saga.answers("a", said);
        assert_eq!(saga.tasks(), tasks);
    }
    assert_eq!(saga.answers("a", Failure).abort, Some((0, AbortCause::Refused)));
    assert_eq!(saga.tasks(), "~a1");
}

/// The control of the two before: without the memory of the unknown try the refusal counts at once,
/// and nothing is undone.
#[test]
fn a_forgotten_unknown_try_would_make_the_refusal_definite() {
    let mut saga = saga("a > b");
    saga.answers("a", Success);
    saga.answers("b", Unknown);
    let mut event = saga.event("b", Some(Failure));
    event.now.unknown_before = false;
    saga.settles(&[event]);
    assert_eq!(saga.tasks(), "~a1");
}

#[test]
fn a_success_after_an_unknown_try_is_a_success() {
    let mut saga = saga("a > b");
    saga.answers("a", Unknown);
    saga.answers("a", Success);
    assert_eq!(saga.tasks(), "b1");
}

#[test]
fn compensations_count_from_one_and_never_give_up_by_themselves() {
    let mut saga = limited("a > b", Some(0), None);
    saga.answers("a", Success);
    saga.answers("b", Failure);
    for attempt in 1..50 {
        assert_eq!(saga.tasks(), format!("~a{attempt}"));
        saga.answers("a", if attempt % 2 == 0 { Unknown } else { Unsent });
    }
}

#[test]
fn a_limit_of_compensations_is_one_of_their_own() {
    let mut saga = limited("a > b", None, Some(1));
    saga.answers("a", Unknown);
    saga.answers("a", Unknown);
    saga.answers("a", Success);
    saga.answers("b", Failure);
    saga.answers("a", Ongoing);
    saga.answers("a", Unknown);
    let plan = saga.answers("a", Unsent);
    let [TaskPlan::Stuck { next, why }] = plan.tasks[..] else { panic!("{plan:?}") };
    assert_eq!((next.attempt, why), (4, AbortCause::RetryLimit(1)));
}

#[test]
fn waits_double_for_each_counted_try_up_to_the_cap() {
    let (interval, cap) = (Duration::from_secs(10), Duration::from_secs(300));
    let delay = |wait| nominal_delay(wait, interval, cap).as_secs();
    let backoff = |counted| delay(Wait::Backoff { counted });
    assert_eq!([1, 2, 3, 4, 5, 6, 100].map(backoff), [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(delay(Wait::Interval), 10);
}
