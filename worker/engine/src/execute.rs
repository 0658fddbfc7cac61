//! Makes the calls: each held task waits for its turn, is called, and goes on to be settled.

pub mod address;
pub mod client;
pub mod http;
pub mod outcome;
pub mod registry;

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::{fail, query};
use sqlx::Row as _;

use crate::db::Lane;
use crate::execute::http::Called;
use crate::execute::outcome::Ended;
use crate::flow::participants::{Admission, Reached};
use crate::flow::queues;
use crate::settle::Finished;
use crate::task::Task;
use crate::worker::Worker;
use pgsaga_plan::may_call;

/// Starts a task's life in this worker. A task that is not started, because the worker stops or lost its identity, is
/// dropped here: what is held and unstarted is handed back at the end.
pub fn start(worker: &Arc<Worker>, task: Box<Task>) {
    let worker = Arc::clone(worker);
    tokio::spawn(async move { execute(worker, task).await });
}

async fn execute(worker: Arc<Worker>, mut task: Box<Task>) {
    if !worker.schema.fits() {
        return give_back(&worker, *task);
    }
    if !may_call(&task.saga.shape, &task.event(None)) {
        return uncalled(&worker, task);
    }
    if worker.stop.is_cancelled() {
        return;
    }
    if !task.ticket.participant().is_empty() {
        // Waiting is rare, and to be ready for the stop meanwhile is not free.
        let admission = match task.ticket.try_admit() {
            Some(admission) => admission,
            None => tokio::select! {
                biased;
                () = worker.stop.cancelled() => return,
                admission = task.ticket.admit() => admission,
            },
        };
        if admission == Admission::Park {
            let _ = worker.unfit.send(*task);
            return;
        }
    }
    let _queue_turn = match task.queue.as_ref().map(queues::Place::turns) {
        None => None,
        Some(turns) => tokio::select! {
            biased;
            () = worker.stop.cancelled() => return,
            turn = turns.acquire_owned() => turn.ok(),
        },
    };
    let turns = if task.is_suspect() { worker.limits.calls_max as u32 } else { 1 };
    let turn = match worker.turns.try_acquire_many(turns) {
        Ok(turn) => Ok(turn),
        Err(_) => tokio::select! {
            biased;
            () = worker.stop.cancelled() => return,
            turn = worker.turns.acquire_many(turns) => turn,
        },
    };
    let Ok(_turn) = turn else { return };
    // The wait may have been longer than the deadline.
    if !may_call(&task.saga.shape, &task.event(None)) {
        return uncalled(&worker, task);
    }
    if !worker.schema.fits() {
        return give_back(&worker, *task);
    }
    // Boxed, or every task would carry room for a statement and be copied with it.
    if task.is_suspect() && !Box::pin(mark_alone(&worker, &mut task)).await {
        return;
    }
    if !may_start(&worker, &task).await {
        return;
    }
    worker.held.start(task.worker, task.id);
    worker.metrics.in_flight.increment(1);
    fail::point("call:before");
    let called = worker.caller.call(&task).await;
    fail::point("call:after");
    worker.metrics.in_flight.decrement(1);
    let ended = match called {
        Called::Ended(ended) => {
            worker.metrics.called(task.now.op, ended.duration);
            task.ticket.ended(ended.reached, ended.status_code);
            ended
        }
        Called::Unbuildable(why) => {
            task.ticket.ended(Reached::Nobody, None);
            match task.now.unbuildable() {
                Some(outcome) => Ended::without_call(outcome, why),
                None => {
                    task.unbuildable = Some(why);
                    // Not started after all.
                    worker.held.advance(task.worker, task.id, task.epoch);
                    return uncalled(&worker, task);
                }
            }
        }
        Called::Denied(why) => return denied(&worker, *task, &why),
    };
    worker.metrics.attempt(task.now.op, ended.outcome);
    // The receiver lives until everything is settled.
    let _ = worker.finished.send(Finished { task, ended: Some(ended) });
}

/// Another worker may call: the task goes back as it was. No try was made, whatever came before.
fn denied(worker: &Worker, mut task: Task, why: &str) {
    worker.metrics.denied_calls.increment(1);
    if task.ticket.denied(why) {
        let (participant, gid) = (task.ticket.participant(), &task.saga.gid);
        let (step, op) = (task.step_name(), task.now.op.as_str());
        tracing::warn!(participant, gid, step, op, reason = why, "a call was denied");
    }
    // Not started after all.
    worker.held.advance(task.worker, task.id, task.epoch);
    give_back(worker, task);
}

/// The task met an interrupt or its deadline, or has a fault: what follows is planned without a
/// call.
fn uncalled(worker: &Worker, task: Box<Task>) {
    if !worker.stop.is_cancelled() {
        let _ = worker.finished.send(Finished { task, ended: None });
    }
}

/// Other workers know what to do with this task, or may.
fn give_back(worker: &Worker, task: Task) {
    if !worker.stop.is_cancelled() {
        let _ = worker.unfit.send(task);
    }
}

/// Past its own lease a worker starts no call. It waits for a heartbeat to come back, or for a new identity, under which
/// this task is another's.
async fn may_start(worker: &Worker, task: &Task) -> bool {
    loop {
        if worker.id() != task.worker || worker.stop.is_cancelled() {
            return false;
        }
        if worker.lease.holds() {
            return true;
        }
        tokio::select! {
            () = worker.stop.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}

/// Only a death from here on counts towards the limit that makes a saga stuck (RACES 20).
async fn mark_alone(worker: &Worker, task: &mut Task) -> bool {
    let statement = sqlx::query(query::RUN_ALONE).bind(task.worker).bind(task.id).bind(task.epoch);
    let moving = worker.gate.read().await;
    let rows = worker.db.run(Lane::Control, statement).await;
    match rows.as_ref().map(|rows| rows.first().map(|row| row.try_get::<i32, _>("epoch"))) {
        Ok(Some(Ok(epoch))) => {
            tracing::info!(
                gid = task.saga.gid,
                step = task.now.step + 1,
                lost = task.lost,
                "a suspect runs alone"
            );
            task.epoch = epoch;
            worker.held.advance(task.worker, task.id, epoch);
            true
        }
        _ => {
            if let Err(error) = &rows {
                worker.database_failed("run alone", error);
            }
            drop(moving);
            // Unknown to memory, the row is handed back by reconciling.
            worker.held.forget(task.worker, task.id);
            worker.doubt.notify_one();
            false
        }
    }
}
