//! What the world reports: completions, submits, and the ends of waits.

use super::super::*;
use super::model::{Holder, Model, World};
use super::moves::Move;

impl World<'_> {
    pub(super) fn waits_and_completions(&self, model: &Model, moves: &mut Vec<Move>) {
        for index in self.all() {
            if model.steps[index].row.is_some_and(|row| row.wait == TaskWait::Pending) {
                moves.push(Move::WaitEnds(index));
            }
            for op in Op::ALL {
                for completion in Completion::ALL {
                    if model.left.completions > 0 && self.takes(model, index, op, completion) {
                        moves.push(Move::Complete(index, op, completion));
                    }
                }
            }
        }
    }

    /// The first completion counts; another one, and one for an op that is over, is refused.
    fn takes(&self, model: &Model, index: usize, op: Op, completion: Completion) -> bool {
        let step = &model.steps[index];
        if step.completion(op).is_some() {
            return false;
        }
        let runs = step.running() == Some(op);
        let is_stuck = step.stuck.is_some_and(|next| next.op == op);
        let is_claimed = step.row.is_some_and(|row| row.holder != Holder::Nobody);
        let was_called = is_stuck || runs && (is_claimed || step.past(op).tries > 0);
        match (op, self.graph.action(index)) {
            (Op::Compensate, _) | (Op::Action, ActionKind::Call) => was_called,
            (Op::Action, ActionKind::Wait) => {
                let is_over = model.aborting && self.rules.aborting_refuses_completions;
                runs || is_stuck || !step.has_begun() && !is_over
            }
            (Op::Action, ActionKind::Gate { .. }) => {
                let is_closed = model.abort_requested && self.rules.abort_closes_gate;
                completion == Completion::Success && !is_closed && (runs || is_stuck)
            }
            (Op::Action, ActionKind::Workflow) => runs || is_stuck,
            (Op::Action, ActionKind::Decision | ActionKind::Outside) => false,
        }
    }

    pub(super) fn complete(&self, after: &mut Model, index: usize, op: Op, completion: Completion) {
        after.left.completions -= 1;
        if self.rules.completion_raises_version {
            after.raise_version();
        }
        // What is stuck goes on with it, as after a person's retry.
        let awaits = after.abort_requested && !self.pivot_done(after);
        if after.steps[index].stuck.is_some_and(|next| next.op == op) {
            self.unstick(after, index, awaits.then_some(Interrupt::Unwind));
        }
        let step = &mut after.steps[index];
        step.completions[op as usize] = Some(completion);
        let has_effect = completion == Completion::Success && op == Op::Action && !self.only_asks(index);
        step.happened |= has_effect;
        if let Some(row) = step.row.as_mut().filter(|row| row.now.op == op) {
            row.marked = true;
        } else if has_effect {
            step.state = State::Reported;
        }
    }
}
