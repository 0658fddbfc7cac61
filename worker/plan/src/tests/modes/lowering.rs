//! The table of modes: what each becomes, in which order, and under which names.

use super::super::super::*;
use super::super::told::{Saga, of};

const CALL: StepPolicy = StepPolicy {
    action: ActionKind::Call,
    has_compensation: true,
    retry_limit: None,
    compensate_retry_limit: None,
};
const GATE: Option<Gate> = Some(Gate { asks: false });

fn lowered(mode: Mode, branches: usize, gate: Option<Gate>) -> Lowered {
    lower(mode, Given { branches: vec![CALL; branches], gate, ..Given::default() }).unwrap()
}

fn told(name: BranchOp) -> String {
    if name.branch == 0 { name.op.word().to_owned() } else { format!("{}{}", name.op.word(), name.branch) }
}

fn names(layout: Layout, op: Op) -> Vec<String> {
    (0..layout.steps()).filter_map(|step| layout.name(step, op)).map(told).collect()
}

/// The ops in the order in which a saga that succeeds has them, and in which one that fails after
/// everything before the decision undoes it.
fn orders(mode: Mode, branches: usize, gate: Option<Gate>) -> (String, String) {
    let Lowered { layout, .. } = lowered(mode, branches, gate);
    let backward: Vec<String> = names(layout, Op::Compensate).into_iter().rev().collect();
    (names(layout, Op::Action).join(" "), backward.join(" "))
}

#[test]
fn every_mode_has_its_order() {
    for (mode, gate, forward, backward) in [
        (Mode::Saga, None, "action1 action2", "compensate2 compensate1"),
        (Mode::Saga, GATE, "decision action1 action2", "compensate2 compensate1"),
        (Mode::Msg, None, "decision action1 action2", ""),
        (Mode::Msg, GATE, "decision action1 action2", ""),
        (Mode::Tcc, None, "try1 try2 decision confirm2 confirm1", "cancel2 cancel1"),
        (Mode::Tcc, GATE, "try1 try2 decision confirm2 confirm1", "cancel2 cancel1"),
        (Mode::Xa, GATE, "prepare2 prepare1 decision commit1 commit2", "rollback1 rollback2"),
    ] {
        let (found, undone) = orders(mode, 2, gate);
        assert_eq!((found.as_str(), undone.as_str()), (forward, backward), "{mode:?} {gate:?}");
    }
    assert_eq!(orders(Mode::Workflow, 1, None).0, "action1");
    assert_eq!(orders(Mode::Workflow, 1, GATE).0, "decision action1");
    assert_eq!(orders(Mode::Tcc, 0, GATE).0, "decision", "branches are registered later");
}

#[test]
fn every_name_is_found_again() {
    for mode in Mode::VALUES {
        for gate in [None, GATE] {
            for branches in 1..4 {
                let layout = Layout::new(*mode, branches, gate.is_some());
                for step in 0..layout.steps() {
                    for op in Op::ALL {
                        let Some(name) = layout.name(step, op) else { continue };
                        assert_eq!(layout.find(name), Some((step, op)), "{layout:?}: {name:?}");
                    }
                }
                for op in WireOp::VALUES {
                    for branch in [0, 1, branches + 1, usize::MAX] {
                        let name = BranchOp { branch, op: *op };
                        let found = layout.find(name);
                        let again = found.and_then(|(step, op)| layout.name(step, op));
                        assert!(found.is_none() || again == Some(name), "{layout:?}: {name:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_word_can_be_read_back() {
    for mode in Mode::VALUES {
        assert_eq!(Mode::of(mode.word()), Some(*mode));
    }
    for op in WireOp::VALUES {
        assert_eq!(WireOp::of(op.word()), Some(*op));
    }
    for op in Op::ALL {
        assert!(WireOp::of(op.as_str()).is_some(), "a saga's words are the planner's");
    }
}

#[test]
fn a_plain_saga_is_lowered_onto_itself() {
    let given = Given { branches: vec![CALL; 3], pivot: Some(1), ..Given::default() };
    let Lowered { graph, layout } = lower(Mode::Saga, given).unwrap();
    assert_eq!(graph, StepGraph::sequential(vec![CALL; 3], Some(1)));
    assert_eq!((layout.steps(), layout.decision()), (3, None));
}

#[test]
fn a_gate_stands_before_every_step_of_a_saga() {
    let given = Given {
        branches: vec![CALL; 2],
        after: Some(vec![vec![], vec![]]),
        pivot: None,
        gate: GATE,
        ..Given::default()
    };
    let graph = lower(Mode::Saga, given).unwrap().graph;
    assert_eq!((graph.after(0), graph.after(1), graph.after(2)), (&[][..], &[0][..], &[0][..]));
    let given = Given { branches: vec![CALL; 2], pivot: Some(1), gate: GATE, ..Given::default() };
    assert_eq!(lower(Mode::Saga, given).unwrap().graph.pivot(), Some(2), "the gate is no pivot");
}

#[test]
fn the_decision_is_the_pivot() {
    for (mode, gate) in
        [(Mode::Msg, None), (Mode::Msg, GATE), (Mode::Tcc, None), (Mode::Tcc, GATE), (Mode::Xa, GATE)]
    {
        let Lowered { graph, layout } = lowered(mode, 2, gate);
        assert_eq!(graph.pivot(), layout.decision(), "{mode:?}");
    }
}

#[test]
fn a_message_that_was_submitted_begins_past_its_decision() {
    let (progress, queued) = insert(&lowered(Mode::Msg, 2, None).graph);
    assert_eq!((progress.text().as_str(), queued), ("da.", vec![Attempt::first(1, Op::Action)]));
}

#[test]
fn what_was_registered_is_never_called_and_is_undone() {
    let Lowered { graph, layout } = lowered(Mode::Xa, 2, GATE);
    let mut saga: Saga = of(graph, names(layout, Op::Action));
    assert_eq!(saga.tasks(), "decision1");
    saga.is_aborted();
    saga.is_met("decision");
    let undone = layout.find(BranchOp { branch: 1, op: WireOp::Rollback }).unwrap();
    assert_eq!((undone, saga.tasks().as_str()), ((1, Op::Compensate), "~prepare11"), "first first");
}

#[test]
fn a_branch_that_is_registered_moves_the_decision_and_keeps_its_name() {
    let [before, after] = [1, 2].map(|branches| Layout::new(Mode::Tcc, branches, true));
    let gate = BranchOp { branch: 0, op: WireOp::Decision };
    assert_eq!((before.find(gate), after.find(gate)), (Some((1, Op::Action)), Some((2, Op::Action))));
    let first = BranchOp { branch: 1, op: WireOp::Cancel };
    assert_eq!(before.find(first), after.find(first));
}

#[test]
fn what_a_mode_does_not_allow_is_refused() {
    let given = |branches, gate| Given { branches: vec![CALL; branches], gate, ..Given::default() };
    let said = |mode, given| lower(mode, given).unwrap_err().to_string();
    assert_eq!(said(Mode::Xa, given(1, None)), "an xa that is not prepared");
    assert_eq!(said(Mode::Workflow, given(2, None)), "2 branches of a workflow; allowed: 1");
    let pivot = Given { pivot: Some(0), ..given(1, GATE) };
    assert_eq!(said(Mode::Tcc, pivot), "a pivot in mode tcc; allowed in: saga");
    let order = Given { after: Some(vec![vec![]]), ..given(1, GATE) };
    assert_eq!(said(Mode::Xa, order), "an order of branches in mode xa; allowed in: saga, msg");
    assert_eq!(said(Mode::Tcc, given(500, GATE)), "1001 steps; allowed: at most 1000");
    assert_eq!(lowered(Mode::Tcc, 499, GATE).layout.steps(), 999);
}
