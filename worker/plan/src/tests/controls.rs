//! Each check of the search can fail: on a planner broken on purpose, or with one of the rules
//! around it taken away.

use std::collections::BTreeSet;

use super::super::*;
use super::invariant::Invariant;
use super::model::{Budget, Planner, Rules, World};
use super::modes::controls as modes;
use super::mutants;
use super::search::shortest;
use super::told::limited;

/// A saga and what goes wrong in it.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) what: &'static str,
    pub(super) told: &'static str,
    pub(super) limit: Option<u32>,
    pub(super) compensate_failed: bool,
    pub(super) decision: Option<usize>,
    pub(super) planner: Planner,
    pub(super) rules: Rules,
    pub(super) left: Budget,
    pub(super) finds: Invariant,
}

pub(super) const NOTHING: Budget =
    Budget { aborts: 0, deadlines: 0, deaths: 0, lost_replies: 0, decisions: 0, completions: 0, accepted: 0 };
const ABORT: Budget = Budget { aborts: 1, ..NOTHING };
const DEADLINE: Budget = Budget { deadlines: 1, ..NOTHING };
const DEATH: Budget = Budget { deaths: 1, ..NOTHING };

pub(super) fn planner(
    what: &'static str,
    told: &'static str,
    planner: Planner,
    left: Budget,
    finds: Invariant,
) -> Control {
    Control { planner, ..rule(what, told, Rules::REAL, left, finds) }
}

pub(super) fn rule(
    what: &'static str,
    told: &'static str,
    rules: Rules,
    left: Budget,
    finds: Invariant,
) -> Control {
    let (limit, compensate_failed, decision) = (None, false, None);
    Control { what, told, limit, compensate_failed, decision, planner: plan, rules, left, finds }
}

fn broken_planners() -> Vec<Control> {
    use Invariant::*;
    vec![
        planner("no answer after an abort", "a > b", mutants::takes_no_answer_after_an_abort, ABORT, Legal),
        planner("a retry is dropped", "a > b", mutants::drops_retries, NOTHING, Alive),
        planner("it ends where it unwinds", "a > b", mutants::ends_where_it_turns, NOTHING, NoTaskAfterEnd),
        planner("all start", "a, b after a, c after b", mutants::starts_all_steps, NOTHING, ForwardOrder),
        planner(
            "all is undone at once",
            "a, b after a, c after b",
            mutants::undoes_all_at_once,
            NOTHING,
            BackwardOrder,
        ),
        planner(
            "one of two starts",
            "a, b after a, c after a",
            mutants::starts_one_of_many,
            NOTHING,
            NothingMissed,
        ),
        planner("what runs starts again", "a, b", mutants::starts_what_runs, NOTHING, NoDoubleStart),
        planner(
            "a failure counts as success",
            "a bare",
            mutants::takes_a_failure_for_success,
            NOTHING,
            AllSucceeded,
        ),
        planner(
            "R3: ongoing is forgotten",
            "a > b",
            mutants::forgets_what_is_ongoing,
            ABORT,
            NothingLeftStanding,
        ),
        planner(
            "unknown is forgotten",
            "a > b",
            mutants::forgets_what_is_unknown,
            ABORT,
            NothingLeftStanding,
        ),
        planner("the refused is undone", "a > b", mutants::undoes_what_was_refused, NOTHING, NoNeedlessUndo),
        planner("a success is repeated", "a > b", mutants::asks_again_after_success, NOTHING, NeverAgain),
        planner("numbers begin again", "a > b", mutants::numbers_from_one_again, NOTHING, Numbered),
        planner(
            "unknown is not passed on",
            "a > b",
            mutants::does_not_pass_on_what_is_unknown,
            NOTHING,
            Remembered,
        ),
        planner("ongoing is counted", "a > b", mutants::counts_what_is_ongoing, NOTHING, Remembered),
        planner(
            "it unwinds at every step",
            "a > b > c",
            mutants::turns_at_every_step_back,
            NOTHING,
            OneUnwind,
        ),
        planner(
            "calls are not waited for",
            "a, b, c",
            mutants::undoes_beside_running_actions,
            NOTHING,
            NoActionAfterUndo,
        ),
        planner("a pivot like others", "a pivot > b bare", mutants::knows_no_pivot, NOTHING, PivotStands),
        planner("R13: a pivot is not awaited", "a > b pivot", mutants::awaits_no_pivot, ABORT, PivotAwaited),
        planner("the same at the deadline", "a > b pivot", mutants::awaits_no_pivot, DEADLINE, PivotAwaited),
        planner("a success is lost", "a, b", mutants::loses_a_success, NOTHING, Folds),
        planner(
            "it unwinds in silence",
            "a pivot, b bare after a",
            mutants::turns_in_silence_after_a_request,
            ABORT,
            Folds,
        ),
        planner(
            "it sticks for another reason",
            "a > b",
            mutants::sticks_for_another_reason,
            NOTHING,
            StuckNamed,
        ),
        planner(
            "a request that cannot be built abort the saga",
            "a > b",
            mutants::takes_unbuildable_for_refused,
            NOTHING,
            ReasonNamed,
        ),
        planner("it unwinds for no reason", "a > b", mutants::turns_without_a_reason, NOTHING, ReasonNamed),
        planner("a second reason", "a > b", mutants::gives_a_second_reason, ABORT, ReasonNamed),
        planner("an abort is not heard", "a > b", mutants::does_not_hear_an_abort, ABORT, AbortHeard),
        Control {
            limit: Some(0),
            ..planner("a limit is not heard", "a > b", mutants::knows_no_limit, NOTHING, Limited)
        },
        Control {
            limit: Some(1),
            ..planner("it gives up at once", "a > b", mutants::gives_up_at_once, NOTHING, ReasonNamed)
        },
        planner(
            "R14: one refusal is enough",
            "a > b",
            mutants::believes_the_first_refusal,
            NOTHING,
            Confirmed,
        ),
        planner(
            "a deadline is not heard",
            "a > b",
            mutants::does_not_hear_the_deadline,
            DEADLINE,
            Progresses,
        ),
    ]
}

fn broken_rules() -> Vec<Control> {
    use Invariant::*;
    let real = Rules::REAL;
    let lost_reply = Budget { lost_replies: 1, ..NOTHING };
    let decision = Budget { decisions: 1, ..NOTHING };
    vec![
        rule("R1: no epoch", "a > b > c", Rules { epoch: false, ..real }, lost_reply, Answered),
        rule(
            "R4: a lost try without a record",
            "a > b",
            Rules { rescue_records: false, ..real },
            DEATH,
            Recorded,
        ),
        rule(
            "R5: the fence lacks the interrupt",
            "a > b",
            Rules { interrupt: false, ..real },
            ABORT,
            AbortHeard,
        ),
        rule("R5: no lock on the saga", "a > b", Rules { abort_locks: false, ..real }, ABORT, AbortHeard),
        rule(
            "R6: tasks go without the saga",
            "a",
            Rules { one_lock: false, interrupt: false, ..real },
            ABORT,
            Alive,
        ),
        rule(
            "R5: a retry behind the back of the one who aborts",
            "a, b",
            Rules { two_moments: true, retries_raise_version: false, ..real },
            NOTHING,
            AbortHeard,
        ),
        rule(
            "R7: no version",
            "a, b, c after a b",
            Rules { two_moments: true, version: false, ..real },
            NOTHING,
            Alive,
        ),
        rule(
            "R23: a decision before the answer",
            "a > b",
            Rules { answer_before_decision: false, ..real },
            decision,
            Recorded,
        ),
        rule(
            "a rescue drops the interrupt",
            "a > b",
            Rules { rescue_keeps_interrupt: false, ..real },
            Budget { deaths: 1, ..ABORT },
            AbortHeard,
        ),
        rule(
            "the others are not interrupted",
            "a, b",
            Rules { interrupts_the_others: false, ..real },
            NOTHING,
            AbortHeard,
        ),
        rule(
            "a skip forgets the abort",
            "a > b",
            Rules { skip_spares_unwind: false, ..real },
            Budget { decisions: 1, ..ABORT },
            AbortHeard,
        ),
        rule(
            "a request that cannot be built counts as a refusal",
            "a > b",
            Rules { only_answers_override: false, ..real },
            NOTHING,
            OnlyAnswersOverride,
        ),
        rule(
            "a deadline after the pivot",
            "a pivot > b bare",
            Rules { pivot_ends_deadline: false, ..real },
            DEADLINE,
            Progresses,
        ),
    ]
}

fn controls() -> Vec<Control> {
    let all = [broken_planners(), broken_rules(), modes::broken_planners(), modes::broken_rules()];
    all.into_iter().flatten().collect()
}

impl Control {
    /// What is wrong with it: it finds nothing, or something else, or it finds that with nothing
    /// broken.
    fn wrong(&self) -> Option<String> {
        let what = self.what;
        let Some((found, way)) = self.finds(self.planner, self.rules) else {
            return Some(format!("{what}: nothing found"));
        };
        if found != self.finds {
            return Some(format!("{what}: found {found:?}, not {:?}:\n{way}", self.finds));
        }
        let sound = Rules { two_moments: self.rules.two_moments, ..Rules::REAL };
        let (found, way) = self.finds(plan, sound)?;
        Some(format!("{what}: with nothing broken, {found:?}:\n{way}"))
    }

    fn finds(&self, planner: Planner, rules: Rules) -> Option<(Invariant, String)> {
        let graph = limited(self.told, self.limit, None).graph;
        let graph = graph.with_compensate_failed(self.compensate_failed);
        let world = World { decision: self.decision, ..World::new(&graph, planner, rules) };
        let (way, broken) = shortest(world, self.left)?;
        Some((broken.invariant, way.iter().map(|step| format!("{step}\n")).collect()))
    }
}

#[test]
fn each_check_finds_what_was_broken_for_it() {
    let wrong: Vec<String> = controls().iter().filter_map(Control::wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_check_lacks_a_control() {
    let found: BTreeSet<Invariant> = controls().iter().map(|control| control.finds).collect();
    assert_eq!(found, BTreeSet::from(Invariant::ALL));
}
