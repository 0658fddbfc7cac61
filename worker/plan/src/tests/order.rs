//! Who runs when, forward and backward.

use super::super::Outcome::*;
use super::super::*;
use super::told::saga;

#[test]
fn a_step_runs_when_all_that_it_waits_for_has_succeeded() {
    let mut saga = saga("a, b after a, c after a, d after b c");
    assert_eq!(saga.tasks(), "a1");
    saga.answers("a", Success);
    assert_eq!(saga.tasks(), "b1 c1");
    saga.answers("c", Success);
    assert_eq!(saga.tasks(), "b1");
    saga.answers("b", Success);
    assert_eq!(saga.tasks(), "d1");
    assert_eq!(saga.answers("d", Success).ends, Some(SagaEnd::Succeeded));
    assert_eq!((saga.tasks(), saga.progress()), (String::new(), "dddd".to_owned()));
}

#[test]
fn a_join_starts_once_when_both_sides_are_settled_together() {
    let mut saga = saga("a, b, c after a b");
    let plan = saga.all_answer(&[("a", Success), ("b", Success)]);
    assert_eq!(plan.queued, [Attempt::first(2, Op::Action)]);
    assert_eq!(saga.tasks(), "c1");
}

#[test]
fn a_diamond_is_undone_in_reverse_and_its_sides_at_the_same_time() {
    let mut saga = saga("a, b after a, c after a, d after b c");
    saga.answers("a", Success);
    saga.all_answer(&[("b", Success), ("c", Success)]);
    let plan = saga.answers("d", Failure);
    assert_eq!((plan.unwinds, plan.abort), (true, Some((0, AbortCause::Refused))));
    assert_eq!(saga.tasks(), "~b1 ~c1");
    saga.answers("b", Success);
    assert_eq!(saga.tasks(), "~c1");
    saga.answers("c", Success);
    assert_eq!(saga.tasks(), "~a1");
    assert_eq!(saga.answers("a", Success).ends, Some(SagaEnd::Failed));
    assert_eq!(saga.progress(), "uuuv");
}

#[test]
fn steps_one_after_the_other_are_undone_last_first() {
    for told in ["a > b > c", "a, b after a, c after b"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.answers("b", Success);
        saga.answers("c", Failure);
        assert_eq!(saga.tasks(), "~b1", "{told}");
        saga.answers("b", Success);
        assert_eq!(saga.tasks(), "~a1", "{told}");
        assert_eq!(saga.answers("a", Success).ends, Some(SagaEnd::Failed), "{told}");
    }
}

#[test]
fn a_step_with_nothing_to_undo_passes_the_order_through() {
    for told in ["a > b bare > c > d", "a, b bare after a, c after b, d after c"] {
        let mut saga = saga(told);
        for step in ["a", "b", "c"] {
            saga.answers(step, Success);
        }
        saga.answers("d", Failure);
        assert_eq!(saga.tasks(), "~c1", "{told}: a waits for c through b");
        saga.answers("c", Success);
        assert_eq!(saga.tasks(), "~a1", "{told}");
    }
}

#[test]
fn a_saga_with_nothing_to_undo_has_failed_at_once() {
    for told in ["a bare > b bare", "a bare, b bare after a"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        let plan = saga.answers("b", Failure);
        assert_eq!((plan.unwinds, plan.ends), (true, Some(SagaEnd::Failed)), "{told}");
    }
}

#[test]
fn what_is_in_flight_ends_before_the_unwind() {
    let mut saga = saga("a, b, c");
    saga.answers("a", Success);
    let plan = saga.answers("b", Failure);
    assert_eq!((plan.unwinds, saga.tasks()), (true, "c1".to_owned()));
    let plan = saga.answers("c", Success);
    // Told once: it unwinds when b refused.
    assert_eq!((plan.unwinds, plan.abort), (false, None));
    assert_eq!(saga.tasks(), "~a1 ~c1");
}

#[test]
fn two_refusals_are_one_unwind_with_the_first_reason() {
    let mut apart = saga("a, b, c");
    assert_eq!(apart.answers("b", Failure).abort, Some((0, AbortCause::Refused)));
    assert_eq!(apart.answers("a", Failure).abort, None);
    let mut together = saga("a, b, c");
    let plan = together.all_answer(&[("a", Failure), ("b", Failure)]);
    assert_eq!((plan.unwinds, plan.abort), (true, Some((0, AbortCause::Refused))));
    for mut saga in [apart, together] {
        assert_eq!(saga.is_met("c").ends, Some(SagaEnd::Failed));
        assert_eq!(saga.progress(), "vvv");
    }
}

#[test]
fn a_success_that_comes_after_the_abort_is_undone() {
    for told in ["a > b", "a, b after a"] {
        let mut saga = saga(told);
        saga.answers("a", Success);
        saga.is_aborted();
        let plan = saga.answers("b", Success);
        assert_eq!(plan.abort, None, "{told}: the abort's reason stays");
        assert_eq!(saga.tasks(), "~b1", "{told}");
    }
}

#[test]
fn an_action_that_meets_an_abort_is_not_called_any_more() {
    for told in ["a > b", "a, b after a"] {
        for (outcome, undone) in [(Unsent, "~a1"), (Unknown, "~b1"), (Ongoing, "~b1")] {
            let mut saga = saga(told);
            saga.answers("a", Success);
            saga.answers("b", outcome);
            saga.is_aborted();
            saga.is_met("b");
            assert_eq!(saga.tasks(), undone, "{told}: {outcome:?}");
        }
    }
}

#[test]
fn a_deadline_turns_the_saga_when_its_call_has_ended() {
    for told in ["a > b > c", "a, b after a, c after b"] {
        for (outcome, undone) in [(Success, "~b1"), (Failure, "~a1"), (Unknown, "~b1"), (Unsent, "~a1")] {
            let mut saga = saga(told);
            saga.answers("a", Success);
            saga.is_overdue();
            let plan = saga.answers("b", outcome);
            let why = if outcome == Failure { AbortCause::Refused } else { AbortCause::Timeout };
            assert_eq!((plan.unwinds, plan.abort), (true, Some((0, why))), "{told}: {outcome:?}");
            assert_eq!(saga.tasks(), undone, "{told}: {outcome:?}");
        }
    }
}

#[test]
fn a_compensation_has_no_deadline() {
    let mut saga = saga("a > b");
    saga.answers("a", Success);
    saga.answers("b", Failure);
    saga.is_overdue();
    assert!(saga.may_be_called("a"));
    assert_eq!(saga.answers("a", Unknown).abort, None);
    assert_eq!(saga.tasks(), "~a2");
}
