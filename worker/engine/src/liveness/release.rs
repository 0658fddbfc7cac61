//! Gives unstarted tasks back to the queue.

use std::time::Duration;

use pgsaga_sql::query::{self, ReleasedTask};

use crate::db::Lane;
use crate::worker::Worker;

/// A task to give back.
#[derive(Debug)]
pub struct Returned {
    /// The task.
    pub task: i64,
    /// Its fence.
    pub epoch: i32,
    /// When it is due again; its deadline comes first.
    pub delay: Duration,
    /// Whom it calls, where that is known.
    pub participant: Option<String>,
}

/// Gives tasks back. What fails stays claimed and comes back by reconciling or rescue. Returns how many went back.
pub async fn hand_back(worker: &Worker, id: i64, tasks: &[Returned]) -> usize {
    let released = tasks.iter().map(|returned| ReleasedTask {
        task_id: returned.task,
        epoch: returned.epoch,
        delay_us: returned.delay.as_micros() as i64,
        participant: returned.participant.as_deref(),
    });
    let release = query::Release { worker_id: id, tasks: released.collect() };
    let rows = worker.db.run(Lane::Control, release.query()).await;
    // Even when the result is unknown: nobody here works on them any more, and reconciling leaves alone what memory knows.
    for returned in tasks {
        worker.held.forget(id, returned.task);
    }
    match rows {
        Ok(rows) => rows.len(),
        Err(error) => {
            worker.database_failed("hand back", &error);
            worker.doubt.notify_one();
            0
        }
    }
}
