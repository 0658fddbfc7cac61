//! Parallel sagas: all events of one saga in a group fold into one plan, from the progress on its row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pgsaga_sql::query;
use sqlx::Row as _;

use super::{Finished, StillHeld, Unit, by_id, count, log, make_ascii, wake_others};
use crate::db::Lane;
use crate::execute::outcome::clean;
use crate::liveness::identity::Identity;
use crate::task::references::Answers;
use crate::worker::Worker;
use pgsaga_plan::Outcome;
use pgsaga_plan::{AbortCause, Attempt, Op, Plan, SagaEnd, TaskPlan, plan as fold};
use pgsaga_plan::{Progress, State};

/// The events of one saga, with what follows from them.
pub(super) struct Batch {
    saga_id: i64,
    /// What the plan was made from.
    version: i32,
    before: Option<Progress>,
    finished: Vec<Finished>,
    next: Next,
}

/// A plan in the words of settle_parallel.sql.
#[derive(Default)]
struct Next {
    progress: Option<String>,
    status: Option<&'static str>,
    reason: Option<String>,
    turned: bool,
    overdue_step: Option<i16>,
    keeps_deadline: bool,
    /// One a task.
    tasks: Vec<Again>,
    queued: Vec<Attempt>,
    result: Option<String>,
}

/// What becomes of one task.
#[derive(Default)]
struct Again {
    next: Option<Attempt>,
    delay_us: Option<i64>,
    marked: bool,
    /// The history gets no words. They stay in memory: what a lock leaves out is planned anew, and must come to the same.
    wordless: bool,
    stuck_reason: Option<String>,
}

/// A parallel saga's row as it stands.
struct Standing {
    version: i32,
    progress: Option<Progress>,
}

/// Plans what came back, saga by saga. What could not be read comes back to be tried again.
pub(super) async fn plan(worker: &Worker, finished: Vec<Finished>) -> (Vec<Batch>, Vec<Finished>) {
    let mut sagas: HashMap<i64, Vec<Finished>> = HashMap::new();
    for finished in finished {
        sagas.entry(finished.task.saga_id).or_default().push(finished);
    }
    let standing = match read(worker, sagas.keys().copied().collect()).await {
        Ok(standing) => standing,
        Err(error) => {
            worker.database_failed("read the progress of sagas", &error);
            return (Vec::new(), sagas.into_values().flatten().collect());
        }
    };
    let mut batches = Vec::with_capacity(sagas.len());
    let mut gone = Vec::new();
    for (saga_id, finished) in sagas {
        match standing.get(&saga_id) {
            Some(standing) => batches.push(Batch::plan(saga_id, standing, finished)),
            None => gone.extend(finished),
        }
    }
    find_results(worker, &mut batches).await;
    let still_held = StillHeld::look(worker, &gone.iter().collect::<Vec<_>>()).await;
    let again = gone.into_iter().filter_map(|finished| still_held.again(worker, finished)).collect();
    (batches, again)
}

async fn read(worker: &Worker, sagas: Vec<i64>) -> Result<HashMap<i64, Standing>, sqlx::Error> {
    let mut standing = HashMap::with_capacity(sagas.len());
    for row in worker.db.run(Lane::Work, sqlx::query(query::PROGRESS).bind(sagas)).await? {
        let text: Option<&str> = row.try_get("progress")?;
        let requested: bool = row.try_get("requested")?;
        let progress = text.and_then(|text| Progress::parse(text, requested));
        standing.insert(row.try_get("id")?, Standing { version: row.try_get("version")?, progress });
    }
    Ok(standing)
}

/// The results of sagas that succeed here: other steps' answers are in the history.
async fn find_results(worker: &Worker, batches: &mut [Batch]) {
    let succeeded = |batch: &&mut Batch| batch.next.status == Some("succeeded");
    let ids: Vec<i64> = batches.iter_mut().filter(succeeded).map(|batch| batch.saga_id).collect();
    if ids.is_empty() {
        return;
    }
    let rows = match worker.db.run(Lane::Work, sqlx::query(query::DETAILS).bind(ids)).await {
        Ok(rows) => rows,
        Err(error) => {
            // Said again with the next plan: a version that cannot be the row's.
            worker.database_failed("read the answers of steps", &error);
            for batch in batches.iter_mut().filter(succeeded) {
                batch.version = -1;
            }
            return;
        }
    };
    let mut known: HashMap<i64, Answers> = HashMap::new();
    for row in &rows {
        let answers = row.try_get::<Option<&str>, _>("answers").ok().flatten();
        let answers = answers.and_then(|text| Answers::read(text, worker.load.add(text.len())).ok());
        if let (Ok(id), Some(answers)) = (row.try_get("id"), answers) {
            known.insert(id, answers);
        }
    }
    for batch in batches.iter_mut().filter(succeeded) {
        let mut answers = known.remove(&batch.saga_id).unwrap_or_default();
        for finished in &batch.finished {
            if let Some(answer) = finished.kept_answer() {
                answers = answers.with(finished.task.now.step, answer, &worker.load);
            }
        }
        let saga = batch.finished.first().map(|finished| Arc::clone(&finished.task.saga));
        batch.next.result = saga.and_then(|saga| {
            let last = answers.get(saga.steps.len() - 1).map(str::to_owned);
            saga.result(&answers, last.as_deref())
        });
    }
}

impl Batch {
    fn plan(saga_id: i64, standing: &Standing, finished: Vec<Finished>) -> Batch {
        let next = match &standing.progress {
            None => Err("its progress cannot be read".to_owned()),
            Some(progress) => next(progress, &finished),
        };
        let before = standing.progress.clone();
        let next = next.unwrap_or_else(|illegal| stuck(before.as_ref(), &finished, &illegal));
        Batch { saga_id, version: standing.version, before, finished, next }
    }
}

fn next(progress: &Progress, finished: &[Finished]) -> Result<Next, String> {
    let Some(first) = finished.first() else { return Ok(Next::default()) };
    let shape = &first.task.saga.shape;
    let events: Vec<_> = finished.iter().map(|finished| finished.task.event(finished.outcome())).collect();
    let plan: Plan = fold(shape, progress, &events).map_err(|illegal| illegal.to_string())?;
    let stands = shape.pivot().is_some_and(|pivot| plan.progress.steps[pivot] == State::Done);
    let mut next = Next {
        progress: (plan.progress != *progress).then(|| plan.progress.text()),
        turned: plan.unwinds,
        keeps_deadline: !plan.progress.abort_requested && !stands,
        queued: plan.queued,
        ..Next::default()
    };
    if let Some((index, why)) = plan.abort {
        next.overdue_step =
            (why == AbortCause::Timeout).then_some((finished[index].task.now.step + 1) as i16);
        next.status = Some(if plan.unwinds { "aborting" } else { "awaiting" });
        next.reason = Some(finished[index].reason(why));
    } else if plan.unwinds {
        next.status = Some("aborting");
    }
    for (finished, then) in finished.iter().zip(plan.tasks) {
        next.tasks.push(match then {
            TaskPlan::Done => Again::default(),
            TaskPlan::Retry { next, wait, awaited } => {
                let delay_us = Some(finished.delay_us(wait));
                Again { next: Some(next), delay_us, marked: awaited, stuck_reason: None, wordless: false }
            }
            TaskPlan::Stuck { next: again, why } => {
                let reason = finished.reason(why);
                next.status = Some("stuck");
                next.reason = Some(reason.clone());
                Again { next: Some(again), stuck_reason: Some(reason), ..Again::default() }
            }
        });
    }
    match plan.ends {
        Some(SagaEnd::Succeeded) => next.status = Some("succeeded"),
        Some(SagaEnd::Failed) => next.status = Some("failed"),
        Some(SagaEnd::Decided) => next.status = Some("ending"),
        None => {}
    }
    Ok(next)
}

fn stuck(before: Option<&Progress>, finished: &[Finished], why: &str) -> Next {
    let progress = before.map(|before| {
        let mut progress = before.clone();
        for Finished { task, .. } in finished {
            if let Some(state) = progress.steps.get_mut(task.now.step) {
                *state = if task.now.op == Op::Action { State::StuckActing } else { State::StuckUndoing };
            }
        }
        progress.text()
    });
    let reason = |finished: &Finished| format!("{}: {}", finished.task.step_name(), clean(why));
    Next {
        progress,
        status: Some("stuck"),
        reason: finished.first().map(reason),
        tasks: finished
            .iter()
            .map(|finished| Again {
                next: Some(finished.task.now.after(finished.outcome())),
                stuck_reason: Some(reason(finished)),
                ..Again::default()
            })
            .collect(),
        ..Next::default()
    }
}

/// What the database did.
pub(super) struct Settled {
    sagas: HashSet<i64>,
    queued: bool,
    still_held: StillHeld,
}

impl Unit for Batch {
    type Settled = Settled;

    fn saga_id(&self) -> i64 {
        self.saga_id
    }

    fn tasks(&self) -> usize {
        self.finished.len()
    }

    fn worker(&self) -> i64 {
        self.finished.first().map_or(0, |finished| finished.task.worker)
    }

    async fn settle(worker: &Worker, identity: Identity, group: &[Batch]) -> Result<Settled, sqlx::Error> {
        fn tasks<'a, T>(group: &'a [Batch], value: impl Fn(&'a Finished, &'a Again) -> T) -> Vec<T> {
            let pairs = group.iter().flat_map(|batch| batch.finished.iter().zip(&batch.next.tasks));
            pairs.map(|(finished, again)| value(finished, again)).collect()
        }
        fn sagas<'a, T>(group: &'a [Batch], value: impl Fn(&'a Batch) -> T) -> Vec<T> {
            group.iter().map(value).collect()
        }
        fn queued<'a, T>(group: &'a [Batch], value: impl Fn(&'a Batch, &'a Attempt) -> T) -> Vec<T> {
            let pairs =
                group.iter().flat_map(|batch| batch.next.queued.iter().map(move |first| (batch, first)));
            pairs.map(|(batch, first)| value(batch, first)).collect()
        }
        let answers = group
            .iter()
            .flat_map(|batch| &batch.finished)
            .filter_map(|finished| Some((finished.task.id, finished.kept_answer()?)));
        let results = group.iter().filter_map(|batch| Some((batch.saga_id, batch.next.result.as_deref()?)));
        let statement = sqlx::query(query::SETTLE_PARALLEL)
            .bind(identity.id)
            .bind(tasks(group, |finished, _| finished.task.id))
            .bind(tasks(group, |finished, _| finished.task.epoch))
            .bind(tasks(group, |finished, _| finished.task.saga_id))
            .bind(tasks(group, |finished, _| finished.outcome().map(Outcome::as_str)))
            .bind(tasks(group, |finished, _| finished.ended.as_ref()?.status_code.map(|code| code as i16)))
            .bind(tasks(group, |finished, _| {
                let duration = finished.ended.as_ref()?.duration;
                Some(i32::try_from(duration.as_micros()).unwrap_or(i32::MAX))
            }))
            .bind(tasks(group, |finished, again| {
                finished.ended.as_ref()?.message.as_deref().filter(|_| !again.wordless)
            }))
            .bind(tasks(group, |finished, _| finished.task.interrupt.map(|interrupt| interrupt.as_str())))
            .bind(tasks(group, |_, again| again.next.map(|next| next.attempt as i32)))
            .bind(tasks(group, |_, again| again.next.map(|next| next.counted as i32)))
            .bind(tasks(group, |_, again| again.next.map(|next| next.unknown_before)))
            .bind(tasks(group, |_, again| again.next?.last.map(Outcome::as_str)))
            .bind(tasks(group, |_, again| again.delay_us))
            .bind(tasks(group, |_, again| again.marked))
            .bind(tasks(group, |_, again| again.stuck_reason.as_deref()))
            .bind(tasks(group, |finished, again| {
                again.stuck_reason.as_ref().map(|_| finished.task.step_name())
            }))
            .bind(sagas(group, |batch| batch.saga_id))
            .bind(sagas(group, |batch| batch.version))
            .bind(sagas(group, |batch| batch.next.progress.as_deref()))
            .bind(sagas(group, |batch| batch.next.status))
            .bind(sagas(group, |batch| batch.next.reason.as_deref()))
            .bind(sagas(group, |batch| batch.next.turned))
            .bind(sagas(group, |batch| batch.next.overdue_step))
            .bind(sagas(group, |batch| batch.next.keeps_deadline))
            .bind(queued(group, |batch, _| batch.saga_id))
            .bind(queued(group, |_, first| (first.step + 1) as i16))
            .bind(queued(group, |_, first| first.op.as_str()))
            .bind(queued(group, participant))
            .bind(by_id(answers))
            .bind(by_id(results))
            .bind(identity.server);
        let mut settled = HashSet::with_capacity(group.len());
        let mut any_queued = false;
        for row in worker.db.run(Lane::Work, statement).await? {
            settled.insert(row.try_get("saga_id")?);
            any_queued |= row.try_get::<i64, _>("queued")? > 0;
        }
        let missing: Vec<_> = group
            .iter()
            .filter(|batch| !settled.contains(&batch.saga_id))
            .flat_map(|batch| &batch.finished)
            .collect();
        let still_held = StillHeld::look(worker, &missing).await;
        Ok(Settled { sagas: settled, queued: any_queued, still_held })
    }

    /// Nothing is chained: what became ready is claimed by whoever is free.
    fn answer(worker: &Arc<Worker>, group: Vec<Batch>, settled: Settled) -> Vec<Finished> {
        let mut again = Vec::new();
        let mut others = false;
        for batch in group {
            if !settled.sagas.contains(&batch.saga_id) {
                let held = batch
                    .finished
                    .into_iter()
                    .filter_map(|finished| settled.still_held.again(worker, finished));
                again.extend(held);
                continue;
            }
            let denied = |first: &Attempt| worker.participants.is_denied(participant(&batch, first));
            others |= batch.next.queued.iter().any(denied);
            let next = batch.next;
            worker.metrics.settled[0].increment(batch.finished.len() as u64);
            worker.metrics.unwinds.increment(u64::from(next.turned));
            if let (Some(status), Some(first)) = (next.status, batch.finished.first()) {
                count(worker, &first.task, status);
            }
            for (nth, (finished, task)) in batch.finished.iter().zip(&next.tasks).enumerate() {
                let (status, turned) = (task.stuck_reason.as_ref().map(|_| "stuck"), next.turned && nth == 0);
                let reason = task.stuck_reason.as_deref().or(next.reason.as_deref());
                log(finished, status, reason, turned, task.delay_us);
                worker.held.forget(finished.task.worker, finished.task.id);
            }
        }
        if settled.queued {
            worker.wake.notify_one();
        }
        if others {
            wake_others(worker);
        }
        again
    }

    /// Without text that the database's encoding may not have, then without answers, then as a stuck saga.
    fn tame(&mut self, error: &sqlx::Error) -> bool {
        let mut changed = make_ascii(&mut self.next.reason);
        for again in &mut self.next.tasks {
            changed |= make_ascii(&mut again.stuck_reason);
        }
        for ended in self.finished.iter_mut().filter_map(|finished| finished.ended.as_mut()) {
            changed |= make_ascii(&mut ended.message);
        }
        if changed {
            return true;
        }
        changed = self.next.result.take().is_some();
        for ended in self.finished.iter_mut().filter_map(|finished| finished.ended.as_mut()) {
            changed |= ended.answer.take().is_some();
        }
        if changed {
            return true;
        }
        if self.next.status == Some("stuck") {
            return false;
        }
        let why = format!("its outcome cannot be settled: {error}");
        self.next = stuck(self.before.as_ref(), &self.finished, &why);
        self.next.tasks.iter_mut().for_each(|again| again.wordless = true);
        true
    }

    fn finished(self) -> Vec<Finished> {
        self.finished
    }
}

fn participant<'a>(batch: &'a Batch, first: &Attempt) -> &'a str {
    let step = batch.finished.first().and_then(|finished| finished.task.saga.steps.get(first.step));
    step.map_or("", |step| step.participant(first.op))
}
