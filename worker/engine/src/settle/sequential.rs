//! Sagas that run their steps in order, and wait for no completion between them: one task each. The
//! next step of a settled task starts at once (the chain).

use std::collections::HashMap;

use pgsaga_plan::{Attempt, Completion, Op, Outcome, Progress, StatusChange};
use pgsaga_sql::query::{self, SettledTask};
use sqlx::Row as _;

use crate::execute::finished::Finished;
use crate::execute::task::Task;
use crate::liveness::identity::Identity;
use crate::settle::Settler;
use crate::settle::batch::{Advance, Batch, Order};
use crate::settle::leftover::Leftover;
use crate::settle::session::Session;
use crate::wake::others::Others;

pub(super) struct Settled {
    /// Settled tasks: whether this worker holds the advanced row, and the answer as Postgres
    /// prints it.
    tasks: HashMap<i64, (bool, Option<String>)>,
    /// New tasks that this worker holds, by saga.
    queued: HashMap<i64, i64>,
    leftover: Leftover,
}

pub(super) fn plan(settler: &Settler, finished: Finished) -> Batch {
    let task = &finished.task;
    let before = Progress::of_sequential(task.saga.graph.count(), task.now);
    let order = Order::Sequential(Advance::default());
    let mut batch = Batch::plan(task.saga_id, order, Some(before), vec![finished]);
    batch.order = Order::Sequential(advance(settler, &batch));
    if batch.change.status == Some(StatusChange::Succeeded) {
        batch.change.result = batch.finished.first().and_then(|finished| result(settler, finished));
    }
    batch
}

fn advance(settler: &Settler, batch: &Batch) -> Advance {
    let (Some(&first), Some(finished)) = (batch.change.queued.first(), batch.finished.first()) else {
        return Advance::default();
    };
    let task = &finished.task;
    // The advance in place leaves the saga's row alone, and all of the task's row but its step.
    let is_bare = task.interrupt.is_none() && task.report.is_none() && task.wait_ends.is_none();
    let is_plain = is_bare && (batch.change.keeps_deadline || task.deadline.is_none());
    let participant = batch.participant(first);
    // A task that its participant has no room for is not chained. A worker that stops keeps no task
    // that it could not start.
    let fits = participant.is_empty() || settler.participants.has_room(participant);
    let in_place = first.op == Op::Action && is_plain && fits;
    let is_stopping = settler.shutdown.stop.is_cancelled();
    Advance { in_place, delay_us: (!in_place && (is_stopping || !fits)).then_some(0) }
}

fn result(settler: &Settler, finished: &Finished) -> Option<String> {
    let task = &finished.task;
    match finished.answer() {
        Some(last) => {
            let answers = task.answers.with(task.now.step, last, &settler.capacity.memory);
            task.saga.result(&answers, Some(last))
        }
        None => task.saga.result(&task.answers, None),
    }
}

/// The one task of a sequential saga, and the attempt that follows.
fn next_attempt(batch: &Batch) -> Option<Attempt> {
    let retry = batch.change.tasks.first().and_then(|task| task.next);
    retry.or_else(|| batch.change.queued.first().copied())
}

fn next_delay_us(batch: &Batch) -> Option<i64> {
    let Order::Sequential(advance) = batch.order else { return None };
    batch.change.tasks.first().and_then(|task| task.delay_us).or(advance.delay_us)
}

fn row(batch: &Batch) -> Option<SettledTask<'_>> {
    let (finished, task_change) = (batch.finished.first()?, batch.change.tasks.first()?);
    let Order::Sequential(advance) = batch.order else { return None };
    let (task, change) = (&finished.task, &batch.change);
    // The advance in place knows the next attempt without being told.
    let next = next_attempt(batch).filter(|_| !advance.in_place);
    let is_stuck = change.status == Some(StatusChange::Stuck);
    Some(SettledTask {
        task_id: task.id,
        epoch: task.epoch,
        saga_id: task.saga_id,
        outcome: task_change.recorded.map(Outcome::as_str),
        status_code: finished.status_code(),
        duration_us: finished.duration_us(),
        message: task_change.message(finished),
        in_place: advance.in_place,
        next_step: next.map(|next| (next.step + 1) as i16),
        next_op: next.map(|next| next.op.as_str()),
        next_attempt: next.map(|next| next.attempt as i32),
        next_counted: next.map(|next| next.counted as i32),
        next_unknown_before: next.map(|next| next.unknown_before),
        next_last_outcome: next.and_then(|next| next.last).map(Outcome::as_str),
        next_delay_us: next_delay_us(batch),
        saga_status: change.status.map(StatusChange::as_str),
        saga_reason: change.reason.as_deref(),
        step_name: is_stuck.then(|| task.step_name()),
        known_interrupt: task.interrupt.map(|interrupt| interrupt.as_str()),
        next_participant: next.map(|next| batch.participant(next)),
        next_is_interrupted: task_change.is_interrupted,
        next_keeps_deadline: change.keeps_deadline && next.is_some() && !is_stuck,
        aborted_by_deadline: change.overdue_step.is_some(),
        known_completion: finished.completion().map(Completion::as_str),
        next_wait_us: task_change.wait_us,
    })
}

impl Settled {
    pub(super) fn has(&self, batch: &Batch) -> bool {
        batch.finished.iter().all(|finished| self.tasks.contains_key(&finished.task.id))
    }
}

/// Writes a group in one statement.
pub(super) async fn settle(
    settler: &Settler,
    identity: Identity,
    group: &[Batch],
    session: &mut Session<'_>,
) -> Result<Settled, sqlx::Error> {
    let mut statement = query::Settle {
        worker_id: identity.id,
        server_started_at: identity.server,
        ..query::Settle::default()
    };
    statement.tasks.extend(group.iter().filter_map(row));
    for batch in group {
        for finished in &batch.finished {
            if let Some(answer) = finished.kept_answer() {
                statement.answers_by_task.push(finished.task.id, answer);
            }
        }
        if let Some(result) = &batch.change.result {
            statement.results_by_saga.push(batch.saga_id, result);
        }
    }
    let mut tasks = HashMap::with_capacity(group.len());
    let mut queued = HashMap::new();
    for row in session.run(statement.query()).await? {
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
        .flat_map(|batch| &batch.finished)
        .filter(|finished| !tasks.contains_key(&finished.task.id))
        .collect();
    let leftover = Leftover::look(settler, &missing).await;
    Ok(Settled { tasks, queued, leftover })
}

/// Starts the next step of each settled task, in the same slot. Returns the tasks that must be
/// planned and settled again.
pub(super) fn apply(settler: &Settler, group: Vec<Batch>, mut settled: Settled) -> Vec<Finished> {
    let mut again = Vec::new();
    let mut others = Others::default();
    for mut batch in group {
        let Some(finished) = batch.finished.pop() else { continue };
        let Some((advanced, answer)) = settled.tasks.remove(&finished.task.id) else {
            again.extend(settled.leftover.again(settler, finished));
            continue;
        };
        settler.count(&batch, &finished.task, 1);
        let delay_us = next_delay_us(&batch);
        settler.log_limits.log(
            &finished,
            batch.change.status,
            batch.change.reason.as_deref(),
            batch.change.unwinds,
            delay_us,
        );
        let answer = answer.or_else(|| finished.reported_answer().map(str::to_owned));
        let mut task = finished.task;
        let chained = if advanced { Some(task.id) } else { settled.queued.get(&task.saga_id).copied() };
        if chained != Some(task.id) {
            settler.membership.in_flight.forget(task.worker, task.id);
        }
        let next = next_attempt(&batch);
        let (Some(now), Some(id)) = (next, chained) else {
            if delay_us == Some(0) {
                settler.wakeups.due.notify_one();
            }
            let participant = next.map(|next| task.participant_of(next));
            if let Some(participant) = participant.filter(|name| settler.participants.is_for_others(name)) {
                others.add(participant);
            }
            continue;
        };
        if let Some(answer) = answer {
            task.answers = task.answers.with(task.now.step, &answer, &settler.capacity.memory);
        }
        if !batch.change.keeps_deadline {
            task.deadline = None;
        }
        move_on(settler, &mut task, id, now);
        settler.executor.start(task);
    }
    settler.wake(others);
    again
}

/// Gives the task the state that its row has now.
fn move_on(settler: &Settler, task: &mut Task, id: i64, now: Attempt) {
    task.id = id;
    task.epoch += 1;
    task.now = now;
    task.lost = 0;
    task.lost_isolated = 0;
    task.interrupt = None;
    task.report = None;
    task.wait_ends = None;
    let participant = task.participant_of(now);
    if participant != task.permit.participant() {
        task.permit = settler.participants.hold(participant, task.permit.lane());
    }
    settler.membership.in_flight.advance(task.worker, id, task.epoch);
}
