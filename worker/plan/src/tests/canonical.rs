//! One form for states that nothing to come can tell apart, so that each is visited once.

use super::super::*;
use super::model::{Holder, Model, Past, STEPS_MAX, Step, TRIES_MAX, World};

impl Past {
    /// What the rest of the saga's life can tell apart once the op is over.
    fn over(&mut self) {
        *self = Past {
            tries: self.tries.min(1),
            counted: 0,
            unknown: self.may_have_taken_effect() && !self.success,
            last: None,
            accepted: false,
            ..*self
        };
    }
}

impl World<'_> {
    /// One form for states that nothing to come can tell apart.
    pub(super) fn canonical(&self, model: &mut Model) {
        let is_void = self.rules.pivot_ends_deadline && self.pivot_done(model);
        if model.abort_requested || model.ended.is_some() || is_void {
            (model.left.aborts, model.left.deadlines, model.overdue) = (0, 0, false);
        }
        model.unwinds |= model.aborting && self.all().all(|i| model.steps[i].running() != Some(Op::Action));
        for index in self.all() {
            self.canonical_step(model, index);
        }
        if !self.rules.two_moments {
            self.sort(model);
        }
        let holder = |step: &Step| step.row.map_or(Holder::Nobody, |row| row.holder);
        let mut named = model.steps.iter().map(holder).chain(model.repeat.map(|repeat| repeat.worker));
        let is_second = match named.find(|holder| matches!(holder, Holder::One | Holder::Two)) {
            Some(holder) => holder == Holder::Two,
            None => model.seen[0].is_none(),
        };
        if is_second {
            model.seen.swap(0, 1);
            let rows = model.steps.iter_mut().filter_map(|step| step.row.as_mut().map(|row| &mut row.holder));
            for holder in rows.chain(model.repeat.as_mut().map(|repeat| &mut repeat.worker)) {
                *holder = match *holder {
                    Holder::One => Holder::Two,
                    Holder::Two => Holder::One,
                    other => other,
                };
            }
        }
    }

    fn canonical_step(&self, model: &mut Model, index: usize) {
        let is_aborting = model.aborting;
        let step = &mut model.steps[index];
        for op in Op::ALL {
            let is_open = step.running() == Some(op) || step.stuck.is_some_and(|next| next.op == op);
            let counted_max = self.limit(index, op).map_or(0, |limit| limit + 1);
            let past = step.past_mut(op);
            if is_open {
                past.tries = past.tries.min(TRIES_MAX - 1);
                past.counted = past.counted.min(counted_max);
            } else {
                past.over();
                past.refused &= self.graph.pivot() == Some(index) || self.graph.compensate_failed();
            }
        }
        if let Some(now) = step.row.as_mut().map(|row| &mut row.now).or(step.stuck.as_mut()) {
            now.attempt = now.attempt.min(TRIES_MAX);
            now.counted = now.counted.min(self.limit(index, now.op).map_or(0, |limit| limit + 1));
        }
        step.happened &= !step.action.may_have_taken_effect();
        if step.state == State::Undone || step.compensation.success {
            (step.action.unknown, step.action.success) = (step.action.may_have_taken_effect(), false);
        }
        if is_aborting && step.state == State::NoEffect {
            step.action.tries = 0;
        }
    }

    /// Steps that differ in nothing but their place.
    fn sort(&self, model: &mut Model) {
        if self.twins.is_empty() {
            return;
        }
        let key = |step: &Step| {
            let mut step = *step;
            if let Some(row) = &mut step.row {
                row.now.step = 0;
                if row.holder == Holder::Two {
                    row.holder = Holder::One;
                }
            }
            if let Some(next) = &mut step.stuck {
                next.step = 0;
            }
            step.packed()
        };
        let mut keys = [0; STEPS_MAX];
        for index in self.all() {
            keys[index] = key(&model.steps[index]);
        }
        for _ in 1..self.graph.count() {
            for &(one, other) in &self.twins {
                if keys[one] > keys[other] {
                    keys.swap(one, other);
                    model.steps.swap(one, other);
                }
            }
        }
        for index in self.all() {
            let step = &mut model.steps[index];
            for now in step.row.iter_mut().map(|row| &mut row.now).chain(&mut step.stuck) {
                now.step = index;
            }
        }
    }
}
