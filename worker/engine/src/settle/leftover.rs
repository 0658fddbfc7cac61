//! State of tasks that a settle left out: locked, interrupted, completed, or taken by another
//! worker.

use std::collections::HashMap;

use pgsaga_sql::query;
use sqlx::Row as _;

use crate::db::PoolKind;
use crate::execute::finished::Finished;
use crate::execute::task::Task;
use crate::execute::task::report::Report;
use crate::settle::Settler;
use pgsaga_plan::{Completion, Interrupt, Word as _};

/// Rows of the left-out tasks that this worker still holds.
#[derive(Default)]
pub(super) struct Leftover(HashMap<i64, HeldRow>);

struct HeldRow {
    epoch: i32,
    interrupt: Option<Interrupt>,
    report: Option<Box<Report>>,
    /// Position from 1, op and attempt.
    at: (i16, String, i32),
}

impl HeldRow {
    /// Returns the row as memory knows it.
    fn known(task: &Task) -> HeldRow {
        let at = ((task.now.step + 1) as i16, task.now.op.as_str().to_owned(), task.now.attempt as i32);
        HeldRow { epoch: task.epoch, interrupt: task.interrupt, report: task.report.clone(), at }
    }
}

impl Leftover {
    /// Reads the rows of `missing`. If the query fails, all tasks count as held. A dropped outcome
    /// would be an attempt without a record.
    pub(super) async fn look(settler: &Settler, missing: &[&Finished]) -> Leftover {
        if missing.is_empty() {
            return Leftover::default();
        }
        let ids: Vec<i64> = missing.iter().map(|finished| finished.task.id).collect();
        let statement = sqlx::query(query::STILL_HELD).bind(settler.membership.id()).bind(ids);
        let read = async {
            let (mut held, mut marked) = (HashMap::new(), HashMap::new());
            for row in settler.db.run(PoolKind::Work, statement).await? {
                let interrupt: Option<&str> = row.try_get("interrupt")?;
                let completion: Option<&str> = row.try_get("completion")?;
                if let Some(completion) = completion.and_then(Completion::of) {
                    marked.insert(row.try_get("id")?, completion);
                }
                let there = HeldRow {
                    epoch: row.try_get("epoch")?,
                    interrupt: interrupt.and_then(Interrupt::of),
                    report: None,
                    at: (row.try_get("step")?, row.try_get("op")?, row.try_get("attempt")?),
                };
                held.insert(row.try_get("id")?, there);
            }
            for (id, report) in Report::read_all(&settler.db, &marked).await? {
                if let Some(there) = held.get_mut(&id) {
                    there.report = Some(Box::new(report));
                }
            }
            Ok::<_, sqlx::Error>(Leftover(held))
        };
        read.await.unwrap_or_else(|error| {
            settler.db.failed("look at unsettled tasks", &error);
            let known = |finished: &&Finished| (finished.task.id, HeldRow::known(&finished.task));
            Leftover(missing.iter().map(known).collect())
        })
    }

    /// Returns a task that must be settled again, with its new interrupt. Forgets a task that is no
    /// longer held, and returns `None`.
    pub(super) fn again(&self, settler: &Settler, mut finished: Finished) -> Option<Finished> {
        let task = &mut finished.task;
        if let Some(there) = self.0.get(&task.id) {
            let is_same_try = there.at == HeldRow::known(task).at;
            if there.epoch == task.epoch || is_same_try {
                if there.epoch != task.epoch {
                    // No statement of pgsaga raises the epoch without changing the attempt, so
                    // someone edited the row. The outcome is settled anyway, because the history
                    // would otherwise lack a call.
                    tracing::warn!(
                        gid = task.saga.gid,
                        step = task.step_name(),
                        found = there.epoch,
                        known = task.epoch,
                        "a row's epoch was changed by hand during a call: its outcome is settled all the same"
                    );
                    task.epoch = there.epoch;
                    settler.membership.in_flight.take_over(task.worker, task.id, there.epoch);
                }
                settler.metrics.settled.locked.increment(1);
                task.interrupt = there.interrupt;
                task.report.clone_from(&there.report);
                return Some(finished);
            }
        }
        settler.metrics.settled.gone.increment(1);
        tracing::info!(
            gid = task.saga.gid,
            step = task.step_name(),
            op = task.now.op.as_str(),
            attempt = task.now.attempt,
            "a late outcome changed nothing: another worker has the task"
        );
        settler.membership.in_flight.forget(task.worker, task.id);
        // If the reply to our own settle was lost, this worker may hold the row without knowing it.
        settler.wakeups.reconcile.notify_one();
        None
    }
}
