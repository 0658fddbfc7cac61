//! Reports how an op ended that nobody calls, or that a participant has accepted.

use clap::{Args, ValueEnum};
use pgsaga_plan::{Op, Outcome};
use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::{fail, query};
use serde_json::value::RawValue;
use sqlx::Row as _;

use super::{Decision, refusal};
use crate::error::Error;
use crate::operate::{Database, connect};
use crate::output::out;

/// Report how a step ended that waits, or that its participant has accepted
///
/// The first report of an op counts. The same again changes nothing, also after the saga's end.
/// Another one, and one for an op that is over, is refused.
#[derive(Debug, Args)]
pub(crate) struct Complete {
    /// Gid of the saga that the step belongs to
    gid: String,
    /// Name of the step
    step: String,
    /// How it ended; `ongoing` makes its wait begin anew
    #[arg(value_enum)]
    outcome: Reported,
    /// JSON for later steps and for the saga's result; only with the success of an action
    #[arg(long, value_name = "JSON", value_parser = json)]
    answer: Option<String>,
    /// Why this is reported; recorded in the history, and required with failure
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// What of the step has ended
    #[arg(long, value_enum, default_value = "action")]
    op: Reportable,
    #[command(flatten)]
    pub(super) database: Database,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reported {
    /// It took effect
    Success,
    /// Nothing was done, and nothing ever will be
    Failure,
    /// It is not finished
    Ongoing,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reportable {
    Action,
    Compensate,
}

fn json(text: &str) -> Result<String, String> {
    let parsed = serde_json::from_str::<&RawValue>(text);
    parsed.map(|json| json.get().to_owned()).map_err(|error| format!("{error}; allowed: JSON"))
}

impl Complete {
    pub(super) async fn run(&self) -> Result<(), Error> {
        let pool = connect(&self.database.database_url).await?;
        let statement = query::ProducerComplete {
            gid: &self.gid,
            step: &self.step,
            outcome: match self.outcome {
                Reported::Success => Outcome::Success.as_str(),
                Reported::Failure => Outcome::Failure.as_str(),
                Reported::Ongoing => Outcome::Ongoing.as_str(),
            },
            answer: self.answer.as_deref(),
            comment: self.comment.as_deref(),
            op: Some(match self.op {
                Reportable::Action => Op::Action.as_str(),
                Reportable::Compensate => Op::Compensate.as_str(),
            }),
        };
        fail::before(query::ProducerComplete::SQL);
        let row = statement.query().fetch_one(&pool).await;
        let status: SagaStatus =
            row.and_then(|row| row.try_get(0)).map_err(|error| match error.as_database_error() {
                None => Error::Unanswered { error, advice: Decision::CompleteSuccess.facts().repeating },
                Some(_) => refusal(error),
            })?;
        fail::after(query::ProducerComplete::SQL);
        pool.close().await;
        out(format_args!("{}: {}", self.gid, status.as_str()))
    }
}
