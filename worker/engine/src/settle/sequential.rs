//! Sequential sagas: one task each, so one element of the arrays of settle.sql each.

use std::collections::HashMap;
use std::sync::Arc;

use pgsaga_sql::query::{self, SettledTask};
use sqlx::Row as _;

use super::{Finished, StillHeld, Unit, count, log, make_ascii, wake_others};
use crate::db::Lane;
use crate::execute;
use crate::execute::outcome::clean;
use crate::liveness::identity::Identity;
use crate::worker::Worker;
use pgsaga_plan::Outcome;
use pgsaga_plan::Progress;
use pgsaga_plan::{AbortCause, Attempt, Op, Plan, SagaEnd, TaskPlan, plan};

/// A task that came back, with what follows from it.
pub(super) struct Item {
    finished: Finished,
    next: Next,
}

/// A plan in the words of settle.sql.
#[derive(Default)]
struct Next {
    in_place: bool,
    task: Option<Attempt>,
    /// Microseconds; `None` with a task is the chain: claimed by this worker at once.
    delay_us: Option<i64>,
    /// The history gets no words. They stay in memory: what a lock leaves out is planned anew, and must come to the same.
    wordless: bool,
    /// The next task bears the mark `turn`.
    marked: bool,
    keeps_deadline: bool,
    overdue: bool,
    turned: bool,
    saga_status: Option<&'static str>,
    saga_reason: Option<String>,
    result: Option<String>,
}

impl Item {
    pub(super) fn plan(worker: &Worker, finished: Finished) -> Item {
        let task = &finished.task;
        let shape = &task.saga.shape;
        let progress = Progress::of_sequential(shape.count(), task.now);
        let next = match plan(shape, &progress, &[task.event(finished.outcome())]) {
            Ok(plan) => next(worker, &finished, plan),
            Err(illegal) => stuck(&finished, &illegal.to_string()),
        };
        Item { finished, next }
    }

    fn row(&self) -> SettledTask<'_> {
        let Item { finished, next } = self;
        let (task, ended) = (&finished.task, finished.ended.as_ref());
        // The advance in place knows the next task without being told.
        let again = next.task.filter(|_| !next.in_place);
        SettledTask {
            task_id: task.id,
            epoch: task.epoch,
            saga_id: task.saga_id,
            outcome: finished.outcome().map(Outcome::as_str),
            status_code: finished.status_code(),
            duration_us: finished.duration_us(),
            message: ended.and_then(|ended| ended.message.as_deref()).filter(|_| !next.wordless),
            in_place: next.in_place,
            next_step: again.map(|again| (again.step + 1) as i16),
            next_op: again.map(|again| again.op.as_str()),
            next_attempt: again.map(|again| again.attempt as i32),
            next_counted: again.map(|again| again.counted as i32),
            next_unknown_before: again.map(|again| again.unknown_before),
            next_last_outcome: again.and_then(|again| again.last).map(Outcome::as_str),
            next_delay_us: next.delay_us,
            saga_status: next.saga_status,
            saga_reason: next.saga_reason.as_deref(),
            step_name: (next.saga_status == Some("stuck")).then(|| task.step_name()),
            known_interrupt: task.interrupt.map(|interrupt| interrupt.as_str()),
            next_participant: again
                .and_then(|again| Some(task.saga.steps.get(again.step)?.participant(again.op))),
            next_is_interrupted: next.marked,
            next_keeps_deadline: next.keeps_deadline && !next.in_place,
            aborted_by_deadline: next.overdue,
        }
    }
}

fn next(worker: &Worker, finished: &Finished, plan: Plan) -> Next {
    let task = &finished.task;
    // Deadlines are void once the pivot stands, and for compensations.
    let may_be_late = |next: Attempt| {
        next.op == Op::Action && task.saga.shape.pivot().is_none_or(|pivot| pivot >= next.step)
    };
    let mut next = Next { turned: plan.unwinds, ..Next::default() };
    if let Some((_, why)) = plan.abort {
        next.overdue = why == AbortCause::Timeout;
        next.saga_status = Some(if plan.unwinds { "aborting" } else { "awaiting" });
        next.saga_reason = Some(finished.reason(why));
    } else if plan.unwinds {
        next.saga_status = Some("aborting");
    }
    match plan.tasks.into_iter().next() {
        Some(TaskPlan::Retry { next: again, wait, awaited }) => {
            next.task = Some(again);
            next.delay_us = Some(finished.delay_us(wait));
            next.marked = awaited;
            next.keeps_deadline = may_be_late(again) && !awaited;
        }
        Some(TaskPlan::Stuck { next: again, why }) => {
            next.task = Some(again);
            next.saga_status = Some("stuck");
            next.saga_reason = Some(finished.reason(why));
        }
        Some(TaskPlan::Done) | None => {
            next.task = plan.queued.first().copied();
            if let Some(first) = next.task {
                next.keeps_deadline = may_be_late(first);
                // The advance leaves the saga alone, and everything of the task but its step.
                let plain = task.interrupt.is_none() && (next.keeps_deadline || task.deadline.is_none());
                let to = task.saga.steps.get(first.step).map_or("", |step| step.participant(first.op));
                // What its participant has no room for is not chained; a worker that stops keeps nothing it could not start.
                let fits = to.is_empty() || worker.participants.has_room(to);
                next.in_place = first.op == Op::Action && plain && fits;
                next.delay_us = (!next.in_place && (worker.stop.is_cancelled() || !fits)).then_some(0);
            }
        }
    }
    match plan.ends {
        Some(SagaEnd::Succeeded) => {
            next.saga_status = Some("succeeded");
            next.result = result(worker, finished);
        }
        Some(SagaEnd::Failed) => next.saga_status = Some("failed"),
        Some(SagaEnd::Decided) => next.saga_status = Some("ending"),
        None => {}
    }
    next
}

fn result(worker: &Worker, finished: &Finished) -> Option<String> {
    let task = &finished.task;
    let last = finished.ended.as_ref().and_then(|ended| ended.answer.as_deref());
    match last {
        Some(last) => task.saga.result(&task.answers.with(task.now.step, last, &worker.load), Some(last)),
        None => task.saga.result(&task.answers, None),
    }
}

fn stuck(finished: &Finished, why: &str) -> Next {
    Next {
        task: Some(finished.task.now.after(finished.outcome())),
        saga_status: Some("stuck"),
        saga_reason: Some(format!("{}: {}", finished.task.step_name(), clean(why))),
        ..Next::default()
    }
}

/// What the database did.
pub(super) struct Settled {
    /// Tasks settled, with whether this worker holds the advanced row, and the answer as Postgres prints it.
    tasks: HashMap<i64, (bool, Option<String>)>,
    /// New tasks that this worker holds, by saga.
    queued: HashMap<i64, i64>,
    still_held: StillHeld,
}

impl Unit for Item {
    type Settled = Settled;

    fn saga_id(&self) -> i64 {
        self.finished.task.saga_id
    }

    fn tasks(&self) -> usize {
        1
    }

    fn worker(&self) -> i64 {
        self.finished.task.worker
    }

    async fn settle(worker: &Worker, identity: Identity, group: &[Item]) -> Result<Settled, sqlx::Error> {
        let mut settle = query::Settle {
            worker_id: identity.id,
            server_started_at: identity.server,
            ..query::Settle::default()
        };
        settle.tasks.extend(group.iter().map(Item::row));
        for item in group {
            let task = &item.finished.task;
            if let Some(answer) = item.finished.kept_answer() {
                settle.answers_by_task.push(task.id, answer);
            }
            if let Some(result) = &item.next.result {
                settle.results_by_saga.push(task.saga_id, result);
            }
        }
        let mut tasks = HashMap::with_capacity(group.len());
        let mut queued = HashMap::new();
        for row in worker.db.run(Lane::Work, settle.query()).await? {
            let chained: bool = row.try_get("chained")?;
            match row.try_get::<Option<i64>, _>("task_id")? {
                Some(task) => {
                    tasks.insert(task, (chained, row.try_get("answer")?));
                }
                None if chained => {
                    queued.insert(row.try_get("saga_id")?, row.try_get("queued_id")?);
                }
                None => {}
            }
        }
        let missing: Vec<_> = group
            .iter()
            .map(|item| &item.finished)
            .filter(|finished| !tasks.contains_key(&finished.task.id))
            .collect();
        let still_held = StillHeld::look(worker, &missing).await;
        Ok(Settled { tasks, queued, still_held })
    }

    /// The next step of a settled task starts at once, under the same place.
    fn answer(worker: &Arc<Worker>, group: Vec<Item>, mut settled: Settled) -> Vec<Finished> {
        let mut again = Vec::new();
        let mut others = false;
        for Item { finished, next } in group {
            let Some((advanced, answer)) = settled.tasks.remove(&finished.task.id) else {
                again.extend(settled.still_held.again(worker, finished));
                continue;
            };
            worker.metrics.settled[0].increment(1);
            worker.metrics.unwinds.increment(u64::from(next.turned));
            log(&finished, next.saga_status, next.saga_reason.as_deref(), next.turned, next.delay_us);
            if let Some(status) = next.saga_status {
                count(worker, &finished.task, status);
            }
            let mut task = finished.task;
            let chained = if advanced { Some(task.id) } else { settled.queued.get(&task.saga_id).copied() };
            if chained != Some(task.id) {
                worker.held.forget(task.worker, task.id);
            }
            let (Some(now), Some(id)) = (next.task, chained) else {
                if next.delay_us == Some(0) {
                    worker.wake.notify_one();
                }
                others |= next.task.is_some_and(|next| {
                    let step = task.saga.steps.get(next.step);
                    step.is_some_and(|step| worker.participants.is_denied(step.participant(next.op)))
                });
                continue;
            };
            if let Some(answer) = answer {
                task.answers = task.answers.with(task.now.step, &answer, &worker.load);
            }
            if !next.keeps_deadline {
                task.deadline = None;
            }
            task.id = id;
            task.epoch += 1;
            task.now = now;
            task.lost = 0;
            task.lost_alone = 0;
            task.interrupt = None;
            let to = task.saga.steps.get(now.step).map_or("", |step| step.participant(now.op));
            if to != task.ticket.participant() {
                task.ticket = worker.participants.hold(to);
            }
            worker.held.advance(task.worker, id, task.epoch);
            execute::start(worker, task);
        }
        if others {
            wake_others(worker);
        }
        again
    }

    /// First without text that its encoding may not have, then without the answers, then as a stuck saga.
    fn tame(&mut self, error: &sqlx::Error) -> bool {
        let Item { finished, next } = self;
        let message = finished.ended.as_mut().map(|ended| &mut ended.message);
        let mut changed = message.is_some_and(make_ascii);
        changed |= make_ascii(&mut next.saga_reason);
        if changed {
            return true;
        }
        let answer = finished.ended.as_mut().and_then(|ended| ended.answer.take());
        if answer.is_some() | next.result.take().is_some() {
            return true;
        }
        if next.saga_status == Some("stuck") {
            return false;
        }
        let why = format!("its outcome cannot be settled: {error}");
        *next = Next { wordless: true, ..stuck(finished, &why) };
        true
    }

    fn finished(self) -> Vec<Finished> {
        vec![self.finished]
    }
}
