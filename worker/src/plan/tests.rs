//! Every saga shape up to three steps, every sequence of outcomes up to two tries an op: a plain enumeration, checked
//! against the invariants of DESIGN.md §8 in each final state. Lost workers count as `unknown` tries, as rescue records them.

use super::*;

struct Shape {
    compensations: Vec<bool>,
    limit: Option<u32>,
}

impl Steps for Shape {
    fn count(&self) -> usize {
        self.compensations.len()
    }
    fn has_compensation(&self, index: usize) -> bool {
        self.compensations[index]
    }
    fn retry_limit(&self, _: usize) -> Option<u32> {
        self.limit
    }
}

#[derive(Clone)]
struct Run {
    now: Try,
    history: Vec<(Try, Outcome)>,
}

/// The planner under test: the real one, or one broken on purpose.
type Planner = fn(&Shape, Try, Outcome) -> Result<Plan, Illegal>;

fn last_outcome(history: &[(Try, Outcome)], step: usize, op: Op) -> Option<Outcome> {
    history.iter().rev().find(|(t, _)| t.step == step && t.op == op).map(|(_, outcome)| *outcome)
}

fn may_have_happened(history: &[(Try, Outcome)], step: usize) -> bool {
    let tries = || history.iter().filter(move |(t, _)| t.step == step && t.op == Op::Action);
    tries().any(|(_, o)| matches!(o, Outcome::Success | Outcome::Unknown))
        || tries().rfind(|(_, o)| *o != Outcome::Unsent).is_some_and(|(_, o)| *o == Outcome::Ongoing)
}

fn undone(history: &[(Try, Outcome)], step: usize) -> bool {
    last_outcome(history, step, Op::Compensate) == Some(Outcome::Success)
}

/// Checks a try as it is about to be made.
fn check_start(shape: &Shape, run: &Run) -> Result<(), String> {
    let Try { step, op, attempt, .. } = run.now;
    let tries = run.history.iter().filter(|(t, _)| t.step == step && t.op == op).count();
    if attempt as usize != tries + 1 {
        return Err(format!("try {attempt} after {tries} tries"));
    }
    if last_outcome(&run.history, step, op) == Some(Outcome::Success) {
        return Err("runs again after success".into());
    }
    match op {
        Op::Action => {
            if step > 0 && last_outcome(&run.history, step - 1, Op::Action) != Some(Outcome::Success) {
                return Err("out of order".into());
            }
            if run.history.iter().any(|(t, _)| t.op == Op::Compensate) {
                return Err("forward after the unwind began".into());
            }
        }
        Op::Compensate => {
            if !may_have_happened(&run.history, step) {
                return Err("compensates what never happened".into());
            }
            for later in step + 1..shape.count() {
                if may_have_happened(&run.history, later)
                    && shape.has_compensation(later)
                    && !undone(&run.history, later)
                {
                    return Err("compensates before a later step is undone".into());
                }
            }
        }
    }
    Ok(())
}

fn check_end(shape: &Shape, history: &[(Try, Outcome)], succeeded: bool) -> Result<(), String> {
    for step in 0..shape.count() {
        if succeeded && last_outcome(history, step, Op::Action) != Some(Outcome::Success) {
            return Err(format!("succeeded without step {step}"));
        }
        if !succeeded
            && may_have_happened(history, step)
            && shape.has_compensation(step)
            && !undone(history, step)
        {
            return Err(format!("failed, but step {step} may have happened and is not undone"));
        }
    }
    Ok(())
}

/// Walks every sequence of outcomes; ends a branch after `tries_max` tries of one op. Returns how many ends it saw.
fn search(planner: Planner, shape: &Shape, run: Run, tries_max: u32) -> Result<usize, String> {
    check_start(shape, &run)?;
    let mut ends = 0;
    for outcome in Outcome::ALL {
        let mut next = run.clone();
        next.history.push((run.now, outcome));
        let planned = planner(shape, run.now, outcome).map_err(|illegal| illegal.to_string())?;
        ends += match planned {
            Plan::Advance(now) | Plan::Compensate(now, _) => {
                search(planner, shape, Run { now, ..next }, tries_max)?
            }
            Plan::Retry(now, _) if now.attempt <= tries_max => {
                search(planner, shape, Run { now, ..next }, tries_max)?
            }
            Plan::Retry(..) => 1,
            Plan::Succeed => check_end(shape, &next.history, true).map(|()| 1)?,
            Plan::Fail(_) => check_end(shape, &next.history, false).map(|()| 1)?,
            Plan::Stick(_) => {
                if run.now.op != Op::Compensate || outcome != Outcome::Failure {
                    return Err("stuck without a refused compensation".into());
                }
                1
            }
        };
    }
    Ok(ends)
}

fn search_all(planner: Planner, tries_max: u32) -> Result<usize, String> {
    let mut ends = 0;
    for count in 1..=3usize {
        for bits in 0..1u32 << count {
            for limit in [None, Some(0), Some(1)] {
                let shape = Shape { compensations: (0..count).map(|i| bits >> i & 1 == 1).collect(), limit };
                let run = Run { now: Try::first(0, Op::Action), history: Vec::new() };
                ends += search(planner, &shape, run, tries_max)?;
            }
        }
    }
    Ok(ends)
}

#[test]
fn every_sequence_of_outcomes_keeps_the_invariants() {
    let ends = search_all(plan, 2).unwrap();
    assert!(ends > 50_000, "the search saw only {ends} ends");
}

#[test]
fn the_search_finds_a_planner_that_forgets_unknown_tries() {
    let found = search_all(
        |s, mut t, o| {
            t.unknown_before = false;
            let planned = plan(s, t, if o == Outcome::Unknown { Outcome::Unsent } else { o })?;
            Ok(planned)
        },
        2,
    );
    assert!(found.unwrap_err().contains("not undone"));
}

#[test]
fn the_search_finds_a_planner_that_compensates_in_forward_order() {
    let found = search_all(
        |s, t, o| {
            Ok(match plan(s, t, o)? {
                Plan::Compensate(_, why) => {
                    let first = (0..=t.step).find(|&i| s.has_compensation(i)).unwrap_or(t.step);
                    Plan::Compensate(Try::first(first, Op::Compensate), why)
                }
                other => other,
            })
        },
        2,
    );
    assert!(found.is_err());
}

#[test]
fn the_search_finds_a_planner_that_compensates_the_refused_step() {
    let found = search_all(
        |s, t, o| {
            if t.op == Op::Action && o == Outcome::Failure && s.has_compensation(t.step) {
                return Ok(Plan::Compensate(Try::first(t.step, Op::Compensate), Some(Why::Refused)));
            }
            plan(s, t, o)
        },
        2,
    );
    assert!(found.unwrap_err().contains("never happened"));
}

#[test]
fn the_search_finds_a_planner_that_restarts_the_numbering() {
    let found = search_all(
        |s, t, o| {
            Ok(match plan(s, t, o)? {
                Plan::Retry(next, wait) => Plan::Retry(Try { attempt: 1, ..next }, wait),
                other => other,
            })
        },
        2,
    );
    assert!(found.unwrap_err().contains("try 1 after 1 tries"));
}

fn three() -> Shape {
    Shape { compensations: vec![true, true, true], limit: None }
}

#[test]
fn a_refusal_after_an_unknown_try_is_asked_once_more() {
    let second = Try {
        attempt: 2,
        counted: 1,
        unknown_before: true,
        last: Some(Outcome::Unknown),
        ..Try::first(1, Op::Action)
    };
    let Plan::Retry(third, Wait::Interval) = plan(&three(), second, Outcome::Failure).unwrap() else {
        panic!()
    };
    assert_eq!(third.last, Some(Outcome::Failure));
    // The control: without the memory of the unknown try the refusal counts at once, and nothing is undone.
    let forgetful = Try { unknown_before: false, ..second };
    let aborted = plan(&three(), forgetful, Outcome::Failure).unwrap();
    assert_eq!(aborted, Plan::Compensate(Try::first(0, Op::Compensate), Some(Why::Refused)));
    let unwound = plan(&three(), third, Outcome::Failure).unwrap();
    assert_eq!(unwound, Plan::Compensate(Try::first(1, Op::Compensate), Some(Why::Refused)));
}

#[test]
fn a_limit_counts_retries_and_not_the_first_try_nor_ongoing() {
    let shape = Shape { limit: Some(1), ..three() };
    let first = Try::first(0, Op::Action);
    let Plan::Retry(second, _) = plan(&shape, first, Outcome::Ongoing).unwrap() else { panic!() };
    assert_eq!(second.counted, 0);
    let Plan::Retry(third, _) = plan(&shape, second, Outcome::Unsent).unwrap() else { panic!() };
    // It was accepted once, and the tries that never left say nothing about that: it may have taken effect.
    let undo = Plan::Compensate(Try::first(0, Op::Compensate), Some(Why::RetryLimit(1)));
    assert_eq!(plan(&shape, third, Outcome::Unsent).unwrap(), undo);
}

#[test]
fn a_step_that_does_not_exist_is_an_error_and_not_a_panic() {
    assert_eq!(
        plan(&three(), Try::first(3, Op::Action), Outcome::Success),
        Err(Illegal { step: 4, steps: 3 })
    );
}
