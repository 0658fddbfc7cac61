//! Sagas whose rows keep their progress: parallel ones, and those with a step that waits. All
//! events of one saga in a group fold into one plan, from the progress on the row. Steps that
//! become ready are claimed by any worker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pgsaga_plan::{Attempt, Completion, Outcome, Progress, StatusChange};
use pgsaga_sql::query::{self, NewTask, ParallelSaga, ParallelTask};
use sqlx::Row as _;

use crate::db::PoolKind;
use crate::execute::finished::Finished;
use crate::execute::task::references::Answers;
use crate::liveness::identity::Identity;
use crate::settle::Settler;
use crate::settle::batch::{Batch, Order, TaskChange};
use crate::settle::leftover::Leftover;
use crate::settle::session::Session;
use crate::wake::others::Others;

/// No row has this version, so a change planned from it is never written.
const NO_VERSION: i32 = -1;

pub(super) struct Settled {
    sagas: HashSet<i64>,
    queued: bool,
    leftover: Leftover,
}

/// The planner's part of a parallel saga's row.
struct SagaRow {
    version: i32,
    /// `None` for text that no release writes.
    progress: Option<Progress>,
}

/// Plans what came back, saga by saga. Tasks whose saga could not be read come back to be tried
/// again.
pub(super) async fn plan(settler: &Settler, finished: Vec<Finished>) -> (Vec<Batch>, Vec<Finished>) {
    let mut sagas: HashMap<i64, Vec<Finished>> = HashMap::new();
    for finished in finished {
        sagas.entry(finished.task.saga_id).or_default().push(finished);
    }
    let mut rows = match read(settler, sagas.keys().copied().collect()).await {
        Ok(rows) => rows,
        Err(error) => {
            settler.db.failed("read the progress of sagas", &error);
            return (Vec::new(), sagas.into_values().flatten().collect());
        }
    };
    let mut batches = Vec::with_capacity(sagas.len());
    let mut gone = Vec::new();
    for (saga_id, finished) in sagas {
        match rows.remove(&saga_id) {
            Some(SagaRow { version, progress }) => {
                batches.push(Batch::plan(saga_id, Order::Parallel { version }, progress, finished));
            }
            None => gone.extend(finished),
        }
    }
    find_results(settler, &mut batches).await;
    let leftover = Leftover::look(settler, &gone.iter().collect::<Vec<_>>()).await;
    let again = gone.into_iter().filter_map(|finished| leftover.again(settler, finished)).collect();
    (batches, again)
}

async fn read(settler: &Settler, sagas: Vec<i64>) -> Result<HashMap<i64, SagaRow>, sqlx::Error> {
    let mut rows = HashMap::with_capacity(sagas.len());
    for row in settler.db.run(PoolKind::Work, sqlx::query(query::PROGRESS).bind(sagas)).await? {
        let text: Option<&str> = row.try_get("progress")?;
        let requested: bool = row.try_get("requested")?;
        let progress = text.and_then(|text| Progress::parse(text, requested));
        rows.insert(row.try_get("id")?, SagaRow { version: row.try_get("version")?, progress });
    }
    Ok(rows)
}

/// Finds the results of sagas that succeed here. The answers of their other steps are in the
/// history.
async fn find_results(settler: &Settler, batches: &mut [Batch]) {
    let succeeds = |batch: &&mut Batch| batch.change.status == Some(StatusChange::Succeeded);
    let ids: Vec<i64> = batches.iter_mut().filter(succeeds).map(|batch| batch.saga_id).collect();
    if ids.is_empty() {
        return;
    }
    let rows = match settler.db.run(PoolKind::Work, sqlx::query(query::DETAILS).bind(ids)).await {
        Ok(rows) => rows,
        Err(error) => {
            settler.db.failed("read the answers of steps", &error);
            for batch in batches.iter_mut().filter(succeeds) {
                batch.order = Order::Parallel { version: NO_VERSION };
            }
            return;
        }
    };
    let memory = &settler.capacity.memory;
    let mut known: HashMap<i64, Answers> = HashMap::new();
    for row in &rows {
        let answers = row.try_get::<Option<&str>, _>("answers").ok().flatten();
        let answers = answers.and_then(|text| Answers::read(text, memory.add(text.len())).ok());
        if let (Ok(id), Some(answers)) = (row.try_get("id"), answers) {
            known.insert(id, answers);
        }
    }
    for batch in batches.iter_mut().filter(succeeds) {
        let mut answers = known.remove(&batch.saga_id).unwrap_or_default();
        for finished in &batch.finished {
            if let Some(answer) = finished.kept_answer() {
                answers = answers.with(finished.task.now.step, answer, memory);
            }
        }
        let saga = batch.finished.first().map(|finished| Arc::clone(&finished.task.saga));
        batch.change.result = saga.and_then(|saga| {
            let last = answers.get(saga.steps.len() - 1).map(str::to_owned);
            saga.result(&answers, last.as_deref())
        });
    }
}

fn task_row<'a>(finished: &'a Finished, change: &'a TaskChange) -> ParallelTask<'a> {
    let (task, next) = (&finished.task, change.next);
    ParallelTask {
        task_id: task.id,
        epoch: task.epoch,
        saga_id: task.saga_id,
        outcome: change.recorded.map(Outcome::as_str),
        status_code: finished.status_code(),
        duration_us: finished.duration_us(),
        message: change.message(finished),
        known_interrupt: task.interrupt.map(|interrupt| interrupt.as_str()),
        next_attempt: next.map(|next| next.attempt as i32),
        next_counted: next.map(|next| next.counted as i32),
        next_unknown_before: next.map(|next| next.unknown_before),
        next_last_outcome: next.and_then(|next| next.last).map(Outcome::as_str),
        next_delay_us: change.delay_us,
        next_is_interrupted: change.is_interrupted,
        stuck_reason: change.stuck_reason.as_deref(),
        step_name: change.stuck_reason.as_ref().map(|_| task.step_name()),
        known_completion: finished.completion().map(Completion::as_str),
        next_wait_us: change.wait_us,
    }
}

fn saga_row<'a>(batch: &'a Batch, progress: Option<&'a String>) -> ParallelSaga<'a> {
    let known_version = match batch.order {
        Order::Parallel { version } => version,
        Order::Sequential(_) => NO_VERSION,
    };
    ParallelSaga {
        saga_id: batch.saga_id,
        known_version,
        progress: progress.map(String::as_str),
        status: batch.change.status.map(StatusChange::as_str),
        reason: batch.change.reason.as_deref(),
        is_aborted: batch.change.unwinds,
        overdue_step: batch.change.overdue_step,
        keeps_deadline: batch.change.keeps_deadline,
    }
}

fn new_task(batch: &Batch, first: Attempt) -> NewTask<'_> {
    NewTask {
        saga_id: batch.saga_id,
        step: (first.step + 1) as i16,
        op: first.op.as_str(),
        participant: batch.participant(first),
        wait_us: batch.wait_us(first),
    }
}

impl Settled {
    pub(super) fn has(&self, batch: &Batch) -> bool {
        self.sagas.contains(&batch.saga_id)
    }
}

/// Writes a group in one statement.
pub(super) async fn settle(
    settler: &Settler,
    identity: Identity,
    group: &[Batch],
    session: &mut Session<'_>,
) -> Result<Settled, sqlx::Error> {
    let mut statement = query::SettleParallel {
        worker_id: identity.id,
        server_started_at: identity.server,
        ..query::SettleParallel::default()
    };
    let progress: Vec<Option<String>> =
        group.iter().map(|batch| batch.change.progress.as_ref().map(Progress::text)).collect();
    let rows = group.iter().zip(&progress);
    statement.sagas.extend(rows.map(|(batch, progress)| saga_row(batch, progress.as_ref())));
    statement.tasks.reserve(group.iter().map(|batch| batch.finished.len()).sum());
    for batch in group {
        for (finished, change) in batch.finished.iter().zip(&batch.change.tasks) {
            statement.tasks.push(task_row(finished, change));
            if let Some(answer) = finished.kept_answer() {
                statement.answers_by_task.push(finished.task.id, answer);
            }
        }
        statement.new_tasks.extend(batch.change.queued.iter().map(|&first| new_task(batch, first)));
        if let Some(result) = &batch.change.result {
            statement.results_by_saga.push(batch.saga_id, result);
        }
    }
    let mut sagas = HashSet::with_capacity(group.len());
    let mut queued = false;
    for row in session.run(statement.query()).await? {
        sagas.insert(row.try_get("saga_id")?);
        queued |= row.try_get::<i64, _>("queued")? > 0;
    }
    let missing: Vec<_> = group
        .iter()
        .filter(|batch| !sagas.contains(&batch.saga_id))
        .flat_map(|batch| &batch.finished)
        .collect();
    let leftover = Leftover::look(settler, &missing).await;
    Ok(Settled { sagas, queued, leftover })
}

/// Forgets the settled tasks. Returns the tasks that must be planned and settled again.
pub(super) fn apply(settler: &Settler, group: Vec<Batch>, settled: Settled) -> Vec<Finished> {
    let mut again = Vec::new();
    let mut others = Others::default();
    for batch in group {
        if !settled.sagas.contains(&batch.saga_id) {
            let finished = batch.finished.into_iter();
            again.extend(finished.filter_map(|finished| settled.leftover.again(settler, finished)));
            continue;
        }
        let queued = batch.change.queued.iter().map(|first| batch.participant(*first));
        queued.filter(|name| settler.participants.is_for_others(name)).for_each(|name| others.add(name));
        if let Some(first) = batch.finished.first() {
            settler.count(&batch, &first.task, batch.finished.len());
        }
        let change = &batch.change;
        for (nth, (finished, task)) in batch.finished.iter().zip(&change.tasks).enumerate() {
            let status = task.stuck_reason.as_ref().map(|_| StatusChange::Stuck);
            let reason = task.stuck_reason.as_deref().or(change.reason.as_deref());
            settler.log_limits.log(finished, status, reason, change.unwinds && nth == 0, task.delay_us);
            settler.membership.in_flight.forget(finished.task.worker, finished.task.id);
        }
    }
    if settled.queued {
        settler.wakeups.due.notify_one();
    }
    settler.wake(others);
    again
}
