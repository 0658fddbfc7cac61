//! The events of one saga, and the values that a settle writes for them. Sagas whose rows keep
//! their progress differ from the others in their statements only.

use pgsaga_plan::{
    AbortCause, ActionKind, Attempt, Completion, Event, Op, Outcome, Plan, Progress, SagaEnd, State,
    StatusChange, TaskPlan, attempt_after, plan, recorded,
};
use pgsaga_sql::describe;

use crate::execute::call::clean;
use crate::execute::finished::Finished;

/// The events of one saga, and what follows from them.
pub(super) struct Batch {
    pub(super) saga_id: i64,
    pub(super) order: Order,
    before: Option<Progress>,
    /// At least one; exactly one of a saga whose row does not keep its progress.
    pub(super) finished: Vec<Finished>,
    pub(super) change: Change,
}

/// How a sequential saga goes on with its next step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Advance {
    /// The next step's action takes the row of the finished task.
    pub(super) in_place: bool,
    /// The wait before a new task, in microseconds. `None`: this worker claims the task at once.
    pub(super) delay_us: Option<i64>,
}

/// What a saga's statement needs besides the change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Sequential(Advance),
    Parallel {
        /// The version of the saga's row from which the change was planned.
        version: i32,
    },
}

/// A plan in the words of the settle statements.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The progress afterwards. `None` if it stays.
    pub(super) progress: Option<Progress>,
    pub(super) status: Option<StatusChange>,
    pub(super) reason: Option<String>,
    pub(super) unwinds: bool,
    /// Position, from 1, of the step at which the deadline aborts the saga.
    pub(super) overdue_step: Option<i16>,
    /// Whether the tasks of the saga keep its deadline. The deadline is void once the pivot has
    /// succeeded, and for compensations.
    pub(super) keeps_deadline: bool,
    /// One for each finished task.
    pub(super) tasks: Vec<TaskChange>,
    pub(super) queued: Vec<Attempt>,
    /// The result of a saga that succeeds.
    pub(super) result: Option<String>,
}

/// The next state of one task.
#[derive(Debug, Default)]
pub(super) struct TaskChange {
    /// How the call, or the wait, ended; `None` if neither did.
    pub(super) recorded: Option<Outcome>,
    /// The message of a wait that has ended, where no participant has said anything.
    said: Option<String>,
    pub(super) next: Option<Attempt>,
    /// The next attempt waits so long for a completion.
    pub(super) wait_us: Option<i64>,
    pub(super) delay_us: Option<i64>,
    /// An abort waits for this task's definite outcome.
    pub(super) is_interrupted: bool,
    /// The history gets no message. It stays in memory, because a task that a settle leaves out is
    /// planned anew, and the plan must come to the same.
    without_message: bool,
    pub(super) stuck_reason: Option<String>,
}

impl TaskChange {
    /// The message of the history.
    pub(super) fn message<'a>(&'a self, finished: &'a Finished) -> Option<&'a str> {
        self.said.as_deref().or_else(|| finished.message()).filter(|_| !self.without_message)
    }
}

impl Batch {
    /// Plans what follows from `finished`. Without `before`, which cannot be read then, the saga
    /// becomes stuck.
    pub(super) fn plan(
        saga_id: i64,
        order: Order,
        before: Option<Progress>,
        finished: Vec<Finished>,
    ) -> Batch {
        let change = match &before {
            None => Err("its progress cannot be read".to_owned()),
            Some(before) => change(before, &finished),
        };
        let change = change.unwrap_or_else(|illegal| stuck(before.as_ref(), &finished, &illegal));
        Batch { saga_id, order, before, finished, change }
    }

    /// The worker id that holds the tasks.
    pub(super) fn worker(&self) -> i64 {
        self.finished.first().map_or(0, |finished| finished.task.worker)
    }

    /// How long the first attempt of an op waits for a completion, in microseconds. `None`: it
    /// calls.
    pub(super) fn wait_us(&self, first: Attempt) -> Option<i64> {
        let saga = &self.finished.first()?.task.saga;
        let waits = first.op == Op::Action && saga.graph.action(first.step) == ActionKind::Wait;
        let wait = saga.steps.get(first.step).filter(|_| waits)?.wait?;
        Some(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
    }

    /// The participant that an attempt calls.
    pub(super) fn participant(&self, attempt: Attempt) -> &str {
        let step = self.finished.first().and_then(|finished| finished.task.saga.steps.get(attempt.step));
        step.map_or("", |step| step.participant(attempt.op))
    }

    /// Removes what the database refuses from a lone batch: first the answers; then the saga
    /// becomes stuck. False when nothing is left to remove.
    pub(super) fn degrade(&mut self, error: &sqlx::Error) -> bool {
        let mut changed = self.change.result.take().is_some();
        for result in self.finished.iter_mut().filter_map(|finished| finished.result.as_mut()) {
            changed |= result.answer.take().is_some();
        }
        if changed {
            return true;
        }
        if self.change.status == Some(StatusChange::Stuck) {
            return false;
        }
        let why = format!("its outcome cannot be settled: {}", describe(error));
        // control: settle-culprit-stuck
        self.change = stuck(self.before.as_ref(), &self.finished, &why);
        self.change.tasks.iter_mut().for_each(|task| task.without_message = true);
        if let Order::Sequential(advance) = &mut self.order {
            *advance = Advance::default();
        }
        true
    }
}

fn change(before: &Progress, finished: &[Finished]) -> Result<Change, String> {
    let Some(first) = finished.first() else { return Ok(Change::default()) };
    let graph = &first.task.saga.graph;
    let events: Vec<_> = finished.iter().map(Finished::event).collect();
    let Plan { progress, tasks, queued, unwinds, abort, ends } =
        plan(graph, before, &events).map_err(|illegal| illegal.to_string())?;
    let passed_pivot = graph.pivot().is_some_and(|pivot| progress.steps[pivot] == State::Done);
    let mut change = Change {
        unwinds,
        keeps_deadline: !progress.abort_requested && !passed_pivot,
        progress: (progress != *before).then_some(progress),
        queued,
        ..Change::default()
    };
    if unwinds {
        change.status = Some(StatusChange::Aborting);
    }
    if let Some((index, cause)) = abort {
        let aborting = &finished[index];
        change.overdue_step = (cause == AbortCause::Timeout).then_some((aborting.task.now.step + 1) as i16);
        change.status = Some(if unwinds { StatusChange::Aborting } else { StatusChange::Awaiting });
        change.reason = Some(aborting.reason(cause));
    }
    for ((finished, event), task) in finished.iter().zip(&events).zip(tasks) {
        let after = task_change(finished, event);
        let task = match task {
            TaskPlan::Done => after,
            TaskPlan::Retry { next, wait, awaited } => {
                let wait_us =
                    finished.reports_within_us().filter(|_| event.outcome == Some(Outcome::Ongoing));
                let delay_us = Some(wait_us.unwrap_or_else(|| finished.delay_us(wait)));
                TaskChange { next: Some(next), wait_us, delay_us, is_interrupted: awaited, ..after }
            }
            // Its row knows when the wait ends.
            TaskPlan::Waits { now, awaited } => {
                TaskChange { next: Some(now), delay_us: Some(0), is_interrupted: awaited, ..after }
            }
            TaskPlan::Stuck { next, why } => {
                let reason = finished.reason(why);
                change.status = Some(StatusChange::Stuck);
                change.reason = Some(reason.clone());
                TaskChange { next: Some(next), stuck_reason: Some(reason), ..after }
            }
        };
        change.tasks.push(task);
    }
    match ends {
        Some(SagaEnd::Succeeded) => change.status = Some(StatusChange::Succeeded),
        Some(SagaEnd::Failed) => change.status = Some(StatusChange::Failed),
        Some(SagaEnd::Decided) => change.status = Some(StatusChange::Ending),
        None => {}
    }
    Ok(change)
}

/// What a settle records of a task, without what follows.
fn task_change(finished: &Finished, event: &Event) -> TaskChange {
    let [ended, _] = recorded(&finished.task.saga.graph, event);
    let said = (ended.is_some() && event.outcome.is_none()).then(|| finished.no_completion());
    TaskChange { recorded: ended, said, ..TaskChange::default() }
}

/// The change that makes the saga stuck, whatever its events say.
fn stuck(before: Option<&Progress>, finished: &[Finished], why: &str) -> Change {
    let progress = before.map(|before| {
        let mut progress = before.clone();
        for Finished { task, .. } in finished {
            if let Some(state) = progress.steps.get_mut(task.now.step) {
                *state = match task.now.op {
                    Op::Action => State::StuckActing,
                    Op::Compensate => State::StuckUndoing,
                };
            }
        }
        progress
    });
    let reason = |finished: &Finished| format!("{}: {}", finished.task.step_name(), clean(why));
    let task = |finished: &Finished| {
        let event = finished.event();
        let after = task_change(finished, &event);
        let graph = &finished.task.saga.graph;
        let next = attempt_after(graph, event.now, after.recorded);
        let next = attempt_after(graph, next, event.completion.map(Completion::outcome));
        TaskChange { next: Some(next), stuck_reason: Some(reason(finished)), ..after }
    };
    Change {
        progress,
        status: Some(StatusChange::Stuck),
        reason: finished.first().map(reason),
        tasks: finished.iter().map(task).collect(),
        ..Change::default()
    }
}
