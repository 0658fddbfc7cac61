//! Every shape with a wait, a gate or a mode, in every interleaving. `TEST_SIZE=full` has them with
//! all limits, and with a person's decision beside every trouble.

use super::super::super::*;
use super::super::every::{assert_floor, is_full};
use super::super::model::{Budget, Rules, TRIES_MAX};
use super::super::search::Visited;
use super::super::search::{Job, visit_all};
use super::super::told::limited;

/// One of each trouble, with one completion, and one call that is answered by 202 and a wait.
const TROUBLES: Budget =
    Budget { aborts: 1, deadlines: 1, deaths: 1, lost_replies: 1, decisions: 0, completions: 1, accepted: 1 };

/// A step waits; and a called one may.
const WAITS: [&str; 20] = [
    "w wait",
    "w wait bare",
    "w wait pivot",
    "a > w wait",
    "w wait > a",
    "w wait > v wait",
    "a > w wait pivot",
    "w wait pivot > a bare",
    "a pivot > w wait bare",
    "a > b > w wait",
    "a > w wait > b",
    "a, w wait",
    "w wait, v wait",
    "a, w wait after a, b after a",
    "a, w wait pivot after a",
    "a",
    "a > b",
    "a pivot > b bare",
    "a, b",
    "a > b pivot",
];

/// A prepared saga.
const GATES: [&str; 9] = [
    "g bare gate",
    "g bare gate > a",
    "g bare asks > a",
    "g bare asks > a > b",
    "g bare gate > a pivot > b bare",
    "g bare gate > w wait > a",
    "g bare gate, a after g, b after g",
    "g bare asks, a after g, b after a",
    "g bare gate, w wait after g, a after g",
];

/// Refused steps are compensated as well.
const COMPENSATE_FAILED: [&str; 7] =
    ["a", "a > b", "a > b pivot", "a, b", "a, b after a", "w wait > b", "a pivot > w wait bare"];

fn job(name: String, graph: StepGraph, decision: Option<usize>, left: Budget) -> Job {
    Job { graph, name, decision, rules: Rules::REAL, left, last_try: TRIES_MAX }
}

/// A limit of its actions and one of its compensations; a full run has more.
fn limits() -> &'static [(Option<u32>, Option<u32>)] {
    if is_full() { &[(None, None), (Some(0), None), (Some(1), Some(0))] } else { &[(Some(0), None)] }
}

fn told(shapes: &[&str], left: Budget, compensate_failed: bool) -> Vec<Job> {
    let shape = |told: &&str| {
        let of = |&(retry, undo): &(Option<u32>, Option<u32>)| {
            let graph = limited(told, retry, undo).graph.with_compensate_failed(compensate_failed);
            job(format!("{told} with limits {retry:?} {undo:?}"), graph, None, left)
        };
        limits().iter().map(of).collect::<Vec<_>>()
    };
    shapes.iter().flat_map(shape).collect()
}

/// Every mode with one and with two branches, submitted and prepared.
fn modes(left: Budget) -> Vec<Job> {
    let call = StepPolicy { has_compensation: true, ..StepPolicy::default() };
    let wait = StepPolicy { action: ActionKind::Wait, ..call };
    let gates = [None, Some(Gate { asks: false }), Some(Gate { asks: true })];
    let branches = [vec![call], vec![wait], vec![call, call], vec![call, wait]];
    let mut jobs = Vec::new();
    for mode in Mode::VALUES {
        for branches in &branches {
            for gate in gates {
                let given = Given { branches: branches.clone(), gate, ..Given::default() };
                let Ok(Lowered { graph, layout }) = lower(*mode, given) else { continue };
                let decision = layout.decision().filter(|_| *mode != Mode::Saga && *mode != Mode::Workflow);
                let name = format!("{} of {} branches, {gate:?}", mode.word(), branches.len());
                jobs.push(job(name, graph, decision, left));
            }
        }
    }
    jobs
}

/// A person decides.
const DECISIONS: Budget = Budget { decisions: 1, lost_replies: 0, deaths: 0, deadlines: 0, ..TROUBLES };

/// A full run visits more.
fn assert_visited(visited: Visited, cases: usize, states: usize) {
    if is_full() {
        assert!(visited.cases >= cases && visited.states >= states, "only {visited:?}");
    } else {
        assert_floor(visited, cases, states);
    }
}

/// The shapes whose states with a person's decision are few; a full run has all.
fn decided() -> Vec<Job> {
    let waits: Vec<&str> = WAITS.into_iter().filter(|told| is_full() || !told.contains(',')).collect();
    [told(&waits, DECISIONS, false), told(&GATES, DECISIONS, false), modes(DECISIONS)].concat()
}

#[test]
fn no_completion_breaks_an_invariant() {
    assert_visited(visit_all(&told(&WAITS, TROUBLES, false), plan), 20, 2_754_077);
}

#[test]
fn no_gate_breaks_an_invariant() {
    assert_visited(visit_all(&told(&GATES, TROUBLES, false), plan), 9, 282_209);
}

#[test]
fn no_mode_breaks_an_invariant() {
    assert_visited(visit_all(&modes(TROUBLES), plan), 50, 528_345);
}

#[test]
fn no_compensated_refusal_breaks_an_invariant() {
    let left = Budget { accepted: 0, lost_replies: 0, ..TROUBLES };
    assert_visited(visit_all(&told(&COMPENSATE_FAILED, left, true), plan), 7, 193_210);
}

#[test]
fn no_decision_beside_a_completion_breaks_an_invariant() {
    assert_visited(visit_all(&decided(), plan), 74, 1_122_770);
}

#[test]
fn no_two_completions_break_an_invariant() {
    let shapes = ["w wait > v wait", "w wait, v wait", "a > w wait", "a > p pivot", "g bare gate > w wait"];
    let left = Budget { completions: 2, lost_replies: 0, deaths: 0, ..TROUBLES };
    assert_visited(visit_all(&told(&shapes, left, false), plan), 5, 66_544);
}

#[test]
fn no_plan_of_the_past_loses_a_completion() {
    let shapes = ["a > w wait", "a, w wait", "a > b > w wait", "a, b, w wait after a b"];
    let rules = Rules { two_moments: true, ..Rules::REAL };
    let left = Budget { lost_replies: 0, accepted: 0, deaths: 0, ..TROUBLES };
    let jobs: Vec<Job> = told(&shapes, left, false).into_iter().map(|job| Job { rules, ..job }).collect();
    assert_visited(visit_all(&jobs, plan), 4, 235_660);
}
