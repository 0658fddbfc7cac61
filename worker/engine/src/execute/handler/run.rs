//! Runs a handler as an attempt of an op.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgsaga_plan::Outcome;
use pgsaga_sql::contract::WAIT;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::call::About;
use super::error::{HandlerError, Kind};
use super::participant::{Handler, Participant, Returned, Running};
use super::poll::Watched;
use crate::db::{Bounds, Db, Lent, OpenTransaction, describe};
use crate::error::causes;
use crate::execute::call::{Call, CallResult, Called, NotSent, clean, json};
use crate::flow::participants::Reach;
use crate::liveness::handlers::{RunningHandlers, Whose};
use crate::telemetry::log_limit::{Line, LogLimit};

/// The message of an attempt whose handler has ended its transaction.
pub(crate) const ENDED_BY_HANDLER: &str =
    "the handler has ended its transaction itself, so nobody knows what of it took effect";
/// The wait before the next attempt after a conflict in the database.
pub(crate) const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// Calls the handlers of this process.
#[derive(Debug)]
pub(crate) struct HandlerExecutor {
    db: Db,
    /// The worker's lease.
    lease: Duration,
    /// The handlers that run now.
    pub(crate) running: Arc<RunningHandlers>,
    /// Bounds the log while the database gives handlers no transaction.
    not_begun: LogLimit,
}

impl HandlerExecutor {
    pub(crate) fn new(db: Db, lease: Duration) -> HandlerExecutor {
        HandlerExecutor { db, lease, running: Arc::default(), not_begun: LogLimit::default() }
    }

    /// Calls the participant's handler of the call's path. After `request_timeout` or at the saga's
    /// deadline the handler is asked to end. The attempt ends when the handler has returned, so
    /// that no second attempt of the op runs beside it.
    pub(crate) async fn call(&self, call: &Call<'_>, path: &str, participant: &Participant) -> Called {
        let Some(handler) = participant.handler(call.op(), path) else {
            let (op, name) = (call.op().as_str(), &participant.name);
            let why = format!(
                "not called: the participant {name:?} of this worker has no {op} {path:?}; it has: {}",
                participant.paths(call.op())
            );
            // Another worker may run a newer program, which has it.
            // control: no-handler-is-unsent
            return Ok(call.ended(Outcome::Unsent, Reach::Ran, Some(clean(&why))));
        };
        match handler {
            Handler::Plain(handler) => {
                let returned = self.run(call, path, None, |about| handler(about, &call.body)).await;
                Ok(match returned.ok_or(NotSent::Dropped)? {
                    Ok(answer) => succeeded(call, &answer),
                    Err(error) => failed(call, error),
                })
            }
            Handler::Transactional(handler) => {
                let (transaction, lent) = self.begin(call).await?.lend().await;
                let patience = Some(self.db.timeout());
                let begin = |about| handler(about, &call.body, transaction);
                let returned = self.run(call, path, patience, begin).await;
                Ok(ended(call, returned.ok_or(NotSent::Dropped)?, lent).await)
            }
        }
    }

    /// Begins the transaction of a handler. A database that does not answer is no attempt.
    async fn begin(&self, call: &Call<'_>) -> Result<OpenTransaction, NotSent> {
        let (task, statement_max) = (call.task, call.timeout.max(Duration::from_millis(1)));
        let bounds =
            Bounds { statement_max, idle_max: call.timeout + self.lease, settle_idle_max: self.lease };
        let begun = self.db.begin(format!("{}:{}:{}", task.worker, task.id, task.epoch), bounds).await;
        begun.map_err(|error| {
            self.db.count(&error);
            if let Some(Line { left_out }) = self.not_begun.next() {
                let gid = &task.saga.gid;
                tracing::warn!(gid, error = %describe(&error), left_out, "a handler has no transaction");
            }
            NotSent::Busy(None)
        })
    }

    /// Runs a handler to its end. `None` if the worker drops it. With `patience` it is dropped that
    /// long after it was asked to end: a transaction holds locks, and may wait for a server that is
    /// gone.
    async fn run(
        &self,
        call: &Call<'_>,
        path: &str,
        patience: Option<Duration>,
        begin: impl FnOnce(About) -> Running,
    ) -> Option<Returned> {
        let task = call.task;
        let listed = self.running.add(Whose {
            worker: task.worker,
            task: task.id,
            target: format!("{}{path}", task.permit.participant()),
            gid: task.saga.gid.clone(),
        });
        let about = About {
            saga: task.saga.clone(),
            step: task.now.step,
            op: call.op(),
            fresh_keys: task.fresh_keys.clone(),
            attempt: task.now.attempt,
            deadline: task.deadline,
            headers: call.headers.clone(),
            running: listed.handler.clone(),
        };
        let handler = Watched { handler: begin(about), running: listed.handler.clone() };
        let mut handler = std::pin::pin!(handler);
        let dropped = &listed.handler.dropped;
        // A transaction may have been waited for.
        let ends = Instant::now() + call.timeout;
        let ends = task.deadline.map_or(ends, |deadline| ends.min(deadline.into()));
        let in_time = tokio::select! {
            biased;
            returned = &mut handler => Some(returned),
            () = dropped.cancelled() => return None,
            () = sleep_until(ends) => None,
        };
        match in_time {
            Some(returned) => Some(returned),
            None => {
                listed.handler.cancelled.cancel();
                let ended = finished(handler, dropped);
                match patience {
                    // control: handler-awaited
                    None => ended.await,
                    Some(patience) => timeout(patience, ended)
                        .await
                        .unwrap_or_else(|_| Some(Err("it was asked to end, and did not".into()))),
                }
            }
        }
    }
}

/// What a handler returns. `None` if it is dropped first.
async fn finished(handler: Pin<&mut Watched>, dropped: &CancellationToken) -> Option<Returned> {
    tokio::select! {
        biased;
        returned = handler => Some(returned),
        () = dropped.cancelled() => None,
    }
}

fn succeeded(call: &Call<'_>, answer: &[u8]) -> CallResult {
    // A handler that returns `()` has no answer.
    let is_wanted = call.wants_answer && answer != b"null";
    let kept = is_wanted.then(|| json(answer, call.answer_bytes_max)).flatten();
    if is_wanted && kept.is_none() {
        tracing::warn!(
            gid = call.task.saga.gid,
            step = call.step.name,
            bytes = answer.len(),
            bytes_max = call.answer_bytes_max,
            "a handler's answer is too large, or nested too deep, to be kept"
        );
    }
    CallResult { answer: kept, ..call.ended(Outcome::Success, Reach::Ran, None) }
}

fn failed(call: &Call<'_>, HandlerError(kind): HandlerError) -> CallResult {
    let ended = |outcome, message: &str| call.ended(outcome, Reach::Ran, Some(clean(message)));
    match kind {
        Kind::Refused(reason) => ended(Outcome::Failure, &reason),
        Kind::Ongoing(after) => {
            CallResult { retry_after: Some(after), ..ended(Outcome::Ongoing, "not finished") }
        }
        Kind::Accepted(wait) => {
            let longest = Duration::from_secs(WAIT.max);
            let reports_within = Some(wait.clamp(Duration::from_millis(1), longest));
            CallResult { reports_within, ..ended(Outcome::Ongoing, "accepted") }
        }
        // control: handler-error-is-unknown
        Kind::Failed(error) => ended(Outcome::Unknown, &chain(&*error)),
    }
}

/// An error with its causes.
fn chain(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let causes = causes(error).map(ToString::to_string);
    std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>().join(": ")
}

/// The result of a transactional handler. Only a success keeps the transaction open; all else is
/// rolled back first, and has no effect.
async fn ended(call: &Call<'_>, returned: Returned, lent: Lent) -> CallResult {
    let unknown = |why: &str| call.ended(Outcome::Unknown, Reach::Ran, Some(why.to_owned()));
    let Some(transaction) = lent.take_back() else {
        return unknown("the handler has kept its transaction, which must end with it");
    };
    let error = match returned {
        Ok(answer) => {
            let transaction = Some(Box::new(transaction));
            return CallResult { transaction, ..succeeded(call, &answer) };
        }
        Err(error) => error,
    };
    // control: transaction-rolled-back
    if !transaction.roll_back().await {
        return unknown(ENDED_BY_HANDLER);
    }
    let is_conflict = error.0.is_conflict();
    let result = failed(call, error);
    match result.outcome {
        Outcome::Unknown if is_conflict => {
            CallResult { outcome: Outcome::Ongoing, retry_after: Some(CONFLICT_PAUSE), ..result }
        }
        // What was rolled back has no effect.
        Outcome::Unknown => CallResult { outcome: Outcome::Unsent, ..result },
        _ => result,
    }
}
