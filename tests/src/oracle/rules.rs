//! What holds of every saga.

use std::collections::BTreeMap;

use super::case::{Call, Case, Fate, Saga, Step};
use crate::ledger::Keeps;

/// Says what of a case it does not hold for.
pub type Rule = fn(&Case) -> Vec<String>;

/// The rules by name.
pub const RULES: [(&str, Rule); 10] = [
    ("committed_sagas_end", committed_sagas_end),
    ("rolled_back_sagas_call_nobody", rolled_back_sagas_call_nobody),
    ("one_effect_per_key", one_effect_per_key),
    ("all_done_or_all_undone", all_done_or_all_undone),
    ("actions_follow_the_order", actions_follow_the_order),
    ("compensations_follow_the_reverse_order", compensations_follow_the_reverse_order),
    ("nothing_is_undone_that_was_not_done", nothing_is_undone_that_was_not_done),
    ("a_late_action_has_no_effect", a_late_action_has_no_effect),
    ("each_call_is_a_recorded_try", each_call_is_a_recorded_try),
    ("a_success_was_answered", a_success_was_answered),
];

fn committed_sagas_end(case: &Case) -> Vec<String> {
    match &case.saga {
        None if case.told == Some(Fate::Committed) => vec!["it was committed and is not there".to_owned()],
        Some(saga) if !saga.is_finished() => vec![format!("it is {}", saga.status)],
        _ => Vec::new(),
    }
}

fn rolled_back_sagas_call_nobody(case: &Case) -> Vec<String> {
    let mut found = Vec::new();
    if case.saga.is_some() && case.told == Some(Fate::RolledBack) {
        found.push("it was rolled back and is there".to_owned());
    }
    if case.saga.is_none()
        && let Some(call) = case.calls.first()
    {
        found.push(format!("it is not there and called {}", call.asked.key));
    }
    found
}

fn one_effect_per_key(case: &Case) -> Vec<String> {
    let mut effects: BTreeMap<&str, usize> = BTreeMap::new();
    for call in case.calls.iter().filter(|call| call.keeps != Keeps::Nothing && call.worked.is_some()) {
        *effects.entry(&call.asked.key).or_default() += 1;
    }
    effects
        .into_iter()
        .filter(|(_, effects)| *effects > 1)
        .map(|(key, effects)| format!("{key} took effect {effects} times"))
        .collect()
}

/// For each step of a finished saga that nobody else decided about.
fn of_steps<'a>(case: &'a Case, judge: impl Fn(&'a Saga, usize, &'a Step) -> Vec<String>) -> Vec<String> {
    let Some(saga) = &case.saga else { return Vec::new() };
    let steps = saga.steps.iter().enumerate().filter(|(position, _)| !saga.was_skipped(*position));
    steps.flat_map(|(position, step)| judge(saga, position, step)).collect()
}

fn all_done_or_all_undone(case: &Case) -> Vec<String> {
    of_steps(case, |saga, _, step| {
        let done = |op| case.was_done(&step.name, op);
        let name = &step.name;
        if saga.was_ended_by_hand() {
            return Vec::new();
        }
        match saga.status.as_str() {
            "succeeded" if step.acts && !done("action") => {
                vec![format!("it succeeded, and {name} was not done")]
            }
            "succeeded" if case.first_arrived(name, "compensate").is_some() => {
                vec![format!("it succeeded, and {name} was called to be undone")]
            }
            "failed" if step.compensates && done("action") && !done("compensate") => {
                vec![format!("it failed, and {name} was done and not undone")]
            }
            _ => Vec::new(),
        }
    })
}

fn actions_follow_the_order(case: &Case) -> Vec<String> {
    of_steps(case, |saga, _, step| {
        let Some(arrived) = case.first_arrived(&step.name, "action") else { return Vec::new() };
        let before = step.waits_for.iter().filter(|before| !saga.was_skipped(**before));
        before
            .map(|before| &saga.steps[*before])
            .filter(|before| before.acts)
            .filter(|before| case.first_settled(&before.name, "action").is_none_or(|done| done > arrived))
            .map(|before| format!("{} was called before {} was done", step.name, before.name))
            .collect()
    })
}

fn compensations_follow_the_reverse_order(case: &Case) -> Vec<String> {
    of_steps(case, |saga, position, step| {
        let Some(arrived) = case.first_arrived(&step.name, "compensate") else { return Vec::new() };
        let after = saga.steps.iter().enumerate().filter(|(after, dependent)| {
            dependent.waits_for.contains(&position) && dependent.compensates && !saga.was_skipped(*after)
        });
        after
            .map(|(_, after)| &after.name)
            .filter(|after| case.first_worked(after, "action").is_some_and(|done| done < arrived))
            .filter(|after| case.first_settled(after, "compensate").is_none_or(|undone| undone > arrived))
            .map(|after| format!("{} was called to be undone before {after} was undone", step.name))
            .collect()
    })
}

fn nothing_is_undone_that_was_not_done(case: &Case) -> Vec<String> {
    of_steps(case, |saga, position, step| {
        let name = &step.name;
        let mut found = Vec::new();
        if case.first_arrived(name, "compensate").is_some() && !saga.may_have_taken_effect(position) {
            found.push(format!("{name} was called to be undone, and no try of it may have taken effect"));
        }
        let undone = case.calls_of(name, "compensate").filter(|call| call.keeps != Keeps::Nothing);
        if undone.filter_map(|call| call.worked).next().is_some() && !case.was_done(name, "action") {
            found.push(format!("{name} was undone, and had not been done"));
        }
        found
    })
}

fn a_late_action_has_no_effect(case: &Case) -> Vec<String> {
    let is_late = |call: &&Call| match call.keeps {
        Keeps::Nothing => false,
        Keeps::Barrier => {
            let undone = case.first_settled(&call.asked.step, "compensate");
            undone.zip(call.worked).is_some_and(|(undone, worked)| undone < worked)
        }
        // Its notes are not of the moment of its commits; whose place it is, is.
        Keeps::Table => {
            call.worked.is_some()
                && case.row(&call.asked.step, "action").is_none_or(|row| row.reason != "action")
        }
    };
    let actions = case.calls.iter().filter(|call| call.asked.op == "action");
    actions.filter(is_late).map(|call| format!("{} took effect after its undoing", call.asked.key)).collect()
}

fn each_call_is_a_recorded_try(case: &Case) -> Vec<String> {
    let Some(saga) = &case.saga else { return Vec::new() };
    let mut tries: BTreeMap<(&str, &str, u32), usize> = BTreeMap::new();
    for call in &case.calls {
        *tries.entry((&call.asked.step, &call.asked.op, call.asked.attempt)).or_default() += 1;
    }
    let mut found = Vec::new();
    for ((step, op, attempt), calls) in tries {
        if calls > 1 {
            found.push(format!("try {attempt} of {step} {op} was called {calls} times"));
        }
        let position = saga.steps.iter().position(|known| known.name == step);
        let recorded = position
            .is_some_and(|position| saga.tries(position, op).any(|event| event.attempt == Some(attempt)));
        if !recorded {
            found.push(format!("try {attempt} of {step} {op} was called, and is not in the history"));
        }
    }
    found
}

fn a_success_was_answered(case: &Case) -> Vec<String> {
    let Some(saga) = &case.saga else { return Vec::new() };
    let mut found = Vec::new();
    for event in saga.history.iter().filter(|event| event.outcome.as_deref() == Some("success")) {
        let (Some(position), Some(op), Some(attempt)) = (event.step, &event.op, event.attempt) else {
            continue;
        };
        let step = &saga.steps[position];
        let is_called = if op == "action" { step.acts } else { step.compensates };
        let answered = case
            .calls_of(&step.name, op)
            .any(|call| call.asked.attempt == attempt && matches!(call.status, Some(200 | 201 | 204)));
        if is_called && !answered {
            found.push(format!(
                "try {attempt} of {} {op} counts as a success, and none was answered",
                step.name
            ));
        }
    }
    found
}
