//! Sequential sagas: one task each, so one element of the arrays of settle.sql each.

use std::collections::HashMap;
use std::sync::Arc;

use pgsaga_sql::query;
use sqlx::Row as _;

use super::{Finished, StillHeld, Unit, by_id, count, log, make_ascii, wake_others};
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
        fn column<'a, T>(group: &'a [Item], value: impl Fn(&'a Item) -> T) -> Vec<T> {
            group.iter().map(value).collect()
        }
        /// Null instead of an array of nulls: most columns are empty while all goes well, and unnest() pads them for less.
        fn sparse<'a, T>(group: &'a [Item], value: impl Fn(&'a Item) -> Option<T>) -> Option<Vec<Option<T>>> {
            let values = column(group, value);
            values.iter().any(Option::is_some).then_some(values)
        }
        fn flags(group: &[Item], value: impl Fn(&Next) -> bool) -> Option<Vec<Option<bool>>> {
            sparse(group, |item| value(&item.next).then_some(true))
        }
        fn ended<'a, T>(
            group: &'a [Item],
            value: impl Fn(&'a crate::execute::outcome::Ended) -> T,
        ) -> Vec<Option<T>> {
            column(group, |item| item.finished.ended.as_ref().map(&value))
        }
        // The advance in place knows the next task without being told.
        fn next<T>(group: &[Item], value: impl Fn(&Attempt) -> T) -> Option<Vec<Option<T>>> {
            sparse(group, |item| item.next.task.as_ref().filter(|_| !item.next.in_place).map(&value))
        }
        let answers =
            group.iter().filter_map(|item| Some((item.finished.task.id, item.finished.kept_answer()?)));
        let results =
            group.iter().filter_map(|item| Some((item.finished.task.saga_id, item.next.result.as_deref()?)));
        let statement = sqlx::query(query::SETTLE)
            .bind(identity.id)
            .bind(column(group, |item| item.finished.task.id))
            .bind(column(group, |item| item.finished.task.epoch))
            .bind(column(group, |item| item.finished.task.saga_id))
            .bind(ended(group, |ended| ended.outcome.as_str()))
            .bind(column(group, |item| item.finished.ended.as_ref()?.status_code.map(|code| code as i16)))
            .bind(ended(group, |ended| i32::try_from(ended.duration.as_micros()).unwrap_or(i32::MAX)))
            .bind(sparse(group, |item| {
                item.finished.ended.as_ref()?.message.as_deref().filter(|_| !item.next.wordless)
            }))
            .bind(column(group, |item| item.next.in_place))
            .bind(next(group, |next| (next.step + 1) as i16))
            .bind(next(group, |next| next.op.as_str()))
            .bind(next(group, |next| next.attempt as i32))
            .bind(next(group, |next| next.counted as i32))
            .bind(next(group, |next| next.unknown_before))
            .bind(sparse(group, |item| item.next.task.as_ref()?.last.map(Outcome::as_str)))
            .bind(sparse(group, |item| item.next.delay_us))
            .bind(column(group, |item| item.next.saga_status))
            .bind(sparse(group, |item| item.next.saga_reason.as_deref()))
            .bind(sparse(group, |item| {
                item.next
                    .saga_status
                    .is_some_and(|status| status == "stuck")
                    .then(|| item.finished.task.step_name())
            }))
            .bind(sparse(group, |item| item.finished.task.interrupt.map(|interrupt| interrupt.as_str())))
            .bind(sparse(group, |item| {
                let next = item.next.task.filter(|_| !item.next.in_place)?;
                Some(item.finished.task.saga.steps.get(next.step)?.participant(next.op))
            }))
            .bind(flags(group, |next| next.marked))
            .bind(flags(group, |next| next.keeps_deadline && !next.in_place))
            .bind(flags(group, |next| next.overdue))
            .bind(by_id(answers))
            .bind(by_id(results))
            .bind(identity.server);
        let mut tasks = HashMap::with_capacity(group.len());
        let mut queued = HashMap::new();
        for row in worker.db.run(Lane::Work, statement).await? {
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
