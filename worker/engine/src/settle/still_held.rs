//! What became of tasks that a settle left out: somebody has them locked, marked or taken.

use std::collections::HashMap;

use pgsaga_sql::query;
use sqlx::Row as _;

use super::Finished;
use crate::db::Lane;
use crate::task::Task;
use crate::worker::Worker;
use pgsaga_plan::Interrupt;

/// What the database says of tasks that a settle left out.
#[derive(Default)]
pub(super) struct StillHeld(HashMap<i64, StillThere>);

/// A row that this worker holds.
struct StillThere {
    epoch: i32,
    interrupt: Option<Interrupt>,
    /// Position from 1, op and attempt.
    at: (i16, String, i32),
}

impl StillThere {
    /// The row as memory has it.
    fn known(task: &Task) -> StillThere {
        let at = ((task.now.step + 1) as i16, task.now.op.as_str().to_owned(), task.now.attempt as i32);
        StillThere { epoch: task.epoch, interrupt: task.interrupt, at }
    }
}

impl StillHeld {
    /// Looks at `missing`, which are as they were in memory. What cannot be looked at counts as
    /// held: an outcome that is dropped would be a try without a record.
    pub(super) async fn look(worker: &Worker, missing: &[&Finished]) -> StillHeld {
        if missing.is_empty() {
            return StillHeld::default();
        }
        let ids: Vec<i64> = missing.iter().map(|finished| finished.task.id).collect();
        let statement = sqlx::query(query::STILL_HELD).bind(worker.id()).bind(ids);
        let read = async {
            let mut held = HashMap::new();
            for row in worker.db.run(Lane::Work, statement).await? {
                let interrupt: Option<&str> = row.try_get("interrupt")?;
                let there = StillThere {
                    epoch: row.try_get("epoch")?,
                    interrupt: interrupt.and_then(Interrupt::parse),
                    at: (row.try_get("step")?, row.try_get("op")?, row.try_get("attempt")?),
                };
                held.insert(row.try_get("id")?, there);
            }
            Ok::<_, sqlx::Error>(StillHeld(held))
        };
        read.await.unwrap_or_else(|error| {
            worker.database_failed("look at unsettled tasks", &error);
            let known = |finished: &&Finished| (finished.task.id, StillThere::known(&finished.task));
            StillHeld(missing.iter().map(known).collect())
        })
    }

    /// What becomes of a task that was left out: again, with the interrupt that it met meanwhile;
    /// or forgotten.
    pub(super) fn again(&self, worker: &Worker, mut finished: Finished) -> Option<Finished> {
        let task = &mut finished.task;
        if let Some(there) = self.0.get(&task.id) {
            let is_same_try = there.at == StillThere::known(task).at;
            if there.epoch == task.epoch || is_same_try {
                if there.epoch != task.epoch {
                    // No statement of ours leaves a try where it is and raises its epoch: somebody
                    // changed the row by hand. Without its outcome the history would lack a call
                    // that was made.
                    tracing::warn!(
                        gid = task.saga.gid,
                        step = task.step_name(),
                        found = there.epoch,
                        known = task.epoch,
                        "a row's epoch was changed by hand during a call: its outcome is settled all the same"
                    );
                    task.epoch = there.epoch;
                    worker.held.take_over(task.worker, task.id, there.epoch);
                }
                worker.metrics.settled[2].increment(1);
                task.interrupt = there.interrupt;
                return Some(finished);
            }
        }
        worker.metrics.settled[1].increment(1);
        tracing::info!(
            gid = task.saga.gid,
            step = task.step_name(),
            op = task.now.op.as_str(),
            attempt = task.now.attempt,
            "a late answer changed nothing: the task is another's"
        );
        worker.held.forget(task.worker, task.id);
        // If it was our own settle whose reply was lost, the row may be ours without our knowing
        // it.
        worker.doubt.notify_one();
        None
    }
}
