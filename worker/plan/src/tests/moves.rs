//! What can happen next.

use std::fmt;

use super::super::*;
use super::invariant::Broken;
use super::model::{Holder, Model, Row, STEPS_MAX, Seen, Step, World};
use super::settle::{Calls, Came};

/// One thing that happens; steps count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Claim(Holder, usize),
    /// Its worker does not learn of the claim.
    ClaimUnawares(Holder, usize),
    /// A worker reads the saga, to plan.
    Read(Holder),
    Settle {
        by: Holder,
        calls: Calls,
        reply_lost: bool,
    },
    /// A worker that does not know that its settle was applied says it again.
    SayAgain,
    /// A worker returns what it has not started.
    HandBack(usize),
    /// A worker finds out what it has and does not know of.
    Reconcile(usize),
    /// A worker is declared dead: at worst while its calls run, or before it could settle them.
    /// (That a call was not made is a case of that it may not have happened.) Its late answers
    /// change nothing: they are refused because it is dead until its tasks are rescued, and from
    /// then on because there are none with those ids.
    Die(Holder),
    Rescue {
        step: usize,
        kills: bool,
    },
    Abort,
    /// Without a lock on the saga an abort looks first and interrupts later.
    AbortLooks,
    AbortInterrupts,
    DeadlinePasses,
    Skip(usize),
    Retry,
    Force,
}

impl fmt::Display for Move {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Move::Claim(worker, step) => write!(to, "{worker:?} claims step {}", step + 1),
            Move::ClaimUnawares(worker, step) => {
                write!(to, "{worker:?} claims step {} and does not learn it", step + 1)
            }
            Move::Read(worker) => write!(to, "{worker:?} reads the saga"),
            Move::Settle { by, calls, reply_lost } => {
                write!(to, "{by:?} settles")?;
                for (step, came) in calls.iter().flatten() {
                    write!(to, " step {}: {};", step + 1, came.as_str())?;
                }
                if *reply_lost { write!(to, " and does not learn that it did") } else { Ok(()) }
            }
            Move::SayAgain => write!(to, "it settles the same again"),
            Move::HandBack(step) => write!(to, "step {} is handed back", step + 1),
            Move::Reconcile(step) => write!(to, "step {} is found and handed back", step + 1),
            Move::Die(worker) => write!(to, "{worker:?} dies"),
            Move::Rescue { step, kills: false } => write!(to, "step {} is rescued", step + 1),
            Move::Rescue { step, kills: true } => write!(to, "step {} is rescued, and kills", step + 1),
            Move::Abort => write!(to, "the saga is aborted"),
            Move::AbortLooks => write!(to, "an abort looks at the tasks"),
            Move::AbortInterrupts => write!(to, "the abort interrupts what it saw"),
            Move::DeadlinePasses => write!(to, "the deadline passes"),
            Move::Skip(step) => write!(to, "a person skips step {}", step + 1),
            Move::Retry => write!(to, "a person retries"),
            Move::Force => write!(to, "a person ends the saga"),
        }
    }
}

impl Move {
    /// The same settle, applied without its worker's knowledge, where that makes a difference: it
    /// made a task.
    pub(super) fn with_reply_lost(self, world: &World<'_>, before: &Model, after: &Model) -> Option<Move> {
        // A parallel saga has no chain: its worker holds nothing that it does not know of.
        if !world.graph.is_sequential() || before.left.lost_replies == 0 {
            return None;
        }
        let Move::Settle { by, calls, reply_lost: false } = self else { return None };
        let mut steps = before.steps.iter().zip(&after.steps);
        let starts = steps.any(|(before, after)| after.row.is_some() && after.running() != before.running());
        starts.then_some(Move::Settle { by, calls, reply_lost: true })
    }
}

impl World<'_> {
    /// Everything that can happen next.
    pub(super) fn moves(&self, model: &Model, moves: &mut Vec<Move>) {
        moves.clear();
        if model.repeat.is_some() {
            moves.push(Move::SayAgain);
        }
        if model.ended.is_some() {
            return;
        }
        let idle = |worker| !self.all().any(|i| model.steps[i].row.is_some_and(|row| row.holder == worker));
        for index in self.all() {
            let Some(row) = model.steps[index].row else { continue };
            match row.holder {
                Holder::Nobody => {
                    moves.push(Move::Claim(Holder::One, index));
                    // Two idle workers are the same.
                    if !idle(Holder::One) || model.repeat.is_some() {
                        moves.push(Move::Claim(Holder::Two, index));
                    }
                    if model.left.lost_replies > 0 {
                        moves.push(Move::ClaimUnawares(Holder::One, index));
                    }
                    if model.left.lost_replies > 0 && !idle(Holder::One) {
                        moves.push(Move::ClaimUnawares(Holder::Two, index));
                    }
                }
                Holder::Dead => {
                    moves.push(Move::Rescue { step: index, kills: false });
                    moves.push(Move::Rescue { step: index, kills: true });
                }
                Holder::One | Holder::Two if row.forgotten => moves.push(Move::Reconcile(index)),
                // A parallel saga's is then as it was before its claim.
                Holder::One | Holder::Two if !self.graph.is_sequential() => {}
                Holder::One | Holder::Two => moves.push(Move::HandBack(index)),
            }
        }
        for worker in Holder::WORKERS {
            self.settles(model, worker, moves);
            if model.left.deaths > 0 && !idle(worker) {
                moves.push(Move::Die(worker));
            }
        }
        self.interventions(model, moves);
    }

    /// Every group of the worker's tasks, with everything that the participants can have said.
    fn settles(&self, model: &Model, worker: Holder, moves: &mut Vec<Move>) {
        let held =
            |index: &usize| model.steps[*index].row.is_some_and(|row| row.holder == worker && !row.forgotten);
        let held: Vec<usize> = self.all().filter(held).collect();
        let plans_first = self.rules.two_moments && !self.graph.is_sequential();
        if plans_first && model.seen[usize::from(worker == Holder::Two)].is_none() {
            if !held.is_empty() {
                moves.push(Move::Read(worker));
            }
            return;
        }
        let mut groups: Vec<Calls> = vec![[None; STEPS_MAX]];
        for (place, &index) in held.iter().enumerate() {
            let Some(row) = model.steps[index].row else { continue };
            let said = Outcome::ALL
                .into_iter()
                .filter(|outcome| row.callable && self.can_end_with(&row.now, *outcome));
            let uncalled = (!row.callable || !self.may_call_now(model, &row)).then_some(Came::Uncalled);
            let unbuildable = row.callable.then_some(Came::Unbuildable);
            for group in 0..groups.len() {
                for came in said.clone().map(Came::Called).chain(uncalled).chain(unbuildable) {
                    let mut calls = groups[group];
                    calls[place] = Some((index, came));
                    groups.push(calls);
                }
            }
        }
        for calls in groups.drain(1..) {
            moves.push(Move::Settle { by: worker, calls, reply_lost: false });
        }
    }

    /// The last try of an op brings it to its end.
    fn can_end_with(&self, now: &Attempt, outcome: Outcome) -> bool {
        now.attempt < self.last_try
            || match outcome {
                Outcome::Success | Outcome::Failure => true,
                Outcome::Ongoing => false,
                Outcome::Unknown | Outcome::Unsent => {
                    now.attempt == self.last_try
                        && self.limit(now.step, now.op).is_some_and(|limit| now.counted == limit)
                }
            }
    }

    fn may_call_now(&self, model: &Model, row: &Row) -> bool {
        may_call(self.graph, &Event { interrupt: row.known, ..self.event(model, row, None) })
    }

    fn interventions(&self, model: &Model, moves: &mut Vec<Move>) {
        let may_abort = !model.abort_requested && !model.forced && !self.pivot_done(model);
        if model.aborts_now {
            moves.push(Move::AbortInterrupts);
        } else if model.left.aborts > 0 && may_abort {
            moves.push(if self.rules.abort_locks { Move::Abort } else { Move::AbortLooks });
        }
        let acts = self.all().any(|index| model.steps[index].running() == Some(Op::Action));
        if model.left.deadlines > 0 && acts {
            moves.push(Move::DeadlinePasses);
        }
        if model.left.decisions > 0 && !model.forced {
            moves.push(Move::Force);
            if self.all().any(|index| model.steps[index].stuck.is_some()) {
                moves.push(Move::Retry);
            }
            for index in self.all() {
                let step = &model.steps[index];
                let spared = |row: &Row| {
                    let abort = row.interrupt == Some(Interrupt::Unwind) && self.graph.pivot() != Some(index);
                    self.rules.skip_spares_unwind && abort
                };
                if step.stuck.is_some() || step.row.is_some_and(|row| !spared(&row)) {
                    moves.push(Move::Skip(index));
                }
            }
        }
    }

    /// What one thing leads to.
    pub(super) fn apply(&self, before: &Model, next: Move) -> Result<Model, Broken> {
        let mut after = *before;
        match next {
            Move::Claim(worker, index) => {
                after.seen[usize::from(worker == Holder::Two)] = None;
                self.hold(&mut after, index, worker)?;
            }
            Move::ClaimUnawares(worker, index) => {
                after.left.lost_replies -= 1;
                if let Some(row) = &mut after.steps[index].row {
                    (row.holder, row.forgotten) = (worker, true);
                }
            }
            Move::Read(worker) => {
                for row in after.steps.iter_mut().filter_map(|step| step.row.as_mut()) {
                    row.unseen = false;
                }
                after.seen[usize::from(worker == Holder::Two)] = Some(Seen {
                    states: after.steps.map(|step| step.state),
                    abort_requested: after.abort_requested,
                    version_holds: true,
                });
            }
            Move::Settle { by, calls, reply_lost } => {
                after = self.settle(before, by, &calls, reply_lost)?;
                after.left.lost_replies -= u8::from(reply_lost);
            }
            Move::SayAgain => after = self.say_again(before)?,
            Move::HandBack(index) | Move::Reconcile(index) => {
                if let Some(row) = &mut after.steps[index].row {
                    *row = Row { killer: row.killer, unseen: row.unseen, ..Row::new(row.now, row.interrupt) };
                }
            }
            Move::Die(worker) => {
                after.left.deaths -= 1;
                after.seen[usize::from(worker == Holder::Two)] = None;
                after.repeat = after.repeat.filter(|repeat| repeat.worker != worker);
                for step in &mut after.steps {
                    let Some(row) = step.row.as_mut().filter(|row| row.holder == worker) else { continue };
                    step.happened |= row.callable && !row.forgotten && row.now.op == Op::Action;
                    *row =
                        Row { holder: Holder::Dead, forgotten: false, callable: false, known: None, ..*row };
                }
            }
            Move::Rescue { step, kills } => self.rescue(&mut after, step, kills),
            Move::Abort => {
                after.left.aborts -= 1;
                self.abort(&mut after);
            }
            Move::AbortLooks => {
                after.left.aborts -= 1;
                after.aborts_now = true;
            }
            Move::AbortInterrupts => self.abort(&mut after),
            Move::DeadlinePasses => {
                after.left.deadlines -= 1;
                after.overdue = true;
            }
            Move::Skip(index) => {
                after.left.decisions -= 1;
                self.unstick(&mut after, index, None);
                let step = &mut after.steps[index];
                if let Some(row) = &mut step.row {
                    row.interrupt = Some(Interrupt::Skip);
                    let op = row.now.op;
                    step.past_mut(op).skipped = true;
                }
            }
            Move::Retry => {
                after.left.decisions -= 1;
                let abort = after.abort_requested && !self.pivot_done(&after);
                for index in self.all() {
                    self.unstick(&mut after, index, abort.then_some(Interrupt::Unwind));
                }
            }
            Move::Force => self.force(&mut after),
        }
        self.check(&after)?;
        self.canonical(&mut after);
        Ok(after)
    }

    fn rescue(&self, after: &mut Model, index: usize, kills: bool) {
        let unseen = self.is_unseen(after);
        // A new row: a settle that is said again names the old one.
        after.repeat = None;
        if self.rules.retries_raise_version {
            after.raise_version();
        }
        let step = &mut after.steps[index];
        let Some(row) = step.row else { return };
        let mut next = row.now;
        if self.rules.rescue_records {
            step.past_mut(row.now.op).record(Outcome::Unknown);
            next.attempt += 1;
            next.counted += 1;
            next.unknown_before = true;
            next.last = Some(Outcome::Unknown);
        }
        let interrupt = row.interrupt.filter(|_| self.rules.rescue_keeps_interrupt);
        step.row = Some(Row { killer: kills, unseen, ..Row::new(next, interrupt) });
    }

    fn abort(&self, after: &mut Model) {
        after.aborts_now = false;
        after.abort_requested = true;
        after.raise_version();
        let stands = |step: &Step| step.running() == Some(Op::Action) || step.stuck.is_some();
        after.aborting = !self.graph.pivot().is_some_and(|pivot| stands(&after.steps[pivot]));
        for index in self.all() {
            self.unstick(after, index, Some(Interrupt::Unwind));
            let step = &mut after.steps[index];
            if let Some(row) = step.row.as_mut().filter(|row| row.now.op == Op::Action && !row.unseen) {
                // A task has one interrupt: what a person decided about it before is void.
                row.interrupt = Some(Interrupt::Unwind);
                step.action.skipped = false;
            }
        }
        for row in after.steps.iter_mut().filter_map(|step| step.row.as_mut()) {
            row.unseen = false;
        }
    }

    /// Queues the next try of a step that needed a person. Its limit begins again.
    fn unstick(&self, after: &mut Model, index: usize, interrupt: Option<Interrupt>) {
        let step = &mut after.steps[index];
        let Some(next) = step.stuck.take() else { return };
        let interrupt = interrupt.filter(|_| next.op == Op::Action);
        step.row = Some(Row::new(Attempt { counted: 0, ..next }, interrupt));
        step.past_mut(next.op).counted = 0;
        step.state = match next.op {
            Op::Action => State::Acting,
            Op::Compensate => State::Undoing,
        };
        after.raise_version();
    }

    /// Ends the saga where no call is in flight, else with the last of them.
    fn force(&self, after: &mut Model) {
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
