//! `pgsaga abort`, `retry`, `skip`, `resolve` and `force`, for one saga or for many.

use clap::{Subcommand, ValueEnum};

use super::bulk::{Open, Stuck};
use super::{Decision, Request};
use crate::error::Error;
use crate::operate::{Database, connect};
use crate::output::out;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Turn a saga back, or many: what was done is undone
    ///
    /// No new action starts; what is in flight ends first. While its pivot runs, the pivot's outcome decides first; after the
    /// pivot it is refused. To abort an aborting saga changes nothing.
    Abort {
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
    },
    /// Try again what is stuck, of one saga or of many
    ///
    /// Of a saga that is not stuck, what waits for its next try is tried now.
    Retry {
        /// The saga's gid
        #[arg(required_unless_present = "stuck", conflicts_with = "stuck")]
        gid: Option<String>,
        #[command(flatten)]
        stuck: Stuck,
        /// Why
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        /// Under new idempotency keys, for participants that remember their refusal; refused where some try was not
        /// definitely refused, as the new key could do it twice
        #[arg(long)]
        fresh_key: bool,
        #[command(flatten)]
        database: Database,
    },
    /// Count the op at which a step stands as done, of one saga or of many that are stuck
    ///
    /// A call of it in flight ends first and changes nothing.
    Skip {
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
    },
    /// End a saga as you have seen to it that it ended, or many that are stuck
    ///
    /// Calls in flight end first.
    #[command(allow_missing_positional = true)]
    Resolve {
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
    },
    /// End a saga as failed without compensating anything
    ///
    /// Calls in flight end first.
    Force {
        /// The saga's gid
        gid: String,
        /// Why; becomes the saga's reason
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
    /// Takes the decision about one saga, or about each of many.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let stuck = |gid, stuck| Option::map_or(gid, Whom::Stuck(stuck), Whom::One);
        let (whom, database, decision, step, comment) = match &self {
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
