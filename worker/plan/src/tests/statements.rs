//! What statements outside a settle write: rescue, abort, retry, and the decision that ends a saga.

use super::super::*;
use super::model::{Holder, Model, Row, World};

impl World<'_> {
    pub(super) fn rescue(&self, after: &mut Model, index: usize, kills: bool) {
        let unseen = self.is_unseen(after);
        // A new row: a settle that is said again names the old one.
        after.repeat = None;
        if self.rules.retries_raise_version {
            after.raise_version();
        }
        let step = &mut after.steps[index];
        let Some(row) = step.row else { return };
        let mut next = row.now;
        let calls = row.now.op == Op::Compensate || self.graph.action(index) == ActionKind::Call;
        let records = !self.rules.rescue_spares_waits || calls && row.wait != TaskWait::Pending;
        if self.rules.rescue_records && records {
            step.past_mut(row.now.op).record(Outcome::Unknown);
            next.attempt += 1;
            next.counted += 1;
            next.unknown_before = true;
            next.last = Some(Outcome::Unknown);
        }
        let interrupt = row.interrupt.filter(|_| self.rules.rescue_keeps_interrupt);
        let marked = row.marked && self.rules.mark_is_kept;
        // A task that was called waits no more, but for a gate, which asks again after its end.
        let wait = if records && !self.is_gate(index) { TaskWait::None } else { row.wait };
        step.row = Some(Row { killer: kills, unseen, marked, wait, ..Row::new(next, interrupt) });
    }

    pub(super) fn abort(&self, after: &mut Model) {
        after.aborts_now = false;
        after.abort_requested = true;
        after.raise_version();
        let stands = |index: usize| {
            let step = &after.steps[index];
            // A gate that nobody has submitted is closed at once.
            let is_closed = self.is_gate(index) && step.completion(Op::Action).is_none();
            !is_closed && (step.running() == Some(Op::Action) || step.stuck.is_some())
        };
        after.aborting = !self.graph.pivot().is_some_and(stands);
        for index in self.all() {
            self.unstick(after, index, Some(Interrupt::Unwind));
            let step = &mut after.steps[index];
            if let Some(row) = step.row.as_mut().filter(|row| row.now.op == Op::Action && !row.unseen) {
                // A task has one interrupt: what a person decided about it before is void.
                row.interrupt = Some(Interrupt::Unwind);
                row.marked &= self.rules.mark_beside_interrupt;
                step.action.skipped = false;
            }
        }
        for row in after.steps.iter_mut().filter_map(|step| step.row.as_mut()) {
            row.unseen = false;
        }
    }

    /// Queues the next try of a step that needed a person. Its limit begins again.
    pub(super) fn unstick(&self, after: &mut Model, index: usize, interrupt: Option<Interrupt>) {
        let step = &mut after.steps[index];
        let Some(next) = step.stuck.take() else { return };
        let interrupt = interrupt.filter(|_| next.op == Op::Action);
        step.past_mut(next.op).counted = 0;
        step.completions[next.op as usize] = None;
        self.queue(step, self.begun(Attempt { counted: 0, ..next }), interrupt);
        step.state = match next.op {
            Op::Action => State::Acting,
            Op::Compensate => State::Undoing,
        };
        after.raise_version();
    }

    /// Ends the saga where no call is in flight, else with the last of them.
    pub(super) fn force(&self, after: &mut Model) {
        after.left.decisions -= 1;
        after.forced = true;
        after.raise_version();
        let mut rows = after.steps.iter().filter_map(|step| step.row);
        let in_flight = rows.any(|row| row.holder != Holder::Nobody);
        for step in &mut after.steps {
            step.stuck = None;
            step.row = step.row.filter(|_| in_flight);
            if let Some(row) = &mut step.row {
                row.interrupt = Some(Interrupt::End);
            }
        }
        after.ended = (!in_flight).then_some(SagaEnd::Decided);
    }
}
