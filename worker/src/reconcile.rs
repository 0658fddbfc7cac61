//! Compares what the database says this worker holds with what it knows, and hands back the rest (RACES 2): after any
//! statement whose result is unknown, and once a lease.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Row as _;

use crate::db::Lane;
use crate::hand_back::{Returned, hand_back};
use crate::worker::Worker;

/// Reconciles until everything is done.
pub async fn run(worker: Arc<Worker>) {
    loop {
        tokio::select! {
            () = worker.done.cancelled() => return,
            () = worker.doubt.notified() => {}
            () = tokio::time::sleep(worker.limits.lease) => {}
        }
        if let Err(error) = reconcile(&worker).await {
            worker.database_failed("reconcile", &error);
            tokio::select! {
                () = worker.done.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(250)) => worker.doubt.notify_one(),
            }
        }
    }
}

async fn reconcile(worker: &Worker) -> Result<(), sqlx::Error> {
    // Alone: no claim and no settle is between the database's answer and our memory.
    let _still = worker.gate.write().await;
    let id = worker.id();
    let mut unknown = Vec::new();
    for row in worker.db.run(Lane::Control, sqlx::query(query::HELD).bind(id)).await? {
        let task: i64 = row.try_get("id")?;
        if !worker.held.knows(task) {
            let epoch = row.try_get("epoch")?;
            unknown.push(Returned { task, epoch, delay: Duration::ZERO, participant: None });
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let back = hand_back(worker, id, &unknown).await;
    worker.metrics.reconciled.increment(back as u64);
    tracing::info!(tasks = back, "tasks that this worker held without knowing it are handed back");
    worker.wake.notify_one();
    Ok(())
}
