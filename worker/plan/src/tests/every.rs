//! Every saga of up to three steps, in every interleaving. A small run has those of three steps
//! only one after the other; `TEST_SIZE=full` has them all.

use super::super::*;
use super::model::{Budget, Rules, TRIES_MAX};
use super::search::{Job, Visited, visit_all};
use super::shapes::{Draft, drafts, representatives};

/// One of each trouble, but no person's decision.
const TROUBLES: Budget =
    Budget { aborts: 1, deadlines: 1, deaths: 1, lost_replies: 1, decisions: 0, completions: 0, accepted: 0 };

/// Each of `drafts` with each of `limits` for its actions and for its compensations.
fn jobs(drafts: impl Iterator<Item = Draft>, limits: &[Option<u32>], rules: Rules, left: Budget) -> Vec<Job> {
    let pairs = limits.iter().flat_map(|retry| limits.iter().map(move |undo| (*retry, *undo)));
    let mut jobs: Vec<(Draft, Job)> = drafts
        .flat_map(|draft| pairs.clone().map(move |limits| (draft, limits)))
        .filter_map(|(draft, limits)| {
            let is_small = draft.count < 3 || draft.order.is_none();
            // With three steps both limits are the same: which is whose is shown with two.
            let job = || Job {
                graph: draft.graph(limits),
                name: format!("{draft} with limits {limits:?}"),
                decision: None,
                rules,
                // A parallel saga's settle deletes its tasks: said again it finds none. A claim
                // that its worker does not learn of leaves a task that waits, like any other; that
                // is shown with two steps.
                left: Budget { lost_replies: left.lost_replies.min(u8::from(is_small)), ..left },
                // Two tries an op where all three steps run at once, else three.
                last_try: if draft.at_once() < 3 { TRIES_MAX } else { TRIES_MAX - 1 },
            };
            (is_small || limits.0 == limits.1).then(|| (draft, job()))
        })
        .collect();
    // The largest first, so that no core ends alone with them.
    jobs.sort_by_key(|(draft, _)| std::cmp::Reverse(draft.at_once()));
    jobs.into_iter().map(|(_, job)| job).collect()
}

/// The harness of the end-to-end tests reads the same variable.
pub(super) fn is_full() -> bool {
    std::env::var_os("TEST_SIZE").is_some_and(|size| {
        assert_eq!(size, "full", "TEST_SIZE: allowed: full, or unset");
        true
    })
}

/// The classes of sagas that this run searches.
fn searched() -> impl Iterator<Item = Draft> {
    let is_full = is_full();
    representatives().into_iter().filter(move |draft| is_full || draft.count < 3 || draft.order.is_none())
}

/// The floor is what was visited when this was written, less a tenth: a search that shrinks by
/// accident is found.
pub(super) fn assert_floor(visited: Visited, cases: usize, states: usize) {
    eprintln!("{visited:?}");
    assert_eq!(visited.cases, cases);
    assert!(visited.states > states - states / 10, "only {} states", visited.states);
}

#[test]
fn no_interleaving_breaks_an_invariant() {
    assert_eq!(drafts().len(), 462);
    let jobs = jobs(searched(), &[None, Some(0), Some(1)], Rules::REAL, TROUBLES);
    let (cases, states) = if is_full() { (705, 3_970_049) } else { (477, 1_902_441) };
    assert_floor(visit_all(&jobs, plan), cases, states);
}

#[test]
fn no_decision_of_a_person_breaks_an_invariant() {
    let small = searched().filter(|draft| draft.count < 3 || draft.order.is_none());
    let (limits, cases, states): (&[_], _, _) =
        if is_full() { (&[None, Some(0)], 212, 4_050_710) } else { (&[Some(0)], 53, 1_159_930) };
    let jobs = jobs(small, limits, Rules::REAL, Budget { decisions: 1, ..TROUBLES });
    assert_floor(visit_all(&jobs, plan), cases, states);
}

#[test]
fn no_plan_of_the_past_breaks_an_invariant() {
    let parallel = searched().filter(|draft| draft.order.is_some() && draft.at_once() == 2);
    let jobs = jobs(parallel, &[None], Rules { two_moments: true, ..Rules::REAL }, TROUBLES);
    let (cases, states) = if is_full() { (31, 1_946_491) } else { (3, 458_309) };
    assert_floor(visit_all(&jobs, plan), cases, states);
}
