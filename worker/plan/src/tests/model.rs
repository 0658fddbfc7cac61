//! The database and two workers, as far as one saga can see them: small enough that every state can
//! be visited.
//!
//! What is left out makes no difference. The clock: every task that waits may be claimed at once. A
//! call is not a state of its own: a claimed task that may be called either was or was not, until
//! it settles or its worker dies. What comes between a statement's begin and its commit, because
//! real statements hold locks then; where a lock or a fence is taken away ([`Rules`]), it is there.

use super::super::*;
pub(super) use super::rules::{Budget, Rules};

pub(super) const STEPS_MAX: usize = 5;
/// Steps of the sagas of which every shape is searched.
pub(super) const DRAFT_MAX: usize = 3;
/// Tries from here on are told apart no more.
pub(super) const TRIES_MAX: u32 = 3;

/// A planner: the real one, or one broken on purpose.
pub(super) type Planner = fn(&StepGraph, &Progress, &[Event]) -> Result<Plan, Illegal>;

/// Who has a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    One,
    Two,
    /// A worker that was declared dead; the task waits for its rescue.
    Dead,
}

impl Holder {
    pub(super) const WORKERS: [Holder; 2] = [Holder::One, Holder::Two];
}

/// A row of the hot table with what its worker knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) now: Attempt,
    pub(super) interrupt: Option<Interrupt>,
    pub(super) killer: bool,
    pub(super) holder: Holder,
    /// Its worker does not know that it has it.
    pub(super) forgotten: bool,
    /// The interrupt at its claim.
    pub(super) known: Option<Interrupt>,
    /// It was, at its claim, one to be called.
    pub(super) callable: bool,
    /// Somebody who will interrupt tasks has looked before it was there; only without
    /// [`Rules::abort_locks`] or [`Rules::retries_raise_version`].
    pub(super) unseen: bool,
    /// A completion has marked it.
    pub(super) marked: bool,
    /// The mark at its claim.
    pub(super) knows_mark: bool,
    pub(super) wait: TaskWait,
}

/// The history of one op, folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Past {
    pub(super) tries: u32,
    pub(super) counted: u32,
    pub(super) unknown: bool,
    /// How the last try ended that left.
    pub(super) last: Option<Outcome>,
    /// It refused, twice if it was unknown before.
    pub(super) refused: bool,
    /// The participant's own last answer accepted the op, and the op is not finished.
    pub(super) accepted: bool,
    /// It succeeded.
    pub(super) success: bool,
    /// A person decided that it counts as done.
    pub(super) skipped: bool,
}

impl Past {
    /// What a completion said.
    pub(super) fn complete(&mut self, completion: Completion) {
        // A success that its completion contradicts is in doubt.
        let is_contradicted = self.success && completion == Completion::Failure;
        self.record(completion.outcome());
        self.success &= !is_contradicted;
        self.unknown |= is_contradicted;
        self.refused = completion == Completion::Failure && !is_contradicted;
        self.accepted = false;
    }

    /// The op calls nobody, or only asks.
    pub(super) fn leave_nothing_unknown(&mut self) {
        (self.unknown, self.last, self.accepted) = (false, None, false);
    }

    pub(super) fn record(&mut self, outcome: Outcome) {
        self.tries += 1;
        if outcome != Outcome::Ongoing {
            self.counted += 1;
        }
        self.success |= outcome == Outcome::Success;
        if outcome != Outcome::Unsent {
            let confirmed = !self.unknown || self.last == Some(Outcome::Failure);
            self.refused = outcome == Outcome::Failure && confirmed;
            self.last = Some(outcome);
        }
        self.unknown |= outcome == Outcome::Unknown;
    }

    /// What the participant itself said.
    pub(super) fn answer(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ongoing => self.accepted = true,
            Outcome::Success | Outcome::Failure => self.accepted = false,
            Outcome::Unknown | Outcome::Unsent => {}
        }
        self.record(outcome);
    }

    pub(super) fn may_have_taken_effect(&self) -> bool {
        self.success || self.unknown || self.last == Some(Outcome::Ongoing)
    }

    pub(super) fn counts_as_done(&self) -> bool {
        self.success || self.skipped
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// What `pgsaga.saga.progress` says; of parallel sagas only.
    pub(super) state: State,
    pub(super) row: Option<Row>,
    /// Its row in `pgsaga.stuck`.
    pub(super) stuck: Option<Attempt>,
    pub(super) action: Past,
    pub(super) compensation: Past,
    /// At the participant the action happened, or may still.
    pub(super) happened: bool,
    /// The completions of the action and of the compensation that no settle has applied.
    pub(super) completions: [Option<Completion>; 2],
}

impl Step {
    pub(super) fn past(&self, op: Op) -> &Past {
        match op {
            Op::Action => &self.action,
            Op::Compensate => &self.compensation,
        }
    }

    pub(super) fn past_mut(&mut self, op: Op) -> &mut Past {
        match op {
            Op::Action => &mut self.action,
            Op::Compensate => &mut self.compensation,
        }
    }

    pub(super) fn completion(&self, op: Op) -> Option<Completion> {
        self.completions[op as usize]
    }

    /// A completion reported the action's success, and its turn has not come.
    pub(super) fn is_reported(&self) -> bool {
        self.completion(Op::Action) == Some(Completion::Success) && !self.has_begun()
    }

    pub(super) fn has_begun(&self) -> bool {
        let is_stuck = self.stuck.is_some_and(|next| next.op == Op::Action);
        let runs = self.running() == Some(Op::Action);
        self.action.tries > 0 || self.action.skipped || runs || is_stuck
    }

    /// The op that has a task.
    pub(super) fn running(&self) -> Option<Op> {
        self.row.map(|row| row.now.op)
    }
}

impl Row {
    pub(super) fn new(now: Attempt, interrupt: Option<Interrupt>) -> Row {
        Row {
            now,
            interrupt,
            killer: false,
            holder: Holder::Nobody,
            forgotten: false,
            known: None,
            callable: false,
            unseen: false,
            marked: false,
            knows_mark: false,
            wait: TaskWait::None,
        }
    }
}

/// A settle that was applied, and whose worker will say it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) worker: Holder,
    /// Where its row is now.
    pub(super) at: usize,
    pub(super) now: Attempt,
    pub(super) outcome: Outcome,
}

/// A saga that a worker read, to plan from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) states: [State; STEPS_MAX],
    pub(super) abort_requested: bool,
    pub(super) version_holds: bool,
}

/// One saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) steps: [Step; STEPS_MAX],
    /// `abort_reason` is set.
    pub(super) abort_requested: bool,
    /// The status is `aborting`.
    pub(super) aborting: bool,
    /// A plan unwinds it.
    pub(super) unwinds: bool,
    pub(super) ended: Option<SagaEnd>,
    /// A person ended it; it ends with its last call.
    pub(super) forced: bool,
    /// The deadline has passed.
    pub(super) overdue: bool,
    pub(super) left: Budget,
    pub(super) repeat: Option<Repeat>,
    pub(super) seen: [Option<Seen>; 2],
    /// An abort has looked at the tasks and not yet interrupted them; only without
    /// [`Rules::abort_locks`].
    pub(super) aborts_now: bool,
}

/// A saga's graph with everything that surrounds it.
pub(super) struct World<'a> {
    pub(super) graph: &'a StepGraph,
    pub(super) planner: Planner,
    pub(super) rules: Rules,
    /// From this try on an op comes to an end: yes, no, or its limit.
    pub(super) last_try: u32,
    /// What each step waits for: a bit a step.
    pub(super) after: [u8; STEPS_MAX],
    /// What waits for each step, directly or not.
    pub(super) dependents: [u8; STEPS_MAX],
    /// What has something to undo.
    pub(super) compensated: u8,
    /// The gate or decision that is the point of no return, as the mode says.
    pub(super) decision: Option<usize>,
    /// Neighbours that differ in nothing but their place.
    pub(super) twins: Vec<(usize, usize)>,
}

impl<'a> World<'a> {
    pub(super) fn new(graph: &'a StepGraph, planner: Planner, rules: Rules) -> World<'a> {
        let mut after = [0u8; STEPS_MAX];
        let mut dependents = [0u8; STEPS_MAX];
        let mut compensated = 0;
        for (step, waits_for) in after[..graph.count()].iter_mut().enumerate() {
            *waits_for = graph.after(step).iter().map(|before| 1 << before).sum();
            compensated |= u8::from(graph.has_compensation(step)) << step;
        }
        for _ in 0..graph.count() {
            for step in 0..graph.count() {
                for next in (0..graph.count()).filter(|&next| after[next] >> step & 1 == 1) {
                    dependents[step] |= 1 << next | dependents[next];
                }
            }
        }
        let alike = |one: usize, other: usize| {
            let swapped = |step: usize| match step {
                step if step == one => other,
                step if step == other => one,
                step => step,
            };
            let mut pairs = (0..graph.count()).flat_map(|i| (0..graph.count()).map(move |j| (i, j)));
            !graph.is_sequential()
                && graph.has_compensation(one) == graph.has_compensation(other)
                && graph.action(one) == graph.action(other)
                && graph.pivot().is_none_or(|pivot| swapped(pivot) == pivot)
                && pairs.all(|(i, j)| {
                    graph.after(j).contains(&i) == graph.after(swapped(j)).contains(&swapped(i))
                })
        };
        let pairs = (0..graph.count()).flat_map(|i| (i + 1..graph.count()).map(move |j| (i, j)));
        let twins = pairs.filter(|&(i, j)| alike(i, j)).collect();
        let (last_try, decision) = (TRIES_MAX, None);
        World { graph, planner, rules, last_try, after, dependents, compensated, decision, twins }
    }

    /// The saga as its INSERT leaves it.
    pub(super) fn inserted(&self, left: Budget) -> Model {
        let step = Step {
            state: State::Waiting,
            row: None,
            stuck: None,
            action: Past::default(),
            compensation: Past::default(),
            happened: false,
            completions: [None; 2],
        };
        let mut model = Model {
            steps: [step; STEPS_MAX],
            abort_requested: false,
            aborting: false,
            unwinds: false,
            ended: None,
            forced: false,
            overdue: false,
            left,
            repeat: None,
            seen: [None; 2],
            aborts_now: false,
        };
        let outside: u8 = self.all().map(|index| u8::from(self.is_outside(index)) << index).sum();
        for index in self.all() {
            if self.is_outside(index) {
                model.steps[index].state = State::Done;
            } else if self.after[index] & !outside == 0 {
                model.steps[index].state = State::Acting;
                let first = Attempt::first(index, Op::Action);
                self.queue(&mut model.steps[index], self.begun(first), None);
            }
        }
        let (progress, queued) = insert(self.graph);
        assert!(progress.steps.iter().eq(self.all().map(|index| &model.steps[index].state)));
        assert!(queued.iter().all(|now| model.steps[now.step].row.is_some_and(|row| row.now == *now)));
        model
    }

    pub(super) fn all(&self) -> std::ops::Range<usize> {
        0..self.graph.count()
    }

    pub(super) fn pivot_done(&self, model: &Model) -> bool {
        self.graph.pivot().is_some_and(|pivot| {
            model.steps[pivot].action.success || self.is_outside(pivot) || self.pivot_skipped(model)
        })
    }

    /// The application does its action.
    pub(super) fn is_outside(&self, index: usize) -> bool {
        self.graph.action(index) == ActionKind::Outside
    }

    /// Its action waits from the moment it is queued.
    pub(super) fn waits(&self, index: usize) -> bool {
        matches!(self.graph.action(index), ActionKind::Wait | ActionKind::Gate { .. })
    }

    pub(super) fn is_gate(&self, index: usize) -> bool {
        matches!(self.graph.action(index), ActionKind::Gate { .. })
    }

    /// Its action calls nobody, or only asks.
    pub(super) fn only_asks(&self, index: usize) -> bool {
        use ActionKind::{Decision, Gate, Outside, Workflow};
        matches!(self.graph.action(index), Gate { .. } | Decision | Outside | Workflow)
    }

    /// The attempt that is queued; a wait has begun by it.
    pub(super) fn begun(&self, first: Attempt) -> Attempt {
        if first.op == Op::Action && self.graph.action(first.step) == ActionKind::Wait {
            return Attempt { attempt: first.attempt + 1, last: Some(Outcome::Ongoing), ..first };
        }
        first
    }

    /// Makes a task, as whatever queues one does: a wait begins with an attempt `ongoing`.
    pub(super) fn queue(&self, step: &mut Step, now: Attempt, interrupt: Option<Interrupt>) {
        let is_wait = now.op == Op::Action && self.waits(now.step);
        if now.op == Op::Action && self.graph.action(now.step) == ActionKind::Wait {
            step.action.record(Outcome::Ongoing);
        }
        let marked = self.rules.queue_reads_completions && step.completion(now.op).is_some();
        let wait = if is_wait { TaskWait::Pending } else { TaskWait::None };
        step.row = Some(Row { marked, wait, ..Row::new(now, interrupt) });
    }

    /// The pivot counts as done from the moment its task is gone: until then it may still be
    /// called.
    fn pivot_skipped(&self, model: &Model) -> bool {
        self.graph.pivot().is_some_and(|pivot| {
            model.steps[pivot].action.skipped && model.steps[pivot].running() != Some(Op::Action)
        })
    }

    pub(super) fn limit(&self, index: usize, op: Op) -> Option<u32> {
        match op {
            Op::Action => self.graph.retry_limit(index),
            Op::Compensate => self.graph.compensate_retry_limit(index),
        }
    }
}
