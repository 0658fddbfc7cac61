//! Gives unstarted tasks back to the queue.

use std::time::Duration;

use pgsaga_sql::query;

use crate::db::Lane;
use crate::worker::Worker;

/// Gives `(task, epoch)` pairs back, due after `delay`. What fails stays claimed and comes back by reconciling or rescue.
/// Returns how many went back.
pub async fn hand_back(worker: &Worker, id: i64, tasks: &[(i64, i32)], delay: Duration) -> usize {
    let (ids, epochs): (Vec<i64>, Vec<i32>) = tasks.iter().copied().unzip();
    let statement =
        sqlx::query(query::HAND_BACK).bind(id).bind(ids).bind(epochs).bind(delay.as_micros() as i64);
    match worker.db.run(Lane::Control, statement).await {
        Ok(rows) => {
            for (task, _) in tasks {
                worker.held.forget(*task);
            }
            rows.len()
        }
        Err(error) => {
            worker.database_failed("hand back", &error);
            worker.doubt.notify_one();
            0
        }
    }
}
