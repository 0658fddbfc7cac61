//! Settles the success of a transactional handler in the handler's transaction. What the handler
//! wrote and the record of its attempt commit together, or neither does (docs/races.md, R31).

use std::time::Duration;

use pgsaga_plan::Outcome;

use super::batch::Batch;
use super::session::Session;
use super::{LOCKED_PAUSE, Settler, parallel, sequential};
use crate::db::{OpenTransaction, is_conflict};
use crate::execute::call::{CallResult, clean};
use crate::execute::finished::Finished;
use crate::execute::handler::{CONFLICT_PAUSE, ENDED_BY_HANDLER};
use pgsaga_sql::describe;

/// How often a settle is tried while others have the saga locked. The handler's own locks are held
/// meanwhile.
const TRIES: usize = 4;

/// Why an attempt has no effect, or an unknown one.
struct Failure {
    outcome: Outcome,
    why: String,
    retry_after: Option<Duration>,
}

impl Failure {
    /// Nothing of the attempt took effect.
    fn rolled_back(why: &str) -> Failure {
        let why = format!("the transaction was rolled back: {why}");
        Failure { outcome: Outcome::Unsent, why, retry_after: None }
    }

    /// Nothing of the attempt took effect, and it can be repeated at once.
    fn conflict(why: &str) -> Failure {
        let (outcome, retry_after) = (Outcome::Ongoing, Some(CONFLICT_PAUSE));
        Failure { outcome, retry_after, ..Failure::rolled_back(why) }
    }

    fn of(doing: &str, error: &sqlx::Error) -> Failure {
        let why = format!("{doing}: {}", describe(error));
        if is_conflict(error) {
            return Failure::conflict(&why);
        }
        // Where the reply to COMMIT was lost, this holds only if the transaction was rolled back.
        // If it has committed, the settle of this outcome finds nothing (docs/races.md, R31).
        Failure::rolled_back(&why)
    }
}

/// What became of one try.
enum Tried {
    /// Committed, or another worker has the task.
    Done,
    /// Somebody has the saga locked, or has changed it.
    Again(Finished, OpenTransaction),
    /// The transaction cannot commit, or its end is unknown.
    Failed(Finished, Failure),
}

impl Batch {
    fn failed(mut self, failure: Failure) -> Tried {
        self.finished.pop().map_or(Tried::Done, |finished| Tried::Failed(finished, failure))
    }
}

impl Settler {
    /// Settles an attempt and commits its transaction. What cannot commit is rolled back, and
    /// settled as an attempt without effect.
    pub(super) async fn settle_in_transaction(self, finished: Finished, transaction: OpenTransaction) {
        let Some((mut finished, failure)) = self.commit(finished, transaction).await else { return };
        let Failure { outcome, why, retry_after } = failure;
        self.metrics.attempts.count(finished.task.now.op, outcome);
        finished.result = finished.result.map(|result| CallResult {
            outcome,
            message: Some(clean(&why)),
            retry_after,
            answer: None,
            ..result
        });
        let _ = self.executor.finished.send(finished);
    }

    /// Tries until the attempt is settled and committed, or cannot be.
    async fn commit(
        &self,
        mut finished: Finished,
        mut transaction: OpenTransaction,
    ) -> Option<(Finished, Failure)> {
        match transaction.before_settle().await {
            Ok(true) => {}
            Ok(false) => {
                let (outcome, why) = (Outcome::Unknown, ENDED_BY_HANDLER.to_owned());
                return Some((finished, Failure { outcome, why, retry_after: None }));
            }
            Err(error) => {
                self.db.count(&error);
                transaction.roll_back().await;
                return Some((finished, Failure::of("before its record", &error)));
            }
        }
        let known = (finished.task.interrupt, finished.completion());
        let mut tries = 1;
        loop {
            (finished, transaction) = match self.try_settle(finished, transaction).await {
                Tried::Done => return None,
                Tried::Failed(finished, failure) => return Some((finished, failure)),
                Tried::Again(finished, transaction) => (finished, transaction),
            };
            let is_known = (finished.task.interrupt, finished.completion()) == known;
            // control: transaction-waits
            if is_known && tries < TRIES {
                tries += 1;
                tokio::time::sleep(LOCKED_PAUSE).await;
                continue;
            }
            transaction.roll_back().await;
            let failure = if is_known {
                Failure::conflict("the saga is locked")
            } else {
                // Somebody has decided about the op, or has reported its end.
                Failure::rolled_back("the saga was interrupted")
            };
            return Some((finished, failure));
        }
    }

    /// Plans, settles and commits. Memory and database move together, so the gate is held.
    async fn try_settle(&self, finished: Finished, mut transaction: OpenTransaction) -> Tried {
        let batch = match self.plan_one(finished).await {
            Ok(batch) => batch,
            Err(Some(unread)) => return Tried::Again(unread, transaction),
            Err(None) => return Tried::Done,
        };
        let _moving = self.membership.gate.read().await;
        let identity = self.membership.identity();
        if batch.worker() != identity.id {
            self.metrics.settled.gone.increment(1);
            return Tried::Done;
        }
        let group = std::slice::from_ref(&batch);
        let settled = match self.send(identity, group, &mut Session::Handler(&mut transaction)).await {
            Ok(settled) => settled,
            Err(error) => {
                self.db.failed("settle in the transaction of a handler", &error);
                transaction.roll_back().await;
                return batch.failed(Failure::of("at its record", &error));
            }
        };
        // control: transaction-settled
        if !settled.has(&batch) {
            return match self.apply(vec![batch], settled).pop() {
                Some(again) => Tried::Again(again, transaction),
                None => {
                    transaction.roll_back().await;
                    Tried::Done
                }
            };
        }
        if let Err(error) = transaction.commit().await {
            self.db.failed("commit the transaction of a handler", &error);
            return batch.failed(Failure::of("at COMMIT", &error));
        }
        for finished in &batch.finished {
            self.metrics.attempts.count(finished.task.now.op, Outcome::Success);
        }
        self.apply(vec![batch], settled);
        Tried::Done
    }

    /// Plans one attempt. The task comes back if its saga could not be read, unless it is gone.
    async fn plan_one(&self, finished: Finished) -> Result<Batch, Option<Finished>> {
        if !finished.task.saga.graph.keeps_progress() {
            return Ok(sequential::plan(self, finished));
        }
        let (mut batches, mut unread) = parallel::plan(self, vec![finished]).await;
        batches.pop().ok_or_else(|| unread.pop())
    }
}
