//! What people decide about sagas that cannot, or must not, go on by themselves: `pgsaga abort`, `force`, `retry`, `skip` and
//! `resolve`, for one saga or for many.

mod bulk;

use std::fmt;

use clap::{Args, ValueEnum};
use pgsaga_sql::{fail, query};
use sqlx::{PgExecutor, Row as _};

use super::{Database, connect, out};
use crate::error::Error;
use bulk::{Open, Stuck};
use pgsaga_worker::db::sqlstate;

/// Turn a saga back, or many: what was done is undone
///
/// No new action starts; what is in flight ends first. While its pivot runs, the pivot's outcome decides first; after the pivot it is refused. To abort an aborting saga
/// changes nothing.
#[derive(Debug, Args)]
pub(crate) struct Abort {
    /// The saga's gid
    #[arg(required_unless_present = "open", conflicts_with = "open")]
    gid: Option<String>,
    #[command(flatten)]
    open: Open,
    /// Why; becomes the saga's reason
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    database: Database,
}

/// End a saga as failed without compensating anything
///
/// Calls in flight end first.
#[derive(Debug, Args)]
pub(crate) struct Force {
    /// The saga's gid
    gid: String,
    /// Why; becomes the saga's reason
    #[arg(long, value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    database: Database,
}

/// Try again what is stuck, of one saga or of many
///
/// Of a saga that is not stuck, what waits for its next try is tried now.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The saga's gid
    #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
    gid: Option<String>,
    #[command(flatten)]
    stuck: Stuck,
    /// Why
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Under new idempotency keys, for participants that remember their refusal; refused where some try was not definitely
    /// refused, as the new key could do it twice
    #[arg(long)]
    fresh_key: bool,
    #[command(flatten)]
    database: Database,
}

/// Count the op at which a step stands as done, of one saga or of many that are stuck
///
/// A call of it in flight ends first and changes nothing.
#[derive(Debug, Args)]
pub(crate) struct Skip {
    /// The saga's gid
    #[arg(required_unless_present = "stuck", conflicts_with = "stuck", requires = "step")]
    gid: Option<String>,
    /// The step's name
    #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
    step: Option<String>,
    #[command(flatten)]
    stuck: Stuck,
    /// Why
    #[arg(long, value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    database: Database,
}

/// End a saga as you have seen to it that it ended, or many that are stuck
///
/// Calls in flight end first.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Resolve {
    /// The saga's gid
    #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
    gid: Option<String>,
    /// What it came to
    #[arg(value_enum)]
    ending: Ending,
    #[command(flatten)]
    stuck: Stuck,
    /// Why
    #[arg(long, value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    database: Database,
}

/// How a person ends a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ending {
    /// All its steps are done
    Succeeded,
    /// Nothing of it stands
    Failed,
}

impl Ending {
    /// The word in SQL.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Ending::Succeeded => "succeeded",
            Ending::Failed => "failed",
        }
    }
}

/// What is decided about one saga.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Decision<'a> {
    Abort { reason: &'a str },
    Force { comment: &'a str },
    Retry { comment: Option<&'a str>, fresh_key: bool },
    Skip { step: &'a str, comment: &'a str },
    Resolve { ending: Ending, comment: &'a str },
}

/// A saga's status before a decision and after it.
#[derive(Debug)]
pub(crate) struct Taken {
    before: String,
    after: String,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.before == self.after {
            // What a worker has to do first, `pgsaga show` says.
            return f.write_str(&self.after);
        }
        write!(f, "{} → {}", self.before, self.after)
    }
}

impl Decision<'_> {
    /// The decision in SQL's word, with what it is about.
    pub(crate) fn about(&self) -> String {
        match self {
            Decision::Abort { .. } => "abort".to_owned(),
            Decision::Force { .. } => "force".to_owned(),
            Decision::Retry { fresh_key: false, .. } => "retry".to_owned(),
            Decision::Retry { fresh_key: true, .. } => "retry with a fresh key".to_owned(),
            Decision::Skip { step, .. } => format!("skip {step}"),
            Decision::Resolve { ending, .. } => format!("resolve as {}", ending.word()),
        }
    }

    fn sql(&self) -> &'static str {
        match self {
            Decision::Abort { .. } => query::DECIDE_ABORT,
            Decision::Force { .. } => query::DECIDE_FORCE,
            Decision::Retry { .. } => query::DECIDE_RETRY,
            Decision::Skip { .. } => query::DECIDE_SKIP,
            Decision::Resolve { .. } => query::DECIDE_RESOLVE,
        }
    }

    /// What to do when nobody knows whether it was taken.
    pub(crate) fn repeating(&self) -> &'static str {
        match self {
            Decision::Abort { .. } => "repeating it is safe",
            _ => "look with `pgsaga show` before you repeat it",
        }
    }

    /// Takes it, in a statement of its own.
    pub(crate) async fn take(&self, database: impl PgExecutor<'_>, gid: &str) -> Result<Taken, Error> {
        let sql = self.sql();
        let statement = sqlx::query(sql).bind(gid);
        let statement = match *self {
            Decision::Abort { reason } => statement.bind(reason),
            Decision::Force { comment } => statement.bind(comment),
            Decision::Retry { comment, fresh_key } => statement.bind(comment).bind(fresh_key),
            Decision::Skip { step, comment } => statement.bind(step).bind(comment),
            Decision::Resolve { ending, comment } => statement.bind(ending.word()).bind(comment),
        };
        fail::before(sql);
        let row = statement.fetch_one(database).await.map_err(|error| match error.as_database_error() {
            None => Error::Unanswered { error, advice: self.repeating() },
            Some(_) => refusal(error),
        })?;
        fail::after(sql);
        let after: String = row.try_get("after")?;
        Ok(Taken { before: row.try_get::<Option<_>, _>("before")?.unwrap_or_else(|| after.clone()), after })
    }

    /// Takes it about one saga and says what came of it.
    async fn about_one(&self, database: &Database, gid: &str) -> Result<(), Error> {
        let pool = connect(&database.database_url).await?;
        let taken = self.take(&pool, gid).await?;
        pool.close().await;
        out(format_args!("{gid}: {taken}"))
    }
}

/// The documented SQLSTATEs of the functions: the database's words, with the exit code of each.
pub(crate) fn refusal(error: sqlx::Error) -> Error {
    let words = || error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    match sqlstate(&error).as_deref() {
        Some("P0002") => Error::Absent(words()),
        Some("55000") => Error::Refused(words()),
        Some("22023") => Error::Usage(words()),
        _ => Error::Database(error),
    }
}

impl Abort {
    /// Aborts.
    ///
    /// # Errors
    /// [`Error::Absent`] for an unknown gid, [`Error::Refused`] where the saga's state does not allow it.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let decision = Decision::Abort { reason: &self.reason };
        match &self.gid {
            Some(gid) => decision.about_one(&self.database, gid).await,
            None => self.open.decide(&self.database, decision).await,
        }
    }
}

impl Force {
    /// Ends the saga.
    ///
    /// # Errors
    /// See [`Abort::run`].
    pub(crate) async fn run(self) -> Result<(), Error> {
        Decision::Force { comment: &self.comment }.about_one(&self.database, &self.gid).await
    }
}

impl Retry {
    /// Retries.
    ///
    /// # Errors
    /// See [`Abort::run`].
    pub(crate) async fn run(self) -> Result<(), Error> {
        let decision = Decision::Retry { comment: self.comment.as_deref(), fresh_key: self.fresh_key };
        match &self.gid {
            Some(gid) => decision.about_one(&self.database, gid).await,
            None => self.stuck.decide(&self.database, decision).await,
        }
    }
}

impl Skip {
    /// Skips.
    ///
    /// # Errors
    /// See [`Abort::run`]; [`Error::Absent`] also for an unknown step.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let comment = &self.comment;
        match (&self.gid, &self.step) {
            (Some(gid), Some(step)) => Decision::Skip { step, comment }.about_one(&self.database, gid).await,
            _ => self.stuck.skip_each_step(&self.database, comment).await,
        }
    }
}

impl Resolve {
    /// Resolves.
    ///
    /// # Errors
    /// See [`Abort::run`].
    pub(crate) async fn run(self) -> Result<(), Error> {
        let decision = Decision::Resolve { ending: self.ending, comment: &self.comment };
        match &self.gid {
            Some(gid) => decision.about_one(&self.database, gid).await,
            None => self.stuck.decide(&self.database, decision).await,
        }
    }
}
