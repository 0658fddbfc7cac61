//! The invariants, checked against the history.

use super::super::*;
use super::invariant::{Broken, Invariant, ensure};
use super::model::{Model, Row, TRIES_MAX, World};

/// What the history says of each step: a bit a step.
#[derive(Default)]
struct Facts {
    /// Its action has a task.
    acts: u8,
    /// Some op of it has a task.
    runs: u8,
    /// It needs a person.
    stuck: u8,
    /// Its action counts as done.
    done: u8,
    /// Its action may have happened.
    stands: u8,
    /// Its compensation counts as done.
    undone: u8,
    /// Nothing of it stands that can be undone, and nothing of it runs.
    clear: u8,
    /// It was never tried.
    fresh: u8,
    /// Some compensation has run or runs.
    undoing: bool,
}

impl World<'_> {
    fn facts(&self, model: &Model) -> Facts {
        let mut facts = Facts::default();
        for (index, step) in model.steps[..self.graph.count()].iter().enumerate() {
            let mut note = |which: fn(&mut Facts) -> &mut u8, holds: bool| {
                *which(&mut facts) |= u8::from(holds) << index;
            };
            let running = step.running();
            let is_outside = self.is_outside(index);
            let is_refused = step.action.refused && self.graph.compensate_failed();
            let stands = step.action.may_have_taken_effect()
                || step.action.skipped
                || step.is_reported()
                || is_outside
                || is_refused;
            let undone = step.compensation.counts_as_done() && running != Some(Op::Compensate);
            note(|facts| &mut facts.acts, running == Some(Op::Action));
            note(|facts| &mut facts.runs, running.is_some());
            note(|facts| &mut facts.stuck, step.stuck.is_some());
            note(|facts| &mut facts.done, step.action.counts_as_done() || is_outside);
            note(|facts| &mut facts.stands, stands);
            note(|facts| &mut facts.undone, undone);
            let nothing_stands = !stands || undone || !self.graph.has_compensation(index);
            note(|facts| &mut facts.clear, running.is_none() && nothing_stands);
            note(|facts| &mut facts.fresh, step.action.tries == 0 && !step.action.skipped && !is_outside);
            let tried = step.compensation.tries > 0 || step.compensation.skipped;
            facts.undoing |= running == Some(Op::Compensate) || tried;
        }
        facts
    }

    /// Checks a state.
    pub(super) fn check(&self, model: &Model) -> Result<(), Broken> {
        let facts = &self.facts(model);
        self.check_alive(model, facts)?;
        for (index, step) in model.steps[..self.graph.count()].iter().enumerate() {
            if let Some(row) = &step.row {
                self.check_row(model, facts, index, row)?;
            }
            if let Some(next) = step.stuck {
                let past = step.past(next.op);
                let attempt = (past.tries + 1).min(TRIES_MAX);
                let fits = next.step == index && next.attempt.min(TRIES_MAX) == attempt;
                ensure(Invariant::StuckNamed, fits && !past.success && step.row.is_none(), || {
                    format!("{next:?}")
                })?;
            }
            for op in Op::ALL {
                self.check_completion(model, index, op)?;
                let past = step.past(op);
                ensure(
                    Invariant::OnlyAnswersOverride,
                    !past.accepted || past.may_have_taken_effect(),
                    || format!("the accepted {} of step {} is forgotten", op.as_str(), index + 1),
                )?;
            }
            let is_open = facts.acts >> index & 1 == 1;
            // A completion is in the history from the beginning.
            let is_told = step.completion(Op::Action) == Some(Completion::Success);
            ensure(
                Invariant::Recorded,
                is_open || !step.happened || step.action.may_have_taken_effect() || is_told,
                || format!("the action of step {} happened, and the history does not know", index + 1),
            )?;
        }
        self.check_pivot(model, facts)?;
        self.check_end(model, facts)?;
        self.check_missed(model, facts)?;
        self.check_fold(model, facts)
    }

    fn check_alive(&self, model: &Model, facts: &Facts) -> Result<(), Broken> {
        ensure(Invariant::Alive, model.ended.is_some() || facts.runs | facts.stuck != 0, || {
            "nobody will ever look at it again".to_owned()
        })?;
        ensure(Invariant::NoTaskAfterEnd, model.ended.is_none() || facts.runs == 0, || {
            format!("{:?}", model.ended)
        })
    }

    fn check_row(&self, model: &Model, facts: &Facts, index: usize, row: &Row) -> Result<(), Broken> {
        let past = model.steps[index].past(row.now.op);
        let what = || format!("{} {} of step {}", row.now.op.as_str(), row.now.attempt, index + 1);
        ensure(Invariant::Legal, row.now.step == index, what)?;
        ensure(Invariant::NeverAgain, !past.success, what)?;
        match row.now.op {
            Op::Action => {
                ensure(Invariant::DoneOutside, !self.is_outside(index), what)?;
                let is_clear = !row.now.unknown_before && row.now.last.is_none();
                ensure(Invariant::NothingUnknown, is_clear || !self.only_asks(index), what)?;
                ensure(Invariant::ForwardOrder, self.after[index] & !facts.done == 0, what)?;
                ensure(Invariant::NoActionAfterUndo, !facts.undoing, what)?;
            }
            Op::Compensate => {
                ensure(Invariant::NoNeedlessUndo, facts.stands >> index & 1 == 1, what)?;
                ensure(Invariant::BackwardOrder, self.dependents[index] & !facts.clear == 0, what)?;
            }
        }
        let attempt = (past.tries + 1).min(TRIES_MAX);
        ensure(Invariant::Numbered, row.now.attempt.min(TRIES_MAX) == attempt, what)?;
        let remembered =
            Attempt { counted: past.counted, unknown_before: past.unknown, last: past.last, ..row.now };
        ensure(Invariant::Remembered, row.now == remembered, || format!("{:?}, not {remembered:?}", row.now))
    }

    /// A completion that was taken is applied by the settle of its op, or waits for its turn.
    fn check_completion(&self, model: &Model, index: usize, op: Op) -> Result<(), Broken> {
        let step = &model.steps[index];
        if step.completion(op).is_none() || model.forced || model.ended.is_some() {
            return Ok(());
        }
        let is_marked = step.row.is_some_and(|row| row.now.op == op && row.marked);
        ensure(Invariant::CompletionHeard, is_marked || op == Op::Action && !step.has_begun(), || {
            format!("the completion of the {} of step {} is lost", op.as_str(), index + 1)
        })
    }

    fn check_pivot(&self, model: &Model, facts: &Facts) -> Result<(), Broken> {
        let is_taken = |decision: usize| facts.done >> decision & 1 == 1 && facts.acts >> decision & 1 == 0;
        let unwinds = model.unwinds || facts.undoing;
        ensure(Invariant::DecisionStands, !unwinds || !self.decision.is_some_and(is_taken), || {
            "it unwinds".to_owned()
        })?;
        let Some(pivot) = self.graph.pivot() else { return Ok(()) };
        let past = &model.steps[pivot].action;
        let abort = model.aborting || facts.undoing;
        let stands = self.pivot_done(model);
        let is_workflow = self.graph.action(pivot) == ActionKind::Workflow && model.steps[pivot].has_begun();
        ensure(Invariant::PivotStands, !abort || !stands, || "it unwinds".to_owned())?;
        ensure(
            Invariant::PivotAwaited,
            !abort || !is_workflow && !past.may_have_taken_effect() || past.refused || stands,
            || "it unwinds".to_owned(),
        )
    }

    fn check_end(&self, model: &Model, facts: &Facts) -> Result<(), Broken> {
        let every = (1 << self.graph.count()) - 1;
        let must_fail = model.abort_requested && !self.pivot_done(model);
        let told = |steps: u8| format!("steps {steps:b}, the first to the right");
        match model.ended {
            Some(SagaEnd::Succeeded) => {
                ensure(Invariant::AllSucceeded, facts.done == every, || told(!facts.done & every))?;
                ensure(Invariant::AbortHeard, !must_fail, || "it succeeded".to_owned())
            }
            Some(SagaEnd::Failed) => {
                let steps = model.steps.iter().enumerate();
                let happened: u8 = steps.map(|(index, step)| u8::from(step.happened) << index).sum();
                let left = (facts.stands | happened) & !facts.undone & self.compensated;
                ensure(Invariant::NothingLeftStanding, left == 0, || told(left))?;
                ensure(Invariant::ReasonNamed, model.abort_requested, || "it failed".to_owned())
            }
            Some(SagaEnd::Decided) => ensure(Invariant::Legal, model.forced, || "nobody decided".to_owned()),
            None => Ok(()),
        }
    }

    fn check_missed(&self, model: &Model, facts: &Facts) -> Result<(), Broken> {
        // What is in flight ends first.
        if model.ended.is_some() || model.forced || model.aborting && facts.acts != 0 {
            return Ok(());
        }
        let waiting = if model.aborting {
            facts.stands & self.compensated & !facts.undone & !facts.runs & !facts.stuck
        } else {
            facts.fresh & !facts.runs & !facts.stuck
        };
        for index in self.all() {
            let is_ready = if model.aborting {
                self.dependents[index] & !(facts.clear & !facts.stuck) == 0
            } else {
                self.after[index] & !(facts.done & !facts.runs) == 0
            };
            ensure(Invariant::NothingMissed, waiting >> index & 1 == 0 || !is_ready, || {
                format!("step {} is ready", index + 1)
            })?;
        }
        Ok(())
    }

    fn check_fold(&self, model: &Model, facts: &Facts) -> Result<(), Broken> {
        let is_sequential = !self.graph.keeps_progress();
        if model.forced || model.ended.is_some() && is_sequential {
            return Ok(());
        }
        ensure(Invariant::Folds, !facts.undoing || model.aborting, || {
            "it compensates, and is not aborting".to_owned()
        })?;
        let told = if !is_sequential {
            None
        } else if let Some(row) = model.steps.iter().find_map(|step| step.row) {
            Some(Progress::of_sequential(self.graph.count(), row.now))
        } else {
            return Ok(());
        };
        for (index, step) in model.steps[..self.graph.count()].iter().enumerate() {
            let folded = self.fold(model, facts, index);
            let told = told.as_ref().map_or(step.state, |told| told.steps[index]);
            let agree =
                folded == told || is_sequential && folded.is_without_effect() && told.is_without_effect();
            ensure(Invariant::Folds, agree, || {
                format!("step {}: {told:?}, but by the history {folded:?}", index + 1)
            })?;
        }
        Ok(())
    }

    /// Where the history says that a step stands.
    fn fold(&self, model: &Model, facts: &Facts, index: usize) -> State {
        let step = &model.steps[index];
        match (step.running(), step.stuck.map(|next| next.op)) {
            (Some(Op::Action), _) => return State::Acting,
            (Some(Op::Compensate), _) => return State::Undoing,
            (None, Some(Op::Action)) => return State::StuckActing,
            (None, Some(Op::Compensate)) => return State::StuckUndoing,
            (None, None) => {}
        }
        // A step with nothing to undo counts as undone as soon as it could be.
        let has_passed = model.aborting
            && facts.acts == 0
            && !self.graph.has_compensation(index)
            && self.dependents[index] & !facts.clear == 0;
        let stands = facts.stands >> index & 1 == 1;
        if step.state == State::Reported && step.is_reported() {
            return State::Reported;
        }
        if step.compensation.counts_as_done() || stands && has_passed {
            State::Undone
        } else if step.action.counts_as_done() || self.is_outside(index) {
            State::Done
        } else if stands {
            State::MaybeDone
        } else if step.action.tries > 0 || step.state == State::NoEffect && model.aborting {
            // One that was taken back before its first call has no history.
            State::NoEffect
        } else {
            State::Waiting
        }
    }

    /// Checks what a plan says of each task against the history.
    pub(super) fn check_plan(
        &self,
        before: &Model,
        after: &Model,
        plan: &Plan,
        events: &[Event],
    ) -> Result<(), Broken> {
        if let Some((index, why)) = plan.abort {
            let first = !before.abort_requested;
            ensure(Invariant::ReasonNamed, first, || format!("a second reason: {why:?}"))?;
            let event = &events[index];
            ensure(Invariant::ReasonNamed, self.bears_out(after, event, why), || {
                format!("{why:?}: {event:?}")
            })?;
        }
        ensure(Invariant::ReasonNamed, !plan.unwinds || after.abort_requested, || {
            "it unwinds for no reason".to_owned()
        })?;
        let is_same = !self.graph.keeps_progress() || plan.progress.abort_requested == after.abort_requested;
        ensure(Invariant::Folds, is_same, || "abort_requested".to_owned())?;
        for (index, (event, then)) in events.iter().zip(&plan.tasks).enumerate() {
            let is_called = event.outcome.is_some();
            let again = matches!(then, TaskPlan::Retry { .. });
            let next = after.steps[event.now.step].row.map(|row| self.event(after, &row, None));
            let waits = matches!(then, TaskPlan::Waits { .. });
            let is_waiting = event.wait == TaskWait::Pending && event.completion.is_none();
            let goes_on = is_called || !again || next.is_some_and(|next| may_call(self.graph, &next));
            let goes_on = goes_on && (!waits || is_waiting && !is_called);
            ensure(Invariant::Progresses, goes_on, || format!("{event:?}"))?;
            if matches!(event.interrupt, Some(Interrupt::Skip | Interrupt::End)) {
                continue;
            }
            let must_wait = is_waiting && !is_called && event.fault.is_none() && plan.ends.is_none();
            let is_kept = !must_wait || waits || plan.progress.abort_requested;
            ensure(Invariant::WaitKept, is_kept, || format!("{event:?}"))?;
            ensure(Invariant::CompletionFinal, event.completion.is_none() || !again && !waits, || {
                format!("{event:?}")
            })?;
            let turns_by_it = |why: AbortCause| plan.abort == Some((index, why));
            let sticks_by =
                |why: AbortCause| matches!(then, TaskPlan::Stuck { why: told, .. } if *told == why);
            if let TaskPlan::Stuck { why, .. } = then {
                let fits = self.bears_out(after, event, *why) && *why != AbortCause::Timeout;
                let by_wait = matches!(why, AbortCause::NoCompletion | AbortCause::Contradicted);
                let allowed = event.now.op == Op::Compensate
                    || event.fault.is_some()
                    || self.pivot_done(before)
                    || by_wait && self.graph.pivot() == Some(event.now.step);
                ensure(Invariant::StuckNamed, fits && allowed, || format!("{why:?}: {event:?}"))?;
            }
            let told = before.steps[event.now.step].past(event.now.op);
            let is_confirmed = event.completion.is_some();
            if event.outcome == Some(Outcome::Failure)
                && !is_confirmed
                && told.unknown
                && told.last != Some(Outcome::Failure)
            {
                let counts = turns_by_it(AbortCause::Refused) || sticks_by(AbortCause::Refused);
                ensure(Invariant::Confirmed, !counts, || format!("{event:?}"))?;
            }
            if let (Some(Outcome::Unknown | Outcome::Unsent), true) = (event.outcome, again) {
                ensure(Invariant::Limited, !self.is_used_up(after, event), || format!("{event:?}"))?;
            }
        }
        Ok(())
    }

    /// The op has used up the limit that applies to it.
    fn is_used_up(&self, after: &Model, event: &Event) -> bool {
        let step = event.now.step;
        let past = after.steps[step].past(event.now.op);
        let is_called_pivot = self.graph.pivot() == Some(step) && past.may_have_taken_effect();
        let unlimited = event.now.op == Op::Action && (self.pivot_done(after) || is_called_pivot);
        !unlimited && self.limit(step, event.now.op).is_some_and(|limit| past.counted > limit)
    }

    fn bears_out(&self, after: &Model, event: &Event, why: AbortCause) -> bool {
        match why {
            AbortCause::Refused => {
                let refused = event.outcome == Some(Outcome::Failure) && event.completion.is_none();
                refused || event.completion == Some(Completion::Failure)
            }
            AbortCause::NoCompletion => {
                let waits = self.graph.action(event.now.step) == ActionKind::Wait;
                waits && event.wait == TaskWait::Over && event.completion.is_none()
            }
            AbortCause::Contradicted => {
                let said = (event.outcome, event.completion);
                said == (Some(Outcome::Success), Some(Completion::Failure))
            }
            AbortCause::RetryLimit(limit) => {
                let counted = matches!(event.outcome, Some(Outcome::Unknown | Outcome::Unsent));
                let set = self.limit(event.now.step, event.now.op) == Some(limit);
                counted && set && self.is_used_up(after, event)
            }
            AbortCause::Timeout if self.is_gate(event.now.step) && event.wait == TaskWait::Over => {
                event.completion.is_none() && event.outcome.is_none()
            }
            AbortCause::Timeout => event.overdue && event.now.op == Op::Action,
            AbortCause::Fault(fault) => event.fault == Some(fault) && event.outcome.is_none(),
        }
    }
}
