//! The controls of waits, gates and modes.

use super::super::controls::{Control, NOTHING, planner, rule};
use super::super::invariant::Invariant::{self, *};
use super::super::model::{Budget, Planner, Rules};
use super::super::mutants::knows_no_pivot;
use super::mutants;

const COMPLETION: Budget = Budget { completions: 1, ..NOTHING };
const ACCEPTED: Budget = Budget { accepted: 1, ..NOTHING };
const ABORT: Budget = Budget { aborts: 1, ..NOTHING };
const BOTH: Budget = Budget { aborts: 1, ..COMPLETION };

pub(in super::super) fn broken_planners() -> Vec<Control> {
    let refused = Control {
        compensate_failed: true,
        ..planner(
            "a refused step is spared",
            "a > b",
            mutants::spares_what_was_refused,
            NOTHING,
            NothingLeftStanding,
        )
    };
    [waits(), gates(), vec![refused]].concat()
}

/// A planner, a saga that it breaks, and what finds it.
type Row = (&'static str, &'static str, Planner, Budget, Invariant);

fn waits() -> Vec<Control> {
    let rows: [Row; 13] = [
        ("no completion is heard", "w wait", mutants::hears_no_completion, COMPLETION, Progresses),
        (
            "a completion is asked again",
            "a > b",
            mutants::asks_again_after_a_completion,
            COMPLETION,
            CompletionFinal,
        ),
        (
            "a completion after unknown is no doubt",
            "a > b",
            mutants::believes_a_completion_after_unknown,
            COMPLETION,
            NothingLeftStanding,
        ),
        (
            "a completion against the call is no doubt",
            "a > b",
            mutants::believes_a_completion_against_the_call,
            COMPLETION,
            NothingLeftStanding,
        ),
        ("the call decides", "a > b", mutants::lets_the_call_decide, COMPLETION, ReasonNamed),
        (
            "the end of a wait is a refusal",
            "w wait",
            mutants::takes_the_end_of_a_wait_for_a_refusal,
            NOTHING,
            NothingLeftStanding,
        ),
        (
            "a pivot unwinds at the end of its wait",
            "a > w wait pivot",
            mutants::unwinds_at_the_end_of_a_pivots_wait,
            NOTHING,
            PivotAwaited,
        ),
        (
            "a contradicted pivot unwinds",
            "a > p pivot",
            mutants::unwinds_a_contradicted_pivot,
            COMPLETION,
            PivotAwaited,
        ),
        ("a wait has no end", "w wait", mutants::waits_for_ever, NOTHING, Progresses),
        ("a claim ends a wait", "a", mutants::ends_a_wait_that_is_claimed, ACCEPTED, WaitKept),
        (
            "a wait begins without an attempt",
            "a > w wait",
            mutants::begins_a_wait_without_an_attempt,
            NOTHING,
            Numbered,
        ),
        (
            "what came before its turn is forgotten",
            "a > b > w wait",
            mutants::forgets_what_came_before_its_turn,
            COMPLETION,
            NothingLeftStanding,
        ),
        (
            "what came before its turn holds up nothing",
            "a > b > w wait",
            mutants::undoes_the_first_beside_the_last,
            COMPLETION,
            BackwardOrder,
        ),
    ];
    rows.into_iter().map(of).collect()
}

fn gates() -> Vec<Control> {
    let rows: [Row; 6] = [
        (
            "a question leaves a doubt",
            "g bare asks > a",
            mutants::takes_a_question_for_a_call,
            NOTHING,
            NothingUnknown,
        ),
        (
            "the end of a gate opens it",
            "g bare gate > a",
            mutants::opens_a_gate_at_its_end,
            NOTHING,
            ForwardOrder,
        ),
        (
            "the end of a gate beats a submit",
            "g bare gate > a",
            mutants::closes_a_gate_that_was_submitted,
            COMPLETION,
            ReasonNamed,
        ),
        (
            "an answer opens what an abort closed",
            "g bare asks pivot > a bare",
            mutants::opens_a_gate_after_an_abort,
            ABORT,
            ForwardOrder,
        ),
        (
            "what is done outside is called",
            "t outside > g bare gate pivot > c bare",
            mutants::calls_what_is_done_outside,
            COMPLETION,
            DoneOutside,
        ),
        (
            "an abort rolls a workflow back",
            "w bare code pivot",
            mutants::rolls_a_workflow_back_by_itself,
            ABORT,
            PivotAwaited,
        ),
    ];
    let pivot = Control {
        decision: Some(0),
        ..planner(
            "the decision is no pivot",
            "g bare gate pivot > a bare",
            knows_no_pivot,
            COMPLETION,
            DecisionStands,
        )
    };
    rows.into_iter().map(of).chain([pivot]).collect()
}

fn of((what, told, broken, left, finds): Row) -> Control {
    planner(what, told, broken, left, finds)
}

pub(in super::super) fn broken_rules() -> Vec<Control> {
    let real = Rules::REAL;
    let death = Budget { deaths: 1, ..NOTHING };
    vec![
        rule("the fence lacks the mark", "a > b", Rules { mark: false, ..real }, COMPLETION, CompletionHeard),
        rule(
            "what queues a wait reads no completion",
            "a > w wait",
            Rules { queue_reads_completions: false, ..real },
            COMPLETION,
            CompletionHeard,
        ),
        rule(
            "a rescue drops the mark",
            "w wait",
            Rules { mark_is_kept: false, ..real },
            Budget { deaths: 1, ..COMPLETION },
            CompletionHeard,
        ),
        rule(
            "an interrupt overwrites the mark",
            "w wait",
            Rules { mark_beside_interrupt: false, ..real },
            BOTH,
            CompletionHeard,
        ),
        rule(
            "a completion behind the back of a plan",
            "a > b > w wait",
            Rules { two_moments: true, completion_raises_version: false, ..real },
            COMPLETION,
            Folds,
        ),
        rule(
            "a completion of what unwinds",
            "a > b > w wait",
            Rules { aborting_refuses_completions: false, ..real },
            COMPLETION,
            BackwardOrder,
        ),
        rule(
            "a rescue records a question",
            "g bare gate > a",
            Rules { rescue_spares_waits: false, ..real },
            death,
            NothingUnknown,
        ),
        rule(
            "a submit after an abort",
            "g bare gate pivot > a bare",
            Rules { abort_closes_gate: false, ..real },
            BOTH,
            PivotStands,
        ),
        rule(
            "a skip opens a gate",
            "g bare gate pivot > a bare",
            Rules { skip_spares_gate: false, ..real },
            Budget { decisions: 1, ..ABORT },
            PivotStands,
        ),
    ]
}
