//! What can happen next.

use std::fmt;

use super::super::*;
use super::invariant::Broken;
use super::model::{Holder, Model, Row, STEPS_MAX, Seen, World};
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
    /// The world reports how an op ended; of a gate: it is submitted.
    Complete(usize, Op, Completion),
    /// The end of a task's wait passes.
    WaitEnds(usize),
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
            Move::Complete(step, op, completion) => {
                let (op, said) = (op.as_str(), completion.as_str());
                write!(to, "a completion reports {said} of the {op} of step {}", step + 1)
            }
            Move::WaitEnds(step) => write!(to, "the wait of step {} ends", step + 1),
        }
    }
}

impl Move {
    /// The same settle, applied without its worker's knowledge, where that makes a difference: it
    /// made a task.
    pub(super) fn with_reply_lost(self, world: &World<'_>, before: &Model, after: &Model) -> Option<Move> {
        // A parallel saga has no chain: its worker holds nothing that it does not know of.
        if world.graph.keeps_progress() || before.left.lost_replies == 0 {
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
                Holder::One | Holder::Two if self.graph.keeps_progress() => {}
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
        self.waits_and_completions(model, moves);
    }

    /// Every group of the worker's tasks, with everything that the participants can have said.
    fn settles(&self, model: &Model, worker: Holder, moves: &mut Vec<Move>) {
        let held =
            |index: &usize| model.steps[*index].row.is_some_and(|row| row.holder == worker && !row.forgotten);
        let held: Vec<usize> = self.all().filter(held).collect();
        let plans_first = self.rules.two_moments && self.graph.keeps_progress();
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
            let accepted = (row.callable && model.left.accepted > 0 && !self.only_asks_now(&row.now))
                .then_some(Came::Accepted);
            for group in 0..groups.len() {
                for came in said.clone().map(Came::Called).chain(uncalled).chain(unbuildable).chain(accepted)
                {
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
        let event = self.event(model, row, None);
        let completion = event.completion.filter(|_| row.knows_mark);
        may_call(self.graph, &Event { interrupt: row.known, completion, ..event })
    }

    fn only_asks_now(&self, now: &Attempt) -> bool {
        now.op == Op::Action && self.only_asks(now.step)
    }

    fn interventions(&self, model: &Model, moves: &mut Vec<Move>) {
        let may_abort = !model.abort_requested && !model.forced && !self.pivot_done(model);
        if model.aborts_now {
            moves.push(Move::AbortInterrupts);
        } else if model.left.aborts > 0 && may_abort {
            moves.push(if self.rules.abort_locks { Move::Abort } else { Move::AbortLooks });
        }
        // The deadline of a prepared saga is the end of its gate.
        let acts =
            self.all().any(|index| model.steps[index].running() == Some(Op::Action) && !self.is_gate(index));
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
                if self.rules.skip_spares_gate && self.is_gate(index) {
                    continue;
                }
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
                let is_accepted = |(_, came): &&(usize, Came)| *came == Came::Accepted;
                let accepted = calls.iter().flatten().filter(is_accepted).count() as u8;
                after.left.accepted = after.left.accepted.saturating_sub(accepted);
            }
            Move::SayAgain => after = self.say_again(before)?,
            Move::HandBack(index) | Move::Reconcile(index) => {
                if let Some(row) = &mut after.steps[index].row {
                    let marked = row.marked && self.rules.mark_is_kept;
                    let Row { killer, unseen, wait, .. } = *row;
                    *row = Row { killer, unseen, marked, wait, ..Row::new(row.now, row.interrupt) };
                }
            }
            Move::Die(worker) => {
                after.left.deaths -= 1;
                after.seen[usize::from(worker == Holder::Two)] = None;
                after.repeat = after.repeat.filter(|repeat| repeat.worker != worker);
                for step in &mut after.steps {
                    let Some(row) = step.row.as_mut().filter(|row| row.holder == worker) else { continue };
                    let is_call = row.now.op == Op::Action && !self.only_asks(row.now.step);
                    step.happened |= row.callable && !row.forgotten && is_call;
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
            Move::Complete(index, op, completion) => self.complete(&mut after, index, op, completion),
            Move::WaitEnds(index) => {
                if let Some(row) = &mut after.steps[index].row {
                    row.wait = TaskWait::Over;
                }
            }
        }
        self.check(&after)?;
        self.canonical(&mut after);
        Ok(after)
    }
}
