//! Compares what the database says this worker holds with what it knows, and hands back the rest (RACES 2): after any
//! statement whose result is unknown, and now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::db::Lane;
use crate::liveness::release::{Returned, hand_back};
use crate::liveness::unreadable::find_unreachable;
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;

/// The look costs the more the longer somebody keeps vacuum away: it takes at most one part in so many of the time.
const PART: u32 = 20;

/// Reconciles until everything is done.
pub async fn run(worker: Arc<Worker>, dead: mpsc::UnboundedSender<i64>) {
    let mut pause = worker.limits.lease;
    loop {
        worker.metrics.tick(Loop::Reconcile);
        tokio::select! {
            () = worker.done.cancelled() => return,
            () = worker.doubt.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let started = Instant::now();
        let reconciled = reconcile(&worker, &dead).await;
        if worker.is_first()
            && worker.schema.fits()
            && let Err(error) = find_unreachable(&worker).await
        {
            worker.database_failed("look for unreachable tasks", &error);
        }
        pause = worker.limits.lease.max(started.elapsed() * PART);
        if let Err(error) = reconciled {
            worker.database_failed("reconcile", &error);
            tokio::select! {
                () = worker.done.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(250)) => worker.doubt.notify_one(),
            }
        }
    }
}

async fn reconcile(worker: &Worker, dead: &mpsc::UnboundedSender<i64>) -> Result<(), sqlx::Error> {
    let id = worker.id();
    let mut unknown: Vec<i64> = Vec::new();
    let mut unregistered = BTreeSet::new();
    for row in worker.db.run(Lane::Control, sqlx::query(query::HELD).bind(id)).await? {
        if let Some(lane) = row.try_get::<Option<i32>, _>("lane")? {
            if let Some(lowest) = row.try_get("lowest")? {
                worker.marks.look_from(lane, lowest);
            }
            continue;
        }
        let (task, holder): (i64, i64) = (row.try_get("id")?, row.try_get("worker")?);
        if holder != id {
            unregistered.insert(holder);
        } else if !worker.held.knows(task) {
            unknown.push(task);
        }
    }
    // Whoever knows the schema rescues.
    for holder in unregistered.into_iter().filter(|_| worker.schema.fits()) {
        tracing::warn!(
            worker = holder,
            "tasks are claimed by a worker that is not registered: it counts as dead"
        );
        let _ = dead.send(holder);
    }
    if unknown.is_empty() {
        return Ok(());
    }
    // Once more and alone: no claim and no settle is between the database's answer and our memory.
    let _still = worker.gate.write().await;
    // Registered anew meanwhile, its memory says nothing of what the old id holds. Calls of that may have been made, so it is
    // for a rescue, which records the tries as unknown.
    if worker.id() != id {
        return Ok(());
    }
    let statement = sqlx::query(query::STILL_HELD).bind(id).bind(unknown);
    let mut forgotten = Vec::new();
    for row in worker.db.run(Lane::Control, statement).await? {
        let task = row.try_get("id")?;
        if !worker.held.knows(task) {
            let epoch = row.try_get("epoch")?;
            forgotten.push(Returned { task, epoch, delay: Duration::ZERO, participant: None });
        }
    }
    if forgotten.is_empty() {
        return Ok(());
    }
    let back = hand_back(worker, id, &forgotten).await;
    worker.metrics.reconciled.increment(back as u64);
    tracing::info!(tasks = back, "tasks that this worker held without knowing it are handed back");
    worker.wake.notify_one();
    Ok(())
}
