//! What people decide about sagas that cannot, or must not, go on by themselves. The command line,
//! the web page and decisions in bulk are made of the table in this file.

pub(crate) mod allowed;
mod bulk;
mod command;
pub(crate) mod consequences;

use std::fmt;

use pgsaga_plan::SagaStatus;
use pgsaga_sql::{fail, query};
use pgsaga_worker::db::sqlstate;
use sqlx::PgExecutor;

use crate::error::Error;
use crate::operate::read::row;
use crate::operate::read::words::{optional, word};
pub(crate) use command::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Retry,
    RetryFresh,
    Skip,
    ResolveSucceeded,
    ResolveFailed,
    Abort,
    Force,
}

/// One row of the table of decisions.
pub(crate) struct Facts {
    /// The word in links and forms.
    pub(crate) word: &'static str,
    /// The name on buttons.
    pub(crate) title: &'static str,
    /// The name in lines that say what was decided.
    pub(crate) about: &'static str,
    /// What the decision does and when it helps, for a person who has to choose.
    pub(crate) explained: &'static str,
    /// The command with GID and STEP, and what it does, for a person who looks at a stuck saga.
    pub(crate) helps: Option<(&'static str, &'static str)>,
    pub(crate) needs_comment: bool,
    /// Whether the decision is about one step.
    pub(crate) is_of_step: bool,
    /// What to do when nobody knows whether the decision was taken.
    pub(crate) repeating: &'static str,
}

const LOOK_FIRST: &str = "look with `pgsaga show` before you repeat it";

impl Decision {
    pub(crate) const ALL: [Decision; 7] = [
        Decision::Retry,
        Decision::RetryFresh,
        Decision::Skip,
        Decision::ResolveSucceeded,
        Decision::ResolveFailed,
        Decision::Abort,
        Decision::Force,
    ];

    pub(crate) fn facts(self) -> Facts {
        match self {
            Decision::Retry => Facts {
                word: "retry",
                title: "Retry",
                about: "retry",
                explained: "What is stuck is tried again under the same idempotency keys. For a participant that was \
                    repaired.",
                helps: Some(("retry GID", "tries what is stuck again")),
                needs_comment: false,
                is_of_step: false,
                repeating: LOOK_FIRST,
            },
            Decision::RetryFresh => Facts {
                word: "retry-fresh",
                title: "Retry under fresh keys",
                about: "retry with a fresh key",
                explained: "The same under new idempotency keys, for a participant that remembers its refusal. Refused \
                    where some try was not definitely refused, as the new key could do it twice.",
                helps: None,
                needs_comment: false,
                is_of_step: false,
                repeating: LOOK_FIRST,
            },
            Decision::Skip => Facts {
                word: "skip",
                title: "Skip",
                about: "skip",
                explained: "The step's action or compensation counts as done without a call. For what you have done by \
                    hand.",
                helps: Some(("skip GID STEP --comment TEXT", "counts it as done")),
                needs_comment: true,
                is_of_step: true,
                repeating: LOOK_FIRST,
            },
            Decision::ResolveSucceeded => Facts {
                word: "resolve-succeeded",
                title: "Resolve as succeeded",
                about: "resolve as succeeded",
                explained: "The saga ends, and nothing more is called. For a saga all of whose work you have seen to.",
                helps: Some((
                    "resolve GID succeeded|failed --comment TEXT",
                    "ends the saga as you have seen to it",
                )),
                needs_comment: true,
                is_of_step: false,
                repeating: LOOK_FIRST,
            },
            Decision::ResolveFailed => Facts {
                word: "resolve-failed",
                title: "Resolve as failed",
                about: "resolve as failed",
                explained: "The saga ends, and nothing more is called. For a saga of which you have seen to it that \
                    nothing stands.",
                helps: None,
                needs_comment: true,
                is_of_step: false,
                repeating: LOOK_FIRST,
            },
            Decision::Abort => Facts {
                word: "abort",
                title: "Abort",
                about: "abort",
                explained: "The saga turns back: what was done is compensated, in reverse order.",
                helps: Some(("abort GID --reason TEXT", "turns the saga back")),
                needs_comment: true,
                is_of_step: false,
                repeating: "repeating it is safe",
            },
            Decision::Force => Facts {
                word: "force",
                title: "Force",
                about: "force",
                explained: "The saga ends as failed, and nothing is compensated: what was done stays.",
                helps: Some(("force GID --comment TEXT", "ends it as failed without compensating")),
                needs_comment: true,
                is_of_step: false,
                repeating: LOOK_FIRST,
            },
        }
    }

    /// The decision of a link's or a form's word.
    pub(crate) fn parse(word: &str) -> Option<Decision> {
        Decision::ALL.into_iter().find(|decision| decision.facts().word == word)
    }

    fn statement(self) -> &'static str {
        match self {
            Decision::Retry | Decision::RetryFresh => query::DECIDE_RETRY,
            Decision::Skip => query::DECIDE_SKIP,
            Decision::ResolveSucceeded | Decision::ResolveFailed => query::DECIDE_RESOLVE,
            Decision::Abort => query::DECIDE_ABORT,
            Decision::Force => query::DECIDE_FORCE,
        }
    }
}

/// A decision with what it is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) decision: Decision,
    pub(crate) step: Option<&'a str>,
    pub(crate) comment: Option<&'a str>,
}

row! {
    /// A saga's status before a decision and after it.
    #[derive(Debug)]
    Taken {
        before: Option<SagaStatus> => optional,
        after: SagaStatus => word,
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before {
            Some(before) if before != self.after => {
                write!(f, "{} → {}", before.as_str(), self.after.as_str())
            }
            // `pgsaga show` says what a worker has to do first.
            _ => f.write_str(self.after.as_str()),
        }
    }
}

impl Request<'_> {
    /// The decision with its step, in words.
    pub(crate) fn about(&self) -> String {
        let about = self.decision.facts().about;
        self.step.map_or_else(|| about.to_owned(), |step| format!("{about} {step}"))
    }

    /// Takes the decision, in one statement.
    pub(crate) async fn take(&self, database: impl PgExecutor<'_>, gid: &str) -> Result<Taken, Error> {
        let sql = self.decision.statement();
        let statement = sqlx::query_as(sql).bind(gid);
        let statement = match self.decision {
            Decision::Retry => statement.bind(self.comment).bind(false),
            Decision::RetryFresh => statement.bind(self.comment).bind(true),
            Decision::Skip => statement.bind(self.step).bind(self.comment),
            Decision::ResolveSucceeded => statement.bind(SagaStatus::Succeeded.as_str()).bind(self.comment),
            Decision::ResolveFailed => statement.bind(SagaStatus::Failed.as_str()).bind(self.comment),
            Decision::Abort | Decision::Force => statement.bind(self.comment),
        };
        fail::before(sql);
        let taken = statement.fetch_one(database).await.map_err(|error| match error.as_database_error() {
            None => Error::Unanswered { error, advice: self.decision.facts().repeating },
            Some(_) => refusal(error),
        })?;
        fail::after(sql);
        Ok(taken)
    }
}

/// The functions' documented SQLSTATEs as errors with an exit code each, in the database's words.
pub(crate) fn refusal(error: sqlx::Error) -> Error {
    let words = || error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    match sqlstate(&error).as_deref() {
        Some("P0002") => Error::Absent(words()),
        Some("55000") => Error::Refused(words()),
        Some("22023") => Error::Usage(words()),
        _ => Error::Database(error),
    }
}
