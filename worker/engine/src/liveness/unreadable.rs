//! Rows that no worker can read: they hold a value that no INSERT takes, because somebody changed
//! them by hand. Such a row costs its own saga only, which becomes stuck and says why.

use std::collections::HashMap;
use std::time::Duration;

use pgsaga_sql::query::{self, UnreadableTask};
use pgsaga_sql::{FORMAT, SCHEMA_VERSION};
use sqlx::Row as _;

use crate::db::{Class, Lane};
use crate::liveness::release::{Returned, hand_back};
use crate::worker::Worker;

/// A task whose saga somebody else has locked comes back after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A task that has no open saga comes back after this long: nobody can decide about it.
const HOPELESS_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Tasks a lane that one look for unreachable ones brings.
const UNREACHABLE_MAX: i64 = 1_000;

/// A task that cannot be worked on.
#[derive(Debug)]
pub struct Unreadable {
    /// Id of the task's row.
    pub task: i64,
    /// Epoch of the row, which fences the write.
    pub epoch: i32,
    /// Its saga, or the id that stands for one.
    pub saga_id: i64,
    /// Its saga's gid, where there is one.
    pub gid: Option<String>,
    /// What was found, and what is allowed.
    pub why: String,
}

impl Unreadable {
    fn back_after(&self, delay: Duration) -> Returned {
        Returned { task: self.task, epoch: self.epoch, delay, participant: None }
    }
}

/// Makes the sagas of these tasks, which this worker has claimed, stuck. What must wait goes back.
pub async fn stick(worker: &Worker, id: i64, tasks: Vec<Unreadable>) {
    let mut left = Vec::new();
    let mut groups = vec![tasks];
    while let Some(mut group) = groups.pop() {
        if group.is_empty() {
            continue;
        }
        let again_after = match make_stuck(worker, Some(id), &group).await {
            Ok(others) => {
                group.retain(|unreadable| others.contains_key(&unreadable.task));
                let delay =
                    |task| if others.get(&task) == Some(&true) { HOPELESS_AGAIN_AFTER } else { AGAIN_AFTER };
                left.extend(group.iter().map(|unreadable| unreadable.back_after(delay(unreadable.task))));
                continue;
            }
            Err(error) => match worker.database_failed("make unreadable sagas stuck", &error) {
                // One row fails the whole group.
                Class::Data if group.len() > 1 => {
                    let half = group.split_off(group.len() / 2);
                    groups.extend([group, half]);
                    continue;
                }
                Class::Data => HOPELESS_AGAIN_AFTER,
                Class::Connection | Class::Conflict | Class::Other => AGAIN_AFTER,
            },
        };
        left.extend(group.iter().map(|unreadable| unreadable.back_after(again_after)));
    }
    if !left.is_empty() {
        hand_back(worker, id, &left).await;
    }
}

/// Makes the sagas of these tasks stuck, and says so. Returns the tasks whose saga is not, and
/// whether they have no open saga.
async fn make_stuck(
    worker: &Worker,
    claimed_by: Option<i64>,
    tasks: &[Unreadable],
) -> Result<HashMap<i64, bool>, sqlx::Error> {
    let rows = tasks.iter().map(|unreadable| UnreadableTask {
        task_id: unreadable.task,
        epoch: unreadable.epoch,
        saga_id: unreadable.saga_id,
        why: &unreadable.why,
    });
    let stick = query::Stick {
        worker_id: claimed_by,
        tasks: rows.collect(),
        server_started_at: worker.identity().server,
    };
    let mut others = HashMap::new();
    for row in worker.db.run(Lane::Control, stick.query()).await? {
        if !row.try_get::<bool, _>("stuck")? {
            others.insert(row.try_get("id")?, row.try_get("hopeless")?);
        }
    }
    let stuck = tasks.iter().filter(|unreadable| !others.contains_key(&unreadable.task));
    for Unreadable { task, gid, why, .. } in stuck {
        tracing::error!(gid, task, reason = why, "a row cannot be read: its saga needs a person");
    }
    worker.metrics.unreadable.increment((tasks.len() - others.len()) as u64);
    let mut hopeless = tasks.iter().filter(|unreadable| others.get(&unreadable.task) == Some(&true));
    if let Some(Unreadable { task, why, .. }) = hopeless.next() {
        let others = hopeless.count();
        tracing::error!(task, others, reason = why, "a task cannot be read and has no open saga");
    }
    Ok(others)
}

/// Finds tasks that no claim reaches, and makes their sagas stuck.
///
/// # Errors
/// What the database says.
pub async fn find_unreachable(worker: &Worker) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(query::UNREACHABLE).bind(UNREACHABLE_MAX).bind(FORMAT).bind(SCHEMA_VERSION);
    let mut tasks = Vec::new();
    for row in worker.db.run(Lane::Control, statement).await? {
        tasks.push(Unreadable {
            task: row.try_get("id")?,
            epoch: row.try_get("epoch")?,
            saga_id: row.try_get("saga_id")?,
            gid: row.try_get("gid")?,
            why: row.try_get("why")?,
        });
    }
    if !tasks.is_empty() {
        make_stuck(worker, None, &tasks).await?;
    }
    Ok(())
}
