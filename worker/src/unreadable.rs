//! Rows that no worker can read: they hold a value that no INSERT takes, because somebody changed them by hand. Such a row
//! costs its own saga only, which becomes stuck and says why.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use pgsaga_sql::{FORMAT, query};
use sqlx::Row as _;

use crate::db::Lane;
use crate::hand_back::{Returned, hand_back};
use crate::worker::Worker;

/// A task whose saga somebody else has locked comes back after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A task that has no saga comes back after this long: nobody can decide about it.
const ORPHAN_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Tasks a lane that one look for unreachable ones brings.
const UNREACHABLE_MAX: i64 = 1_000;

/// A claimed task that cannot be worked on.
#[derive(Debug)]
pub struct Unreadable {
    /// The task.
    pub task: i64,
    /// Its fence.
    pub epoch: i32,
    /// Its saga, where that can be read.
    pub gid: Option<String>,
    /// What was found, and what is allowed.
    pub why: String,
}

/// Whether a column's value is one that the INSERT takes or a worker writes.
///
/// # Errors
/// What was found, and what is allowed.
pub fn within<T: PartialOrd + Display>(
    place: &str,
    found: T,
    allowed: RangeInclusive<T>,
) -> Result<T, String> {
    if allowed.contains(&found) {
        return Ok(found);
    }
    Err(format!("{place}: found {found}; allowed: from {} to {}", allowed.start(), allowed.end()))
}

/// Makes the sagas of these tasks, which this worker has claimed, stuck.
pub async fn stick(worker: &Worker, id: i64, tasks: &[Unreadable]) {
    if tasks.is_empty() {
        return;
    }
    let stuck = make_stuck(worker, Some(id), tasks).await.unwrap_or_else(|error| {
        worker.database_failed("make unreadable sagas stuck", &error);
        HashSet::new()
    });
    let left: Vec<Returned> = tasks
        .iter()
        .filter(|unreadable| !stuck.contains(&unreadable.task))
        .map(|Unreadable { task, epoch, gid, .. }| {
            let delay = if gid.is_some() { AGAIN_AFTER } else { ORPHAN_AGAIN_AFTER };
            Returned { task: *task, epoch: *epoch, delay, participant: None }
        })
        .collect();
    if !left.is_empty() {
        hand_back(worker, id, &left).await;
    }
}

/// Tells of tasks, and makes their sagas stuck. Returns the tasks whose saga is.
async fn make_stuck(
    worker: &Worker,
    claimed_by: Option<i64>,
    tasks: &[Unreadable],
) -> Result<HashSet<i64>, sqlx::Error> {
    for Unreadable { task, gid, why, .. } in tasks {
        tracing::error!(gid, task, reason = why, "a row cannot be read: its saga needs a person");
    }
    worker.metrics.unreadable.increment(tasks.len() as u64);
    let statement = sqlx::query(query::STICK)
        .bind(claimed_by)
        .bind(tasks.iter().map(|unreadable| unreadable.task).collect::<Vec<_>>())
        .bind(tasks.iter().map(|unreadable| unreadable.epoch).collect::<Vec<_>>())
        .bind(tasks.iter().map(|unreadable| unreadable.why.as_str()).collect::<Vec<_>>());
    let rows = worker.db.run(Lane::Control, statement).await?;
    rows.iter().map(|row| row.try_get("id")).collect()
}

/// Finds tasks that no claim reaches, and makes their sagas stuck.
///
/// # Errors
/// What the database says.
pub async fn find_unreachable(worker: &Worker) -> Result<(), sqlx::Error> {
    // A newer release writes newer formats.
    let format = (!worker.schema.is_behind()).then_some(FORMAT);
    let statement = sqlx::query(query::UNREACHABLE).bind(UNREACHABLE_MAX).bind(format);
    let mut tasks = Vec::new();
    for row in worker.db.run(Lane::Control, statement).await? {
        tasks.push(Unreadable {
            task: row.try_get("id")?,
            epoch: row.try_get("epoch")?,
            gid: row.try_get("gid")?,
            why: row.try_get("why")?,
        });
    }
    if !tasks.is_empty() {
        make_stuck(worker, None, &tasks).await?;
    }
    Ok(())
}
