//! The planner does not care in which order steps are told. So one saga of each class stands for
//! all (`representatives`), and one state for those in which alike steps have changed places
//! (`World::sort`).

use super::super::Outcome::*;
use super::super::*;
use super::shapes::{permutations, representatives};

/// A try's beginnings that the planner tells apart.
fn tries(step: usize, op: Op) -> [Attempt; 2] {
    let first = Attempt::first(step, op);
    [first, first.after(Some(Unknown))]
}

fn event(now: Attempt, outcome: Option<Outcome>, interrupt: Option<Interrupt>, overdue: bool) -> Event {
    Event { now, outcome, interrupt, overdue, fault: None, completion: None, wait: TaskWait::None }
}

/// Every event that fits the progress, by itself; and two successes, refusals or unknowns together.
fn groups(progress: &Progress) -> Vec<Vec<Event>> {
    let running: Vec<(usize, Op)> = (0..progress.steps.len())
        .filter_map(|step| match progress.steps[step] {
            State::Acting => Some((step, Op::Action)),
            State::Undoing => Some((step, Op::Compensate)),
            _ => None,
        })
        .collect();
    let mut groups = Vec::new();
    for &(step, op) in &running {
        for now in tries(step, op) {
            for outcome in Outcome::ALL.map(Some).into_iter().chain([None]) {
                for (interrupt, overdue) in [(None, false), (None, true), (Some(Interrupt::Unwind), false)] {
                    groups.push(vec![event(now, outcome, interrupt, overdue)]);
                }
            }
        }
        for &(other, op_of_other) in running.iter().filter(|(other, _)| *other > step) {
            for one in [Success, Failure, Unknown] {
                for two in [Success, Failure, Unknown] {
                    let first = event(Attempt::first(step, op), Some(one), None, false);
                    groups
                        .push(vec![first, event(Attempt::first(other, op_of_other), Some(two), None, false)]);
                }
            }
        }
    }
    groups
}

/// Every progress that has a task.
fn progresses(count: usize) -> Vec<Progress> {
    let mut all = vec![vec![]];
    for _ in 0..count {
        all = all.iter().flat_map(|steps| State::ALL.map(|state| [&steps[..], &[state]].concat())).collect();
    }
    let both = all
        .into_iter()
        .flat_map(|steps| [false, true].map(|abort_requested| (steps.clone(), abort_requested)));
    both.map(|(steps, abort_requested)| Progress { steps, abort_requested })
        .filter(Progress::is_running)
        .collect()
}

fn moved(now: Attempt, places: &[usize]) -> Attempt {
    Attempt { step: places[now.step], ..now }
}

fn moved_progress(progress: &Progress, places: &[usize]) -> Progress {
    let mut moved = progress.clone();
    for (step, state) in progress.steps.iter().enumerate() {
        moved.steps[places[step]] = *state;
    }
    moved
}

fn moved_plan(plan: Plan, places: &[usize]) -> Plan {
    let task = |then| match then {
        TaskPlan::Done => TaskPlan::Done,
        TaskPlan::Retry { next, wait, awaited } => {
            TaskPlan::Retry { next: moved(next, places), wait, awaited }
        }
        TaskPlan::Waits { now, awaited } => TaskPlan::Waits { now: moved(now, places), awaited },
        TaskPlan::Stuck { next, why } => TaskPlan::Stuck { next: moved(next, places), why },
    };
    Plan {
        progress: moved_progress(&plan.progress, places),
        tasks: plan.tasks.into_iter().map(task).collect(),
        queued: plan.queued.into_iter().map(|now| moved(now, places)).collect(),
        ..plan
    }
}

#[test]
fn a_plan_does_not_depend_on_the_order_in_which_steps_are_told() {
    let mut compared = 0;
    for draft in representatives().into_iter().filter(|draft| draft.order.is_some()) {
        let limits = (Some(0), Some(0));
        let graph = draft.graph(limits);
        // Swaps of neighbours generate every order.
        let swaps = permutations(draft.count).into_iter().filter(|places| {
            places.iter().enumerate().filter(|(step, place)| step == *place).count() + 2 == draft.count
                && places.iter().enumerate().all(|(step, place)| step.abs_diff(*place) < 2)
        });
        let mirrors: Vec<_> = swaps.map(|places| (draft.permuted(&places).graph(limits), places)).collect();
        for progress in progresses(draft.count) {
            for events in groups(&progress) {
                let told = plan(&graph, &progress, &events).unwrap();
                for (mirror, places) in &mirrors {
                    let events: Vec<Event> = events
                        .iter()
                        .map(|event| Event { now: moved(event.now, places), ..*event })
                        .collect();
                    let mut mirrored = plan(mirror, &moved_progress(&progress, places), &events).unwrap();
                    let mut expected = moved_plan(told.clone(), places);
                    mirrored.queued.sort_unstable_by_key(|now| now.step);
                    expected.queued.sort_unstable_by_key(|now| now.step);
                    assert_eq!(mirrored, expected, "{draft}: {progress:?}, {events:?}");
                    compared += 1;
                }
            }
        }
    }
    eprintln!("{compared} plans compared");
    assert!(compared > 1_000_000, "only {compared}");
}
