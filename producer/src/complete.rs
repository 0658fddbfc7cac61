//! Completions: how an op ended that nobody calls, or that a participant has accepted.

use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::fail;
use pgsaga_sql::query;
use serde::Serialize;
use sqlx::PgExecutor;

use crate::error::Error;
use crate::submit::Producer;

/// What is reported of an op: of a step that waits ([`Step::wait`](crate::Step::wait)), or of a
/// call that a participant has accepted (202 with `Saga-Wait-Seconds`).
#[derive(Debug, Clone)]
pub struct Completion {
    outcome: &'static str,
    answer: Option<String>,
    comment: Option<String>,
    op: Option<&'static str>,
}

impl Completion {
    /// The op took effect.
    pub fn success() -> Completion {
        Completion { outcome: "success", answer: None, comment: None, op: None }
    }

    /// The op took effect, with an answer for later steps and for the saga's result: up to 1 MiB as
    /// Postgres prints it, nested up to 64 deep. Only an action has an answer.
    ///
    /// # Errors
    /// Any error of serializing `answer` as JSON.
    pub fn answered<T: Serialize + ?Sized>(answer: &T) -> serde_json::Result<Completion> {
        Ok(Completion { answer: Some(serde_json::to_string(answer)?), ..Completion::success() })
    }

    /// Under this key nothing was done, and nothing ever will be. `reason` is 1 to 1,024 bytes for
    /// people. A failed action rolls its saga back; a failed compensation makes it stuck.
    pub fn failure(reason: impl Into<String>) -> Completion {
        Completion { outcome: "failure", comment: Some(reason.into()), ..Completion::success() }
    }

    /// The op is not finished: its wait begins anew, with the same length.
    pub fn ongoing() -> Completion {
        Completion { outcome: "ongoing", ..Completion::success() }
    }

    /// Adds words for people, up to 1,024 bytes.
    pub fn comment(self, comment: impl Into<String>) -> Completion {
        Completion { comment: Some(comment.into()), ..self }
    }

    /// Reports of the step's compensation instead of its action.
    pub fn of_compensation(self) -> Completion {
        Completion { op: Some("compensate"), ..self }
    }
}

impl Producer {
    /// Completes an op, as [`complete`] does.
    pub async fn complete<'e>(
        &self,
        executor: impl PgExecutor<'e>,
        gid: &str,
        step: &str,
        completion: &Completion,
    ) -> Result<SagaStatus, Error> {
        fail::before(query::ProducerComplete::SQL);
        let statement = query::ProducerComplete {
            gid,
            step,
            outcome: completion.outcome,
            answer: completion.answer.as_deref(),
            comment: completion.comment.as_deref(),
            op: completion.op,
        };
        let row = statement.query().persistent(self.persistent).fetch_one(executor).await;
        let status = row.and_then(|row| sqlx::Row::try_get(&row, 0));
        let status = status.map_err(|error| not_completed(gid, step, error))?;
        fail::after(query::ProducerComplete::SQL);
        Ok(status)
    }
}

/// Reports how an op of a step ended, and returns the saga's status. When `executor` is your
/// transaction, the report commits with your own rows. The first report of an op counts; the same
/// again changes nothing, so that a lost reply can be repeated.
///
/// A step that waits can be completed at any time, also before its turn. A called op can be
/// completed once it was called.
///
/// # Errors
/// [`Error::NothingToComplete`] where there is no such saga or step, [`Error::NotCompleted`] where
/// another report came first or the op is over, [`Error::Completion`] where the report is refused.
/// Under REPEATABLE READ, [`Error::Database`] with SQLSTATE 40001 asks for the transaction again.
/// As in Postgres, each error aborts the transaction that it happens in.
pub async fn complete<'e>(
    executor: impl PgExecutor<'e>,
    gid: &str,
    step: &str,
    completion: &Completion,
) -> Result<SagaStatus, Error> {
    Producer::default().complete(executor, gid, step, completion).await
}

fn not_completed(gid: &str, step: &str, error: sqlx::Error) -> Error {
    let Some(refusal) = error.as_database_error() else { return Error::Database(error) };
    let (gid, step, why) = (gid.to_owned(), step.to_owned(), refusal.message().to_owned());
    match refusal.code().as_deref() {
        Some("P0002") => Error::NothingToComplete { gid, step, why },
        Some("55000") => Error::NotCompleted { gid, step, why },
        Some("22023") => Error::Completion { gid, step, why },
        _ => Error::Database(error),
    }
}
