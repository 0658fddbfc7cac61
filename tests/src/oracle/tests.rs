//! Each rule is shown able to fail: a healthy case, one thing of it changed, and exactly that rule
//! fires.

use std::time::Duration;

use super::*;
use crate::ledger::{Asked, Keeps};

/// A saga of two steps at a participant behind a barrier, written as `step op attempt outcome
/// status`, each call in the history and the ledger alike. Times are the places in the list, ten
/// apart.
fn case(status: &str, calls: &[&str]) -> Case {
    let step = |name: &str, waits_for: &[usize]| Step {
        name: name.to_owned(),
        waits_for: waits_for.to_vec(),
        acts: true,
        compensates: true,
    };
    let steps = vec![step("pay", &[]), step("ship", &[0])];
    let mut case = Case { gid: "s".to_owned(), told: Some(Fate::Committed), ..Case::default() };
    let mut history = Vec::new();
    for (place, call) in calls.iter().enumerate() {
        let words: Vec<&str> = call.split(' ').collect();
        let [step, op, attempt, outcome, answer] = words[..] else { panic!("{call}") };
        let attempt = attempt.parse().unwrap();
        let arrived = 10 * place as i64;
        let answer = answer.parse().ok();
        case.calls.push(Call {
            keeps: Keeps::Barrier,
            asked: Asked {
                key: format!("s/{step}/{op}"),
                gid: "s".to_owned(),
                step: step.to_owned(),
                op: op.to_owned(),
                attempt,
            },
            arrived,
            worked: (answer == Some(200)).then_some(arrived + 1),
            skipped: None,
            status: answer,
        });
        history.push(Event {
            step: steps.iter().position(|known| known.name == step),
            op: Some(op.to_owned()),
            attempt: Some(attempt),
            outcome: Some(outcome.to_owned()),
            decision: None,
        });
    }
    case.saga = Some(Saga { status: status.to_owned(), steps, history });
    case
}

fn succeeded() -> Case {
    case("succeeded", &["pay action 1 unknown 500", "pay action 2 success 200", "ship action 1 success 200"])
}

fn failed() -> Case {
    #[rustfmt::skip]
    let calls = [
        "pay action 1 success 200", "ship action 1 success 200",
        "ship compensate 1 success 200", "pay compensate 1 success 200",
    ];
    case("failed", &calls)
}

/// The first step was done, the second refused.
fn refused() -> Case {
    #[rustfmt::skip]
    let calls = ["pay action 1 success 200", "ship action 1 failure 409", "pay compensate 1 success 200"];
    case("failed", &calls)
}

fn broken_rules(case: &Case) -> Vec<&'static str> {
    let mut verdict = Verdict::default();
    verdict.case(case);
    let mut rules: Vec<&str> = verdict.broken.iter().map(|broken| broken.rule).collect();
    rules.dedup();
    rules
}

fn call<'a>(case: &'a mut Case, step: &str, op: &str) -> &'a mut Call {
    case.calls.iter_mut().find(|call| call.asked.step == step && call.asked.op == op).unwrap()
}

fn saga(case: &mut Case) -> &mut Saga {
    case.saga.as_mut().unwrap()
}

/// A case with one change, and the rule that it breaks.
struct Doctored {
    rule: &'static str,
    case: Case,
}

fn doctored(rule: &'static str, mut case: Case, change: impl FnOnce(&mut Case)) -> Doctored {
    change(&mut case);
    Doctored { rule, case }
}

fn all_doctored() -> Vec<Doctored> {
    vec![
        doctored("committed_sagas_end", succeeded(), |case| saga(case).status = "stuck".into()),
        doctored("committed_sagas_end", succeeded(), |case| {
            case.saga = None;
            case.calls.clear();
        }),
        doctored("rolled_back_sagas_call_nobody", succeeded(), |case| case.told = Some(Fate::RolledBack)),
        doctored("rolled_back_sagas_call_nobody", succeeded(), |case| {
            case.told = Some(Fate::Unknown);
            case.saga = None;
        }),
        doctored("one_effect_per_key", succeeded(), |case| {
            call(case, "pay", "action").worked = Some(1);
        }),
        doctored("all_done_or_all_undone", succeeded(), |case| call(case, "ship", "action").worked = None),
        doctored("all_done_or_all_undone", failed(), |case| saga(case).status = "succeeded".into()),
        doctored("all_done_or_all_undone", failed(), |case| {
            call(case, "ship", "compensate").worked = None;
            call(case, "ship", "compensate").skipped = Some(21);
        }),
        doctored("actions_follow_the_order", succeeded(), |case| call(case, "ship", "action").arrived = 5),
        doctored("compensations_follow_the_reverse_order", failed(), |case| {
            call(case, "pay", "compensate").arrived = 15;
        }),
        doctored("nothing_is_undone_that_was_not_done", refused(), |case| {
            let extra = self::case("failed", &["ship compensate 1 success 200"]);
            saga(case).history.extend(extra.saga.unwrap().history);
            let mut extra = extra.calls[0].clone();
            (extra.worked, extra.skipped, extra.arrived) = (None, Some(16), 15);
            case.calls.push(extra);
        }),
        doctored("nothing_is_undone_that_was_not_done", failed(), |case| {
            call(case, "ship", "action").worked = None;
            call(case, "ship", "action").skipped = Some(11);
        }),
        doctored("a_late_action_has_no_effect", failed(), |case| {
            call(case, "ship", "action").skipped = Some(11);
            call(case, "ship", "action").worked = Some(25);
        }),
        doctored("a_late_action_has_no_effect", failed(), |case| {
            for call in &mut case.calls {
                call.keeps = Keeps::Table;
            }
            // The place of the first action was taken by its compensation, and yet it worked.
            for (step, op, reason) in [
                ("pay", "action", "compensate"),
                ("pay", "compensate", "compensate"),
                ("ship", "action", "action"),
                ("ship", "compensate", "compensate"),
            ] {
                case.rows.push(Row { step: step.into(), op: op.into(), reason: reason.into() });
            }
        }),
        doctored("each_call_is_a_recorded_try", succeeded(), |case| {
            saga(case).history.remove(0);
        }),
        doctored("each_call_is_a_recorded_try", succeeded(), |case| {
            let again = Call { worked: None, skipped: Some(22), ..case.calls[2].clone() };
            case.calls.push(again);
        }),
        doctored("a_success_was_answered", succeeded(), |case| call(case, "ship", "action").status = None),
    ]
}

#[test]
fn healthy_cases_break_no_rule() {
    for case in [succeeded(), failed(), refused()] {
        assert_eq!(broken_rules(&case), Vec::<&str>::new(), "{case:#?}");
    }
}

#[test]
fn each_rule_fires_on_what_it_is_for_and_no_other_does() {
    for Doctored { rule, case } in all_doctored() {
        assert_eq!(broken_rules(&case), [rule], "{case:#?}");
    }
}

#[test]
fn no_rule_is_without_a_case_that_breaks_it() {
    let shown: Vec<&str> = all_doctored().iter().map(|doctored| doctored.rule).collect();
    for (rule, _) in RULES {
        assert!(shown.contains(&rule), "{rule} is not shown able to fail");
    }
}

/// Without a barrier a participant works whenever it is asked, and a late call is nobody's fault.
#[test]
fn a_participant_without_a_barrier_may_work_twice_and_late() {
    let mut case = failed();
    for call in &mut case.calls {
        call.keeps = Keeps::Nothing;
    }
    call(&mut case, "ship", "action").worked = Some(45);
    assert_eq!(broken_rules(&case), Vec::<&str>::new());
}

/// Where the reply to a participant's own commit was lost, its table knows what its ledger does
/// not.
#[test]
fn a_barriers_table_knows_what_was_done_when_the_ledger_does_not() {
    let mut case = succeeded();
    for call in &mut case.calls {
        call.keeps = Keeps::Table;
    }
    call(&mut case, "pay", "action").status = Some(500);
    case.calls[1].worked = None;
    case.calls[1].skipped = Some(11);
    for step in ["pay", "ship"] {
        let (op, reason) = ("action".into(), "action".into());
        case.rows.push(Row { step: step.into(), op, reason });
    }
    assert_eq!(broken_rules(&case), Vec::<&str>::new());
    case.rows.clear();
    assert_eq!(broken_rules(&case), ["all_done_or_all_undone", "a_late_action_has_no_effect"]);
}

#[test]
fn what_a_person_decided_is_not_held_against_the_workers() {
    let decision =
        |decision: &str, step| Event { decision: Some(decision.to_owned()), step, ..Event::default() };
    let mut forced = failed();
    forced.calls.truncate(2);
    saga(&mut forced).history.truncate(2);
    assert_eq!(broken_rules(&forced), ["all_done_or_all_undone"]);
    saga(&mut forced).history.push(decision("force", None));
    assert_eq!(broken_rules(&forced), Vec::<&str>::new());

    let mut skipped = succeeded();
    skipped.calls.truncate(2);
    saga(&mut skipped).history.truncate(2);
    assert_eq!(broken_rules(&skipped), ["all_done_or_all_undone"]);
    saga(&mut skipped).history.push(decision("skip", Some(1)));
    assert_eq!(broken_rules(&skipped), Vec::<&str>::new());
}

#[test]
fn money_that_is_lost_or_in_the_wrong_place_is_found() {
    let account = |name: &str, balance, moved| Account { name: name.to_owned(), balance, moved };
    let fine = Money { opening: 100, accounts: vec![account("a/1", 70, -30), account("b/1", 130, 30)] };
    assert_eq!(fine.judge(), Vec::<String>::new());
    let lost = Money { opening: 100, accounts: vec![account("a/1", 70, -30), account("b/1", 100, 30)] };
    assert_eq!(
        lost.judge(),
        ["the sum of all balances was 200 and is 170", "account b/1 holds 100 instead of 130"]
    );
    let misplaced = Money { opening: 100, accounts: vec![account("a/1", 130, -30), account("b/1", 70, 30)] };
    assert_eq!(misplaced.judge().len(), 2);
}

#[test]
fn a_tail_that_is_late_or_that_some_worker_had_no_part_in_is_found() {
    let fine = Tail {
        bound: Duration::from_secs(10),
        ended_after: Some(Duration::from_secs(9)),
        sagas: vec![("tail".to_owned(), "succeeded".to_owned())],
        workers: vec![WorkerTail { pid: 7, successes_before: 1.0, successes_after: 2.0 }],
    };
    assert_eq!(fine.judge(), Vec::<String>::new());
    for (change, found) in [
        (
            Tail { ended_after: Some(Duration::from_secs(11)), ..fine.clone() },
            "not all had ended 10s after the last fault",
        ),
        (Tail { ended_after: None, ..fine.clone() }, "not all had ended 10s after the last fault"),
        (Tail { sagas: Vec::new(), ..fine.clone() }, "no saga was inserted after the last fault"),
        (
            Tail { sagas: vec![("tail".to_owned(), "failed".to_owned())], ..fine.clone() },
            "tail, inserted after the last fault, is failed",
        ),
        (Tail { workers: Vec::new(), ..fine.clone() }, "no worker lives"),
        (
            Tail {
                workers: vec![WorkerTail { pid: 7, successes_before: 1.0, successes_after: 1.0 }],
                ..fine.clone()
            },
            "worker 7 made no successful call after the last fault",
        ),
    ] {
        assert_eq!(change.judge(), [found]);
    }
}
