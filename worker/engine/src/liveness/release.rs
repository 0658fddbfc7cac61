//! Returns unstarted tasks to the queue.

use std::time::Duration;

use pgsaga_sql::query::{self, ReleasedTask};

use crate::db::{Db, PoolKind};
use crate::liveness::membership::Membership;
use crate::wake::others::Others;
use crate::wake::wakeups::Wakeups;

/// A task that is returned to the queue.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) task: i64,
    pub(crate) epoch: i32,
    /// The wait until the task is due again. Its deadline comes first.
    pub(crate) delay: Duration,
    /// The participant that the task calls, where it is known.
    pub(crate) participant: Option<String>,
}

/// Gives tasks back that the worker `id` holds. Tasks that cannot be given back stay claimed until
/// reconciling or a rescue finds them. Returns the number of tasks given back.
pub(crate) async fn release(
    db: &Db,
    membership: &Membership,
    wakeups: &Wakeups,
    id: i64,
    tasks: &[Release],
) -> usize {
    let rows = tasks.iter().map(|release| ReleasedTask {
        task_id: release.task,
        epoch: release.epoch,
        delay_us: release.delay.as_micros() as i64,
        participant: release.participant.as_deref(),
    });
    let statement = query::Release { worker_id: id, tasks: rows.collect() };
    let released = db.run(PoolKind::Control, statement.query()).await;
    // Also when the result is unknown: nobody here works on these tasks any more, and reconciling
    // leaves alone what memory knows.
    for release in tasks {
        membership.in_flight.forget(id, release.task);
    }
    match released {
        Ok(rows) => {
            let mut others = Others::default();
            let due = tasks.iter().filter(|release| release.delay.is_zero());
            due.for_each(|release| others.add(release.participant.as_deref().unwrap_or_default()));
            others.wake(db).await;
            rows.len()
        }
        Err(error) => {
            db.failed("release", &error);
            wakeups.reconcile.notify_one();
            0
        }
    }
}
