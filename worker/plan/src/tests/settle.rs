//! The settle: what a worker plans from, what the fence lets through, and what is written.

use super::super::*;
use super::invariant::{Broken, Invariant, ensure};
use super::model::{Holder, Model, Repeat, Row, STEPS_MAX, Seen, World};

/// What came of a claimed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// The participant was called, and this is what the worker knows of it.
    Called(Outcome),
    /// The participant answered 202, with a wait.
    Accepted,
    /// The planner forbade the call.
    Uncalled,
    /// Its request could not be built.
    Unbuildable,
}

impl Came {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Came::Called(outcome) => outcome.as_str(),
            Came::Accepted => "ongoing, with a wait",
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
        let marked = if self.rules.mark { row.marked } else { row.knows_mark };
        Event {
            completion: model.steps[row.now.step].completion(row.now.op).filter(|_| marked),
            wait: row.wait,
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
            Came::Accepted => self.event(model, row, Some(Outcome::Ongoing)),
            Came::Uncalled => self.event(model, row, None),
            Came::Unbuildable => {
                let refused = (!self.rules.only_answers_override).then_some(Outcome::Failure);
                let outcome = unbuildable(self.graph, row.now).or(refused);
                let fault = outcome.is_none().then_some(Fault::Unbuildable);
                Event { fault, ..self.event(model, row, outcome) }
            }
        }
    }

    /// Worker `holder` has the task of step `index` from now on, and may call it.
    pub(super) fn hold(&self, model: &mut Model, index: usize, holder: Holder) -> Result<(), Broken> {
        let Some(mut row) = model.steps[index].row else { return Ok(()) };
        (row.holder, row.forgotten, row.known) = (holder, false, row.interrupt);
        row.knows_mark = row.marked;
        row.callable = may_call(self.graph, &self.event(model, &row, None));
        model.steps[index].row = Some(row);
        if row.callable && row.now.op == Op::Action {
            let is_open = model.steps[index].action.may_have_taken_effect()
                || self.graph.action(index) == ActionKind::Workflow;
            let is_awaited = self.graph.pivot() == Some(index) && is_open;
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
            let ended = self.record(&mut after, event, *came);
            self.apply_completion(&mut after, event);
            let account = [ended, event.completion.map(Completion::outcome)];
            let agree = !self.rules.answer_before_decision || recorded(self.graph, event) == account;
            ensure(Invariant::Recorded, agree, || format!("{event:?} is recorded as {account:?}"))?;
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
        for (event, (index, came)) in events.iter().zip(calls.iter().flatten()) {
            let Some(row) = after.steps[*index].row.as_mut().filter(|row| row.now.op == event.now.op) else {
                continue;
            };
            let is_gate = self.is_gate(*index);
            row.wait = match came {
                Came::Accepted => TaskWait::Pending,
                // The end of a gate stays, however often its question is asked.
                Came::Called(_) | Came::Unbuildable | Came::Uncalled if is_gate => event.wait,
                Came::Called(_) | Came::Unbuildable | Came::Uncalled => row.wait,
            };
        }
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
        let progress = match (self.graph.keeps_progress(), events.first()) {
            (false, Some(event)) => Progress::of_sequential(count, event.now),
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
        let is_plain = |event: &Event| {
            let is_alone = event.interrupt.is_none() && event.completion.is_none();
            event.outcome == Some(Outcome::Success) && is_alone && !self.is_gate(event.now.step)
        };
        !self.graph.keeps_progress()
            && events.iter().all(is_plain)
            && plan.queued.first().is_some_and(|next| next.op == Op::Action)
    }

    /// Records how a call or a wait ended, if that is an attempt.
    fn record(&self, after: &mut Model, event: &Event, came: Came) -> Option<Outcome> {
        let Attempt { step: index, op, .. } = event.now;
        let step = &mut after.steps[index];
        if self.wait_ended(event, came) {
            step.action.record(Outcome::Unknown);
            return Some(Outcome::Unknown);
        }
        let outcome = event.outcome?;
        let only_asks = op == Op::Action && self.only_asks(index);
        if event.interrupt.is_some() && event.completion.is_none() && only_asks && self.is_gate(index) {
            return None;
        }
        let is_decided = matches!(event.interrupt, Some(Interrupt::Skip | Interrupt::End));
        if self.rules.answer_before_decision || !is_decided {
            let past = step.past_mut(op);
            match came {
                Came::Called(_) | Came::Accepted => past.answer(outcome),
                Came::Uncalled | Came::Unbuildable => past.record(outcome),
            }
        } else if op == Op::Action {
            step.happened |= matches!(outcome, Outcome::Success | Outcome::Unknown | Outcome::Ongoing);
        }
        if only_asks {
            step.action.leave_nothing_unknown();
        }
        Some(outcome)
    }

    /// A waiting step has waited to the end, and nobody has decided about it.
    fn wait_ended(&self, event: &Event, came: Came) -> bool {
        let is_decided = matches!(event.interrupt, Some(Interrupt::Skip | Interrupt::End));
        let waits = event.now.op == Op::Action && self.graph.action(event.now.step) == ActionKind::Wait;
        let is_over = event.wait == TaskWait::Over && came == Came::Uncalled;
        waits && is_over && !is_decided && event.completion.is_none() && event.fault.is_none()
    }

    /// The completion is the op's next attempt.
    fn apply_completion(&self, after: &mut Model, event: &Event) {
        let Attempt { step: index, op, .. } = event.now;
        let step = &mut after.steps[index];
        let Some(completion) = event.completion else { return };
        step.completions[op as usize] = None;
        step.past_mut(op).complete(completion);
        if op == Op::Action && self.only_asks(index) {
            step.action.leave_nothing_unknown();
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
                TaskPlan::Waits { now, awaited } => {
                    let old = before.steps[now.step].row;
                    let interrupt =
                        awaited.then_some(Interrupt::Unwind).or(old.and_then(|row| row.interrupt));
                    let marked = old.is_some_and(|row| row.marked);
                    step.row = Some(Row { unseen, marked, wait: event.wait, ..Row::new(*now, interrupt) });
                }
                TaskPlan::Stuck { next, .. } => step.stuck = Some(*next),
            }
        }
        for next in &plan.queued {
            let step = &mut after.steps[next.step];
            ensure(Invariant::NoDoubleStart, step.row.is_none(), || format!("{next:?}"))?;
            self.queue(step, *next, None);
            step.row = step.row.map(|row| Row { unseen, ..row });
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
        let is_moved = plan.progress.steps[..] != planned_from[..count] && self.graph.keeps_progress();
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
