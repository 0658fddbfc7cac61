//! One decision about many sagas: each in a statement of its own, and a line for each. A refusal stops nothing.

use std::fmt::Display;
use std::time::Duration;

use clap::{ArgGroup, Args};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use super::Decision;
use crate::error::Error;
use crate::operate::filter::{self, Label, duration, label, micros, participant};
use crate::operate::{Database, connect, out};
use crate::words::{counted, printable, span_us};

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 200;

/// Stuck sagas, instead of one gid.
#[derive(Debug, Args)]
pub(crate) struct Stuck {
    /// All stuck sagas that pass the filters, the longest stuck first. What one refuses does not stop the rest: exit code 1
    #[arg(long, help_heading = "In bulk")]
    stuck: bool,
    /// Only stuck steps whose op calls this participant: host, and port where the URL names it, as the URL writes them. A
    /// saga with such a step is retried or resolved as a whole
    #[arg(long, requires = "stuck", conflicts_with = "gid", value_name = "HOST[:PORT]", value_parser = participant, help_heading = "In bulk")]
    participant: Option<String>,
    /// Only sagas of this queue
    #[arg(long, requires = "stuck", conflicts_with = "gid", value_name = "NAME", help_heading = "In bulk")]
    queue: Option<String>,
    /// Only what is stuck for at least so long, such as 90s, 2h or 7d
    #[arg(long, requires = "stuck", conflicts_with = "gid", value_name = "DURATION", value_parser = duration, help_heading = "In bulk")]
    older_than: Option<Duration>,
    /// At most so many sagas
    #[arg(long, requires = "stuck", conflicts_with = "gid", value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = "In bulk")]
    limit: Option<i64>,
    /// Only say what would be done
    #[arg(long, requires = "stuck", conflicts_with = "gid", help_heading = "In bulk")]
    dry_run: bool,
}

/// Unfinished sagas, instead of one gid.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("chosen").args(["label", "participant", "queue"]).multiple(true))]
pub(crate) struct Open {
    /// All unfinished sagas that do not turn back yet and pass the filters, the oldest first; needs --label, --participant or
    /// --queue. What one refuses does not stop the rest: exit code 1
    #[arg(long, requires = "chosen", help_heading = "In bulk")]
    open: bool,
    /// Only sagas with this label, of any value where none is given; repeatable: all must match
    #[arg(long, requires = "open", conflicts_with = "gid", value_name = "KEY[=VALUE]", value_parser = label, help_heading = "In bulk")]
    label: Vec<Label>,
    /// Only sagas of which some action or compensation calls this participant: host, and port where the URL names it, as
    /// the URL writes them
    #[arg(long, requires = "open", conflicts_with = "gid", value_name = "HOST[:PORT]", value_parser = participant, help_heading = "In bulk")]
    participant: Option<String>,
    /// Only sagas of this queue
    #[arg(long, requires = "open", conflicts_with = "gid", value_name = "NAME", help_heading = "In bulk")]
    queue: Option<String>,
    /// Only sagas created at least so long ago, such as 90s, 2h or 7d
    #[arg(long, requires = "open", conflicts_with = "gid", value_name = "DURATION", value_parser = duration, help_heading = "In bulk")]
    older_than: Option<Duration>,
    /// At most so many sagas
    #[arg(long, requires = "open", conflicts_with = "gid", value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = "In bulk")]
    limit: Option<i64>,
    /// Only say what would be done
    #[arg(long, requires = "open", conflicts_with = "gid", help_heading = "In bulk")]
    dry_run: bool,
}

/// A saga that was chosen, with its stuck steps that were.
struct Chosen {
    gid: String,
    status: String,
    since_us: i64,
    stuck: Vec<StuckStep>,
}

struct StuckStep {
    name: String,
    op: String,
    reason: String,
}

impl Stuck {
    /// Takes one decision about each saga.
    pub(crate) async fn decide(&self, database: &Database, decision: Decision<'_>) -> Result<(), Error> {
        let pool = connect(&database.database_url).await?;
        let chosen = self.choose(&pool).await?;
        let items = chosen.iter().map(|saga| (saga, &saga.stuck[..], decision));
        decide(&pool, self.dry_run, items.collect(), "saga", "sagas").await
    }

    /// Skips each stuck step.
    pub(crate) async fn skip_each_step(&self, database: &Database, comment: &str) -> Result<(), Error> {
        let pool = connect(&database.database_url).await?;
        let chosen = self.choose(&pool).await?;
        let steps = chosen.iter().flat_map(|saga| saga.stuck.iter().map(move |step| (saga, step)));
        let items = steps.map(|(saga, step)| {
            (saga, std::slice::from_ref(step), Decision::Skip { step: &step.name, comment })
        });
        decide(&pool, self.dry_run, items.collect(), "step", "steps").await
    }

    async fn choose(&self, pool: &PgPool) -> Result<Vec<Chosen>, sqlx::Error> {
        let select = query::SelectStuck {
            participant: self.participant.as_deref(),
            queue: self.queue.as_deref(),
            stuck_for_us: micros(self.older_than),
            sagas_max: self.limit,
        };
        let rows = select.query().fetch_all(pool).await?;
        rows.iter().map(stuck).collect()
    }
}

fn stuck(row: &PgRow) -> Result<Chosen, sqlx::Error> {
    let (names, ops): (Vec<String>, Vec<String>) = (row.try_get("steps")?, row.try_get("ops")?);
    let reasons: Vec<String> = row.try_get("reasons")?;
    let steps = names.into_iter().zip(ops).zip(reasons);
    Ok(Chosen {
        gid: row.try_get("gid")?,
        status: row.try_get("status")?,
        since_us: row.try_get("since_us")?,
        stuck: steps.map(|((name, op), reason)| StuckStep { name, op, reason }).collect(),
    })
}

impl Open {
    /// Takes one decision about each saga.
    pub(crate) async fn decide(&self, database: &Database, decision: Decision<'_>) -> Result<(), Error> {
        let pool = connect(&database.database_url).await?;
        let (label_keys, label_values) = filter::labels(&self.label);
        let select = query::SelectOpen {
            participant: self.participant.as_deref(),
            queue: self.queue.as_deref(),
            label_keys: label_keys.as_deref(),
            label_values: &label_values,
            older_than_us: micros(self.older_than),
            sagas_max: self.limit,
        };
        let rows = select.query().fetch_all(&pool).await?;
        let chosen = rows.iter().map(|row| {
            let (gid, status) = (row.try_get("gid")?, row.try_get("status")?);
            Ok(Chosen { gid, status, since_us: row.try_get("since_us")?, stuck: Vec::new() })
        });
        let chosen = chosen.collect::<Result<Vec<_>, sqlx::Error>>()?;
        let items = chosen.iter().map(|saga| (saga, &saga.stuck[..], decision));
        decide(&pool, self.dry_run, items.collect(), "saga", "sagas").await
    }
}

async fn decide(
    pool: &PgPool,
    dry_run: bool,
    items: Vec<(&Chosen, &[StuckStep], Decision<'_>)>,
    one: &str,
    many: &str,
) -> Result<(), Error> {
    let many = |number: usize| counted(number as i64, one, many);
    if dry_run {
        for (saga, stuck, decision) in &items {
            say(format_args!("{}: {}", saga.gid, would(saga, stuck, decision)));
        }
        say(format_args!("{} chosen; nothing was changed", many(items.len())));
        return Ok(());
    }
    let (mut done, mut refused) = (0, 0);
    for (saga, _, decision) in &items {
        match decision.take(pool, &saga.gid).await {
            Ok(taken) => {
                done += 1;
                say(format_args!("{}: {}: {taken}", saga.gid, decision.about()));
            }
            // Another person, or the saga itself, was faster.
            Err(Error::Refused(words) | Error::Absent(words)) => {
                refused += 1;
                say(format_args!("{}: {}: refused: {words}", saga.gid, decision.about()));
            }
            Err(error) => {
                say(format_args!("{} of {} done, then it broke off", done, many(items.len())));
                return Err(error);
            }
        }
    }
    say(format_args!("{} done, {} refused", many(done), refused));
    if refused > 0 {
        return Err(Error::Refused(format!("{refused} of {} refused", many(items.len()))));
    }
    Ok(())
}

/// What would be done, in words.
fn would(saga: &Chosen, stuck: &[StuckStep], decision: &Decision<'_>) -> String {
    let steps: Vec<String> = stuck
        .iter()
        .map(|step| format!("{} of {} ({})", step.op, step.name, printable(&step.reason, REASON_CHARS_MAX)))
        .collect();
    let about = if steps.is_empty() { String::new() } else { format!(": {}", steps.join(", ")) };
    format!("would {}; {} for {}{about}", decision.about(), saga.status, span_us(saga.since_us))
}

/// What is decided does not depend on whether somebody reads about it.
fn say(line: impl Display) {
    // The exit code tells of refusals all the same.
    let _ = out(line);
}
