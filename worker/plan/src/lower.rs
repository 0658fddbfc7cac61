//! The modes, lowered onto steps, a decision and waits. The planner knows none of them.
//!
//! | mode | becomes | pivot |
//! |---|---|---|
//! | saga | \[gate\] · step 1 · step 2 … | the step that the row names |
//! | msg | decision · action 1 · action 2 … | the decision |
//! | tcc, submitted | try 1 · try 2 · decision · confirm 2 · confirm 1 | the decision |
//! | tcc, prepared | the same; the application has done the tries | the gate |
//! | xa | branch 2 · branch 1 · gate · commit 1 · commit 2 | the gate |
//! | workflow | \[gate\] · the code | the code |
//!
//! A `cancel` is the compensation of a `try`, a `rollback` that of a registered branch. So cancels
//! run last first and rollbacks first first, as in DTM.

use crate::event::Op;
use crate::graph::{ActionKind, Cyclic, STEPS_MAX, StepGraph, StepPolicy};
use crate::word::Word;

/// The mode of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Steps with compensations.
    Saga,
    /// Steps that only go forward.
    Msg,
    /// Try, then confirm or cancel.
    Tcc,
    /// Prepared transactions of participants, then commit or rollback.
    Xa,
    /// Code whose steps are not known before.
    Workflow,
}

impl Word for Mode {
    const VALUES: &'static [Mode] = &[Mode::Saga, Mode::Msg, Mode::Tcc, Mode::Xa, Mode::Workflow];

    fn word(self) -> &'static str {
        match self {
            Mode::Saga => "saga",
            Mode::Msg => "msg",
            Mode::Tcc => "tcc",
            Mode::Xa => "xa",
            Mode::Workflow => "workflow",
        }
    }
}

/// An op as tasks, history and calls name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireOp {
    /// The forward op of a step.
    Action,
    /// The backward op of a step.
    Compensate,
    /// The forward op of a tcc branch, before the decision.
    Try,
    /// The forward op of a tcc branch, after the decision.
    Confirm,
    /// The backward op of a tcc branch.
    Cancel,
    /// What a participant of an xa does before the decision. A worker never calls it.
    Prepare,
    /// The forward op of an xa branch, after the decision.
    Commit,
    /// The backward op of an xa branch.
    Rollback,
    /// The gate, or the decision of a saga that was submitted at once.
    Decision,
}

impl Word for WireOp {
    const VALUES: &'static [WireOp] = &[
        WireOp::Action,
        WireOp::Compensate,
        WireOp::Try,
        WireOp::Confirm,
        WireOp::Cancel,
        WireOp::Prepare,
        WireOp::Commit,
        WireOp::Rollback,
        WireOp::Decision,
    ];

    fn word(self) -> &'static str {
        match self {
            WireOp::Action => Op::Action.as_str(),
            WireOp::Compensate => Op::Compensate.as_str(),
            WireOp::Try => "try",
            WireOp::Confirm => "confirm",
            WireOp::Cancel => "cancel",
            WireOp::Prepare => "prepare",
            WireOp::Commit => "commit",
            WireOp::Rollback => "rollback",
            WireOp::Decision => "decision",
        }
    }
}

/// An op of a branch: what tasks and history name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BranchOp {
    /// The branch's position in the row, from 1. The decision is 0.
    pub branch: usize,
    /// The op.
    pub op: WireOp,
}

/// What the row of a saga gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// The branches in the row's order. A workflow has one, its code.
    pub branches: Vec<StepPolicy>,
    /// The branches that each branch waits for. `None`: the one before.
    pub after: Option<Vec<Vec<usize>>>,
    /// The branch that is the point of no return.
    pub pivot: Option<usize>,
    /// The saga was inserted as `prepared`, and whether it names a `query_prepared`.
    pub gate: Option<Gate>,
    /// A refused step is compensated as well.
    pub compensate_failed: bool,
}

/// The gate of a saga that was inserted as `prepared`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    /// At its end `query_prepared` is asked.
    pub asks: bool,
}

/// A row whose mode does not allow what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Only a saga and a message have an order of their own.
    #[error("an order of branches in mode {}; allowed in: saga, msg", .0.word())]
    Order(Mode),
    /// Only a saga names its pivot.
    #[error("a pivot in mode {}; allowed in: saga", .0.word())]
    Pivot(Mode),
    /// An xa begins with its branches, which are registered before the decision.
    #[error("an xa that is not prepared")]
    Unprepared,
    /// A workflow is its code.
    #[error("{0} branches of a workflow; allowed: 1")]
    Workflow(usize),
    /// The lowered steps are too many.
    #[error("{0} steps; allowed: at most {STEPS_MAX}")]
    Steps(usize),
    /// The order is none.
    #[error(transparent)]
    Cyclic(#[from] Cyclic),
}

/// Where the ops of each branch stand among the lowered steps. A few numbers, whatever the saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    mode: Mode,
    branches: usize,
    /// The saga has a gate.
    gated: bool,
}

/// A saga of any mode, as the planner knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// The steps.
    pub graph: StepGraph,
    /// Their names.
    pub layout: Layout,
}

impl Layout {
    /// The layout of a saga of `branches` branches.
    pub fn new(mode: Mode, branches: usize, gated: bool) -> Layout {
        Layout { mode, branches, gated }
    }

    /// Number of lowered steps.
    pub fn steps(self) -> usize {
        match self.mode {
            Mode::Saga | Mode::Workflow => self.branches + usize::from(self.gated),
            Mode::Msg => self.branches + 1,
            Mode::Tcc | Mode::Xa => 2 * self.branches + 1,
        }
    }

    /// The lowered step that is the gate or the decision.
    pub fn decision(self) -> Option<usize> {
        match self.mode {
            Mode::Saga | Mode::Workflow => self.gated.then_some(0),
            Mode::Msg => Some(0),
            Mode::Tcc | Mode::Xa => Some(self.branches),
        }
    }

    /// The name of `op` of lowered step `index`. `None`: there is no such op.
    pub fn name(self, index: usize, op: Op) -> Option<BranchOp> {
        if index >= self.steps() {
            return None;
        }
        let (branch, words) = match self.decision() {
            Some(decision) if decision == index => (0, (WireOp::Decision, None)),
            Some(decision) if index > decision => self.after_decision(index - decision),
            _ => self.before_decision(index),
        };
        let op = match op {
            Op::Action => words.0,
            Op::Compensate => words.1?,
        };
        Some(BranchOp { branch, op })
    }

    fn before_decision(self, index: usize) -> (usize, (WireOp, Option<WireOp>)) {
        match self.mode {
            Mode::Tcc => (index + 1, (WireOp::Try, Some(WireOp::Cancel))),
            // Branches stand last first, so that rollbacks run first first.
            Mode::Xa => (self.branches - index, (WireOp::Prepare, Some(WireOp::Rollback))),
            Mode::Saga => (index + 1, (WireOp::Action, Some(WireOp::Compensate))),
            Mode::Msg | Mode::Workflow => (index + 1, (WireOp::Action, None)),
        }
    }

    /// `nth` counts from 1.
    fn after_decision(self, nth: usize) -> (usize, (WireOp, Option<WireOp>)) {
        match self.mode {
            Mode::Tcc => (self.branches + 1 - nth, (WireOp::Confirm, None)),
            Mode::Xa => (nth, (WireOp::Commit, None)),
            Mode::Saga => (nth, (WireOp::Action, Some(WireOp::Compensate))),
            Mode::Msg | Mode::Workflow => (nth, (WireOp::Action, None)),
        }
    }

    /// The lowered step and op of a name. `None`: the saga has no such op.
    pub fn find(self, name: BranchOp) -> Option<(usize, Op)> {
        let BranchOp { branch, op } = name;
        let place = match (branch, op) {
            (0, _) => (self.decision()?, Op::Action),
            (_, WireOp::Action) => (branch - 1 + self.front(), Op::Action),
            (_, WireOp::Compensate) => (branch - 1 + self.front(), Op::Compensate),
            (_, WireOp::Try) => (branch - 1, Op::Action),
            (_, WireOp::Cancel) => (branch - 1, Op::Compensate),
            (_, WireOp::Confirm) => ((2 * self.branches + 1).checked_sub(branch)?, Op::Action),
            (_, WireOp::Prepare) => (self.branches.checked_sub(branch)?, Op::Action),
            (_, WireOp::Rollback) => (self.branches.checked_sub(branch)?, Op::Compensate),
            (_, WireOp::Commit) => (self.branches.checked_add(branch)?, Op::Action),
            (_, WireOp::Decision) => return None,
        };
        (self.name(place.0, place.1)? == name).then_some(place)
    }

    /// Number of lowered steps before the first branch.
    fn front(self) -> usize {
        usize::from(self.decision() == Some(0))
    }
}

/// Lowers what the row gives.
///
/// # Errors
/// [`Unfit`] where the mode does not allow it; the INSERT has refused such a row.
pub fn lower(mode: Mode, given: Given) -> Result<Lowered, Unfit> {
    let layout = Layout::new(mode, given.branches.len(), given.gate.is_some());
    if layout.steps() > STEPS_MAX {
        return Err(Unfit::Steps(layout.steps()));
    }
    check(mode, &given)?;
    let compensate_failed = given.compensate_failed;
    let graph = match mode {
        Mode::Saga if given.gate.is_none() => ordered(given.branches, given.pivot, given.after)?,
        Mode::Saga | Mode::Msg => behind_decision(mode, given)?,
        Mode::Tcc | Mode::Xa => two_phases(mode, given),
        Mode::Workflow => workflow(given),
    };
    Ok(Lowered { graph: graph.with_compensate_failed(compensate_failed), layout })
}

fn check(mode: Mode, given: &Given) -> Result<(), Unfit> {
    match mode {
        Mode::Saga => return Ok(()),
        Mode::Msg => {}
        Mode::Workflow if given.branches.len() != 1 => return Err(Unfit::Workflow(given.branches.len())),
        Mode::Xa if given.gate.is_none() => return Err(Unfit::Unprepared),
        Mode::Tcc | Mode::Xa | Mode::Workflow if given.after.is_some() => return Err(Unfit::Order(mode)),
        Mode::Tcc | Mode::Xa | Mode::Workflow => {}
    }
    if given.pivot.is_some() { Err(Unfit::Pivot(mode)) } else { Ok(()) }
}

fn ordered(
    policies: Vec<StepPolicy>,
    pivot: Option<usize>,
    after: Option<Vec<Vec<usize>>>,
) -> Result<StepGraph, Cyclic> {
    match after {
        None => Ok(StepGraph::sequential(policies, pivot)),
        Some(after) => StepGraph::partial(policies, pivot, after),
    }
}

fn bare(action: ActionKind) -> StepPolicy {
    StepPolicy { action, ..StepPolicy::default() }
}

fn gate(gate: Option<Gate>) -> Option<StepPolicy> {
    gate.map(|gate| bare(ActionKind::Gate { asks: gate.asks }))
}

/// A decision, and every branch after it.
fn behind_decision(mode: Mode, given: Given) -> Result<StepGraph, Cyclic> {
    // A message that was inserted as submitted begins past its decision.
    let decision = gate(given.gate).unwrap_or(bare(ActionKind::Outside));
    let branches = given.branches.into_iter().map(|branch| StepPolicy {
        has_compensation: branch.has_compensation && mode == Mode::Saga,
        ..branch
    });
    let policies = [decision].into_iter().chain(branches).collect();
    let pivot = if mode == Mode::Msg { Some(0) } else { given.pivot.map(|pivot| pivot + 1) };
    let behind =
        |before: Vec<usize>| [0].into_iter().chain(before.into_iter().map(|step| step + 1)).collect();
    let after = given.after.map(|after| [vec![]].into_iter().chain(after.into_iter().map(behind)).collect());
    ordered(policies, pivot, after)
}

/// Branches, a decision, and the branches again.
fn two_phases(mode: Mode, given: Given) -> StepGraph {
    let is_driven = given.gate.is_some();
    let first = |branch: &StepPolicy| StepPolicy {
        action: if is_driven { ActionKind::Outside } else { branch.action },
        has_compensation: true,
        ..*branch
    };
    let second = |_: &StepPolicy| bare(ActionKind::Call);
    let decision = gate(given.gate).unwrap_or(bare(ActionKind::Decision));
    let branches = &given.branches;
    let policies = if mode == Mode::Xa {
        let last_first = branches.iter().rev().map(first);
        last_first.chain([decision]).chain(branches.iter().map(second)).collect()
    } else {
        let last_first = branches.iter().rev().map(second);
        branches.iter().map(first).chain([decision]).chain(last_first).collect()
    };
    StepGraph::sequential(policies, Some(branches.len()))
}

fn workflow(given: Given) -> StepGraph {
    let gate = gate(given.gate);
    let code = usize::from(gate.is_some());
    let policies = gate.into_iter().chain([bare(ActionKind::Workflow)]).collect();
    StepGraph::sequential(policies, Some(code))
}
