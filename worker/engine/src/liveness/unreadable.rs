//! Rows that no worker can read because someone edited them by hand: a value is outside the range
//! of the INSERT. Only the row's own saga is affected. It becomes stuck, with the reason.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query::{self, UnreadableTask};
use pgsaga_sql::{FORMAT, SCHEMA_VERSION};
use sqlx::Row as _;

use crate::db::{Class, Db, PoolKind};
use crate::liveness::membership::Membership;
use crate::liveness::release::{Release, release};
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;

/// Delay of a task whose saga is locked by another transaction.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Delay of a task without an open saga, which no decision can reach.
const HOPELESS_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Upper bound on the unreachable tasks found per lane and query.
const UNREACHABLE_MAX: i64 = 1_000;

/// A task whose row cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// Id of the task's row.
    pub(crate) task: i64,
    /// Epoch of the row, which fences the write.
    pub(crate) epoch: i32,
    /// Id of its saga, or the value in place of the id.
    pub(crate) saga_id: i64,
    /// Gid of the saga, if the saga exists.
    pub(crate) gid: Option<String>,
    /// The value found and the values allowed.
    pub(crate) why: String,
}

impl Unreadable {
    fn back_after(&self, delay: Duration) -> Release {
        Release { task: self.task, epoch: self.epoch, delay, participant: None }
    }
}

/// Makes sagas stuck whose rows no worker can read.
#[derive(Clone)]
pub(crate) struct UnreadableRows {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) wakeups: Arc<Wakeups>,
}

impl UnreadableRows {
    /// Makes the sagas of these claimed tasks stuck. Releases the tasks whose saga cannot be
    /// changed now.
    pub(crate) async fn stick(&self, id: i64, tasks: Vec<Unreadable>) {
        let mut left = Vec::new();
        let mut groups = vec![tasks];
        while let Some(mut group) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            let again_after = match self.make_stuck(Some(id), &group).await {
                Ok(others) => {
                    group.retain(|unreadable| others.contains_key(&unreadable.task));
                    let delay = |task| {
                        if others.get(&task) == Some(&true) { HOPELESS_AGAIN_AFTER } else { AGAIN_AFTER }
                    };
                    left.extend(group.iter().map(|unreadable| unreadable.back_after(delay(unreadable.task))));
                    continue;
                }
                Err(error) => match self.db.failed("make unreadable sagas stuck", &error) {
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
            release(&self.db, &self.membership, &self.wakeups, id, &left).await;
        }
    }

    /// Makes the sagas of these tasks stuck, and logs each. Returns the other tasks, with whether
    /// they have no open saga.
    async fn make_stuck(
        &self,
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
            server_started_at: self.membership.identity().server,
        };
        let mut others = HashMap::new();
        for row in self.db.run(PoolKind::Control, stick.query()).await? {
            if !row.try_get::<bool, _>("stuck")? {
                others.insert(row.try_get("id")?, row.try_get("hopeless")?);
            }
        }
        let stuck = tasks.iter().filter(|unreadable| !others.contains_key(&unreadable.task));
        for Unreadable { task, gid, why, .. } in stuck {
            tracing::error!(gid, task, reason = why, "a row cannot be read: its saga needs a person");
        }
        self.metrics.unreadable.increment((tasks.len() - others.len()) as u64);
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
    /// Any error of the database.
    pub(crate) async fn find_unreachable(&self) -> Result<(), sqlx::Error> {
        let statement =
            sqlx::query(query::UNREACHABLE).bind(UNREACHABLE_MAX).bind(FORMAT).bind(SCHEMA_VERSION);
        let mut tasks = Vec::new();
        for row in self.db.run(PoolKind::Control, statement).await? {
            tasks.push(Unreadable {
                task: row.try_get("id")?,
                epoch: row.try_get("epoch")?,
                saga_id: row.try_get("saga_id")?,
                gid: row.try_get("gid")?,
                why: row.try_get("why")?,
            });
        }
        if !tasks.is_empty() {
            self.make_stuck(None, &tasks).await?;
        }
        Ok(())
    }
}
