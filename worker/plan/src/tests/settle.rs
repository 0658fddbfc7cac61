//! The settle: what a worker plans from, what the fence lets through, and what is written.

use super::super::*;
use super::invariant::{Broken, Invariant, ensure};
use super::model::{Holder, Model, Repeat, Row, STEPS_MAX, Seen, World};

/// What came of a claimed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// The participant was called, and this is what the worker knows of it.
    Called(Outcome),
    /// The planner forbade the call.
    Uncalled,
    /// Its request could not be built.
    Unbuildable,
}

impl Came {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Came::Called(outcome) => outcome.as_str(),
            Came::Uncalled => "not called",
            Came::Unbuildable => "its request cannot be built",
        }
    }
}

/// Tasks that one worker settles together, by step, and what came of them.
pub(super) type Calls = [Option<(usize, Came)>; STEPS_MAX];

impl World<'_> {
    pub(super) fn event(&self, model: &Model, row: &Row, outcome: Option<Outcome>) -> Event {
        let void = self.rules.pivot_ends_deadline && self.pivot_done(model);
        Event {
            now: row.now,
            outcome,
            // A worker that does not know the interrupt is refused by the fence, looks, and plans
            // with it.
            interrupt: if self.rules.interrupt { row.interrupt } else { row.known },
            overdue: model.overdue && !void,
            fault: row.killer.then_some(Fault::Poison),
        }
    }

    fn event_of(&self, model: &Model, row: &Row, came: Came) -> Event {
        match came {
            Came::Called(outcome) => self.event(model, row, Some(outcome)),
            Came::Uncalled => self.event(model, row, None),
            Came::Unbuildable => {
                let refused = (!self.rules.only_answers_override).then_some(Outcome::Failure);
                let outcome = row.now.unbuildable().or(refused);
                let fault = outcome.is_none().then_some(Fault::Unbuildable);
                Event { fault, ..self.event(model, row, outcome) }
            }
        }
    }

    /// Worker `holder` has the task of step `index` from now on, and may call it.
    pub(super) fn hold(&self, model: &mut Model, index: usize, holder: Holder) -> Result<(), Broken> {
        let Some(mut row) = model.steps[index].row else { return Ok(()) };
        (row.holder, row.forgotten, row.known) = (holder, false, row.interrupt);
        row.callable = may_call(self.graph, &self.event(model, &row, None));
        model.steps[index].row = Some(row);
        if row.callable && row.now.op == Op::Action {
            let is_awaited =
                self.graph.pivot() == Some(index) && model.steps[index].action.may_have_taken_effect();
            let allowed = self.pivot_done(model) || is_awaited || !model.abort_requested && !model.overdue;
            ensure(Invariant::AbortHeard, allowed, || format!("the action of step {} starts", index + 1))?;
        }
        Ok(())
    }

    /// Settles `calls` of `worker`, which with `reply_lost` does not learn that they were.
    pub(super) fn settle(
        &self,
        before: &Model,
        worker: Holder,
        calls: &Calls,
        reply_lost: bool,
    ) -> Result<Model, Broken> {
        let mut after = *before;
        let seen = std::mem::take(&mut after.seen[usize::from(worker == Holder::Two)]);
        if self.rules.version && seen.is_some_and(|seen| !seen.version_holds) {
            return Ok(after);
        }
        let mut events = Vec::with_capacity(calls.len());
        for (index, came) in calls.iter().flatten() {
            if let Some(row) = &before.steps[*index].row {
                events.push(self.event_of(before, row, *came));
            }
        }
        let plan = self.plan(before, seen, &events)?;
        for (event, (_, came)) in events.iter().zip(calls.iter().flatten()) {
            self.record(&mut after, event, *came);
        }
        if !self.rules.one_lock && plan.ends.is_some() && before.abort_requested {
            // The compare-and-set of the saga misses; the task is already gone.
            for event in &events {
                after.steps[event.now.step].row = None;
            }
            return Ok(after);
        }
        let planned_from = seen.map_or(before.steps.map(|step| step.state), |seen| seen.states);
        self.write(before, &mut after, (&plan, planned_from), &events)?;
        let is_in_place = self.is_in_place(&plan, &events);
        for next in &plan.queued {
            let advanced = before.steps[events[0].now.step].row.filter(|_| is_in_place);
            let Some(row) = &mut after.steps[next.step].row else { continue };
            row.unseen = advanced.map_or(row.unseen, |advanced| advanced.unseen);
            if reply_lost {
                // A sequential saga's chain: what follows is this worker's, and it does not know.
                (row.holder, row.forgotten) = (worker, true);
            } else if is_in_place {
                self.hold(&mut after, next.step, worker)?;
            }
        }
        after.repeat = match (is_in_place, before.repeat, events.first()) {
            (true, _, Some(Event { now, outcome: Some(outcome), .. })) if reply_lost => {
                Some(Repeat { worker, at: now.step + 1, now: *now, outcome: *outcome })
            }
            (true, Some(repeat), _) => Some(Repeat { at: repeat.at + 1, ..repeat }),
            // Its row is gone, and ids are never used again.
            _ => None,
        };
        Ok(after)
    }

    /// The settle of [`Repeat`], said again.
    pub(super) fn say_again(&self, before: &Model) -> Result<Model, Broken> {
        let after = Model { repeat: None, ..*before };
        let Some(repeat) = before.repeat else { return Ok(after) };
        let row = before.steps[repeat.at].row.filter(|row| row.holder == repeat.worker);
        // The advance raised the epoch, as every write does.
        let passes = row.is_some() && !self.rules.epoch;
        ensure(Invariant::Answered, !passes, || {
            let (said, at) = (repeat.outcome.as_str(), repeat.at + 1);
            format!("the {said} of step {} counts for step {at}", repeat.now.step + 1)
        })?;
        Ok(after)
    }

    fn plan(&self, model: &Model, seen: Option<Seen>, events: &[Event]) -> Result<Plan, Broken> {
        let count = self.graph.count();
        let progress = match (self.graph.is_sequential(), events.first()) {
            (true, Some(event)) => Progress::of_sequential(count, event.now),
            _ => Progress {
                steps: match seen {
                    Some(seen) => seen.states[..count].to_vec(),
                    None => model.steps[..count].iter().map(|step| step.state).collect(),
                },
                abort_requested: seen.map_or(model.abort_requested, |seen| seen.abort_requested),
            },
        };
        (self.planner)(self.graph, &progress, events)
            .map_err(|illegal| Broken { invariant: Invariant::Legal, what: illegal.to_string() })
    }

    /// The fast path of a sequential saga: the next step's action in the same row, without a look
    /// at the saga's.
    fn is_in_place(&self, plan: &Plan, events: &[Event]) -> bool {
        self.graph.is_sequential()
            && events.iter().all(|event| event.outcome == Some(Outcome::Success) && event.interrupt.is_none())
            && plan.queued.first().is_some_and(|next| next.op == Op::Action)
    }

    fn record(&self, after: &mut Model, event: &Event, came: Came) {
        let step = &mut after.steps[event.now.step];
        let Some(outcome) = event.outcome else { return };
        let is_decided = matches!(event.interrupt, Some(Interrupt::Skip | Interrupt::End));
        if self.rules.answer_before_decision || !is_decided {
            let past = step.past_mut(event.now.op);
            match came {
                Came::Called(_) => past.answer(outcome),
                Came::Uncalled | Came::Unbuildable => past.record(outcome),
            }
        } else if event.now.op == Op::Action {
            step.happened |= matches!(outcome, Outcome::Success | Outcome::Unknown | Outcome::Ongoing);
        }
    }

    fn write(
        &self,
        before: &Model,
        after: &mut Model,
        (plan, planned_from): (&Plan, [State; STEPS_MAX]),
        events: &[Event],
    ) -> Result<(), Broken> {
        let unseen = self.is_unseen(before);
        for (event, then) in events.iter().zip(&plan.tasks) {
            let step = &mut after.steps[event.now.step];
            step.row = None;
            match then {
                TaskPlan::Done => {}
                TaskPlan::Retry { next, awaited, .. } => {
                    let interrupt = awaited.then_some(Interrupt::Unwind);
                    step.row = Some(Row { unseen, ..Row::new(*next, interrupt) });
                }
                TaskPlan::Stuck { next, .. } => step.stuck = Some(*next),
            }
        }
        for next in &plan.queued {
            let step = &mut after.steps[next.step];
            ensure(Invariant::NoDoubleStart, step.row.is_none(), || format!("{next:?}"))?;
            step.row = Some(Row { unseen, ..Row::new(*next, None) });
        }
        if plan.unwinds {
            ensure(Invariant::OneUnwind, !after.unwinds, || "it unwinds again".to_owned())?;
            (after.unwinds, after.aborting) = (true, true);
            for step in &mut after.steps {
                let is_other =
                    |row: &&mut Row| row.now.op == Op::Action && row.interrupt.is_none() && !row.unseen;
                let others = step.row.as_mut().filter(is_other);
                if let (Some(row), true) = (others, self.rules.interrupts_the_others) {
                    row.interrupt = Some(Interrupt::Unwind);
                }
                // An action that was stuck is undone with the rest.
                step.stuck = step.stuck.filter(|next| next.op != Op::Action);
            }
        }
        after.abort_requested |= plan.abort.is_some();
        after.ended = plan.ends;
        let count = self.graph.count();
        let is_moved = plan.progress.steps[..] != planned_from[..count] && !self.graph.is_sequential();
        if is_moved {
            for (step, state) in after.steps.iter_mut().zip(&plan.progress.steps) {
                step.state = *state;
            }
        }
        if is_moved || after.abort_requested != before.abort_requested || self.rules.retries_raise_version {
            after.raise_version();
        }
        self.check_plan(before, after, plan, events)
    }

    /// Somebody who looked before will not see a task that is made now, unless he is kept from
    /// going on.
    pub(super) fn is_unseen(&self, model: &Model) -> bool {
        model.aborts_now || !self.rules.retries_raise_version && model.seen.iter().any(Option::is_some)
    }
}

impl Model {
    /// Plans that were made before it write nothing.
    pub(super) fn raise_version(&mut self) {
        for seen in self.seen.iter_mut().flatten() {
            seen.version_holds = false;
        }
    }
}
