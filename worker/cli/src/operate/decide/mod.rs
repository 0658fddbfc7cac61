//! What people decide about sagas that cannot, or must not, go on by themselves, and what they
//! report of steps that wait for them. The command line, the web page and decisions in bulk are
//! made of one table.

mod bulk;
mod complete;
pub(crate) mod consequences;
mod table;

use std::fmt;

use clap::{Subcommand, ValueEnum};
use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::{fail, query};
use pgsaga_worker::db::sqlstate;
use sqlx::{FromRow as _, PgExecutor};

use crate::error::Error;
use crate::operate::read::row;
use crate::operate::{Database, connect};
use crate::output::out;
use bulk::{Open, Stuck};
use complete::Complete;
pub(crate) use table::Decision;

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
        before: Option<SagaStatus>,
        after: SagaStatus,
        /// The decision had been taken already.
        unchanged: bool,
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before {
            _ if self.unchanged => write!(f, "{}, as before: nothing was changed", self.after.as_str()),
            Some(before) if before != self.after => {
                write!(f, "{} → {}", before.as_str(), self.after.as_str())
            }
            // `pgsaga show` says what a worker has to do first.
            _ => f.write_str(self.after.as_str()),
        }
    }
}

impl Request<'_> {
    pub(crate) fn about(&self) -> String {
        let about = self.decision.facts().about;
        self.step.map_or_else(|| about.to_owned(), |step| format!("{about} {step}"))
    }

    pub(crate) async fn take(&self, database: impl PgExecutor<'_>, gid: &str) -> Result<Taken, Error> {
        let facts = self.decision.facts();
        let statement = query::Decide { gid, decision: facts.word, step: self.step, comment: self.comment };
        fail::before(query::Decide::SQL);
        let row = statement.query().fetch_one(database).await;
        let taken =
            row.and_then(|row| Taken::from_row(&row)).map_err(|error| match error.as_database_error() {
                None => Error::Unanswered { error, advice: facts.repeating },
                Some(_) => refusal(error),
            })?;
        fail::after(query::Decide::SQL);
        Ok(taken)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Roll a saga back, or many: what was done is undone
    ///
    /// No new action starts; what is in flight ends first. While its pivot runs, the pivot's
    /// outcome decides first; after the pivot it is refused. To abort an aborting saga changes
    /// nothing.
    Abort {
        /// Gid of the saga to roll back
        #[arg(required_unless_present = "open", conflicts_with = "open")]
        gid: Option<String>,
        #[command(flatten)]
        open: Open,
        /// Why the saga is rolled back; recorded in the history and in the saga's reason
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        database: Database,
    },
    /// Try again what is stuck, of one saga or of many
    ///
    /// Of a saga that is not stuck, what waits for its next try is tried now.
    Retry {
        /// Gid of the saga to retry
        #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
        gid: Option<String>,
        #[command(flatten)]
        stuck: Stuck,
        /// Why this was decided; recorded in the history
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        /// Try again under new idempotency keys, for participants that remember their refusal.
        /// Refused unless the participant definitely refused every attempt, because under a new key
        /// the participant could do the work twice
        #[arg(long)]
        fresh_key: bool,
        #[command(flatten)]
        database: Database,
    },
    Complete(Complete),
    /// Count the op at which a step stands as done, of one saga or of many that are stuck
    ///
    /// A call of it in flight ends first and changes nothing.
    Skip {
        /// Gid of the saga that the step belongs to
        #[arg(required_unless_present = "stuck", conflicts_with = "stuck", requires = "step")]
        gid: Option<String>,
        /// Name of the step whose op counts as done
        #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
        step: Option<String>,
        #[command(flatten)]
        stuck: Stuck,
        /// Why this was decided; recorded in the history
        #[arg(long, value_name = "TEXT")]
        comment: String,
        #[command(flatten)]
        database: Database,
    },
    /// End a saga as you have seen to it that it ended, or many that are stuck
    ///
    /// Calls in flight end first.
    #[command(allow_missing_positional = true)]
    Resolve {
        /// Gid of the saga to end
        #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
        gid: Option<String>,
        /// Status that the saga ends with
        #[arg(value_enum)]
        ending: Ending,
        #[command(flatten)]
        stuck: Stuck,
        /// Why this was decided; recorded in the history
        #[arg(long, value_name = "TEXT")]
        comment: String,
        #[command(flatten)]
        database: Database,
    },
    /// End a saga as failed without compensating anything
    ///
    /// Calls in flight end first.
    Force {
        /// Gid of the saga to end
        gid: String,
        /// Why the saga is ended; recorded in the history and in the saga's reason
        #[arg(long, value_name = "TEXT")]
        comment: String,
        #[command(flatten)]
        database: Database,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Ending {
    Succeeded,
    Failed,
}

/// The sagas that a command is about.
enum Whom<'a> {
    One(&'a str),
    Open(&'a Open),
    Stuck(&'a Stuck),
}

impl Command {
    pub(crate) fn database(&self) -> &Database {
        match self {
            Command::Complete(Complete { database, .. })
            | Command::Abort { database, .. }
            | Command::Retry { database, .. }
            | Command::Skip { database, .. }
            | Command::Resolve { database, .. }
            | Command::Force { database, .. } => database,
        }
    }

    /// Takes the decision about one saga, or about each of many.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let stuck = |gid, stuck| Option::map_or(gid, Whom::Stuck(stuck), Whom::One);
        let (whom, database, decision, step, comment) = match &self {
            Command::Complete(complete) => return complete.run().await,
            Command::Abort { gid, open, reason, database } => {
                let whom = gid.as_deref().map_or(Whom::Open(open), Whom::One);
                (whom, database, Decision::Abort, None, Some(reason))
            }
            Command::Retry { gid, stuck: many, comment, fresh_key, database } => {
                let decision = if *fresh_key { Decision::RetryFresh } else { Decision::Retry };
                (stuck(gid.as_deref(), many), database, decision, None, comment.as_ref())
            }
            Command::Skip { gid, step, stuck: many, comment, database } => {
                (stuck(gid.as_deref(), many), database, Decision::Skip, step.as_deref(), Some(comment))
            }
            Command::Resolve { gid, ending, stuck: many, comment, database } => {
                let decision = match ending {
                    Ending::Succeeded => Decision::ResolveSucceeded,
                    Ending::Failed => Decision::ResolveFailed,
                };
                (stuck(gid.as_deref(), many), database, decision, None, Some(comment))
            }
            Command::Force { gid, comment, database } => {
                (Whom::One(gid), database, Decision::Force, None, Some(comment))
            }
        };
        let request = Request { decision, step, comment: comment.map(String::as_str) };
        let pool = connect(&database.database_url).await?;
        match whom {
            Whom::One(gid) => {
                let taken = request.take(&pool, gid).await?;
                pool.close().await;
                out(format_args!("{gid}: {taken}"))
            }
            Whom::Open(open) => open.decide(&pool, request).await,
            Whom::Stuck(stuck) => stuck.decide(&pool, request).await,
        }
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
