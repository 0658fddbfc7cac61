//! One decision about many sagas, each in a statement of its own. What one saga refuses does not
//! stop the rest.

use std::fmt::Display;
use std::time::Duration;

use clap::{ArgGroup, Args};
use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::query;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow as _, Row as _};

use super::Request;
use crate::error::Error;
use crate::operate::filter::{self, Label, duration, label, micros, participant};
use crate::operate::read::{self, row};
use crate::output::out;
use crate::words::{counted, printable, span_us};

const REASON_CHARS_MAX: usize = 200;

/// Stuck sagas, instead of one gid.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("bulk").args(["stuck"]))]
pub(crate) struct Stuck {
    /// All stuck sagas that pass the filters, the longest stuck first. Continues where the decision
    /// is refused for a saga, and then exits with code 1
    #[arg(long, help_heading = "In bulk")]
    stuck: bool,
    #[command(flatten)]
    filters: Filters,
}

/// Unfinished sagas, instead of one gid.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("bulk").args(["open"]),
    group = ArgGroup::new("chosen").args(["label", "participant", "queue"]).multiple(true)
)]
pub(crate) struct Open {
    /// All unfinished sagas that do not roll back yet and pass the filters, the oldest first; needs
    /// --label, --participant or --queue. Continues where the decision is refused for a saga, and
    /// then exits with code 1
    #[arg(long, requires = "chosen", help_heading = "In bulk")]
    open: bool,
    /// Only sagas with this label, and with this value if one is given; repeatable: all must match
    #[arg(long, requires = "open", conflicts_with = "gid", value_name = "KEY[=VALUE]", value_parser = label, help_heading = "In bulk")]
    label: Vec<Label>,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, Args)]
struct Filters {
    /// Only sagas of which an op calls this participant, and with --stuck the op that is stuck:
    /// host, and port where the URL names it, as the URL writes them. Such a saga is aborted,
    /// retried or resolved as a whole
    #[arg(long, requires = "bulk", conflicts_with = "gid", value_name = "HOST[:PORT]", value_parser = participant, help_heading = "In bulk")]
    participant: Option<String>,
    /// Only sagas of this queue
    #[arg(long, requires = "bulk", conflicts_with = "gid", value_name = "NAME", help_heading = "In bulk")]
    queue: Option<String>,
    /// Only sagas that were created, or with --stuck steps that became stuck, at least this long
    /// ago, such as 90s, 2h or 7d
    #[arg(long, requires = "bulk", conflicts_with = "gid", value_name = "DURATION", value_parser = duration, help_heading = "In bulk")]
    older_than: Option<Duration>,
    /// Upper bound on the number of sagas
    #[arg(long, requires = "bulk", conflicts_with = "gid", value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = "In bulk")]
    limit: Option<i64>,
    /// Only print what would be decided, and change nothing
    #[arg(long, requires = "bulk", conflicts_with = "gid", help_heading = "In bulk")]
    dry_run: bool,
}

row! {
    /// A saga that was chosen, with those of its stuck steps that were.
    Chosen {
        gid: String,
        status: SagaStatus,
        since_us: i64,
        stuck: Vec<StuckStep> => crate::operate::read::words::later,
    }
}

pub(crate) struct StuckStep {
    name: String,
    op: String,
    reason: String,
}

impl Stuck {
    pub(super) async fn decide(&self, pool: &PgPool, request: Request<'_>) -> Result<(), Error> {
        let chosen = self.choose(pool).await?;
        if !request.decision.facts().is_of_step {
            let items = chosen.iter().map(|saga| (saga, &saga.stuck[..], request));
            return decide(pool, self.filters.dry_run, items.collect(), "saga", "sagas").await;
        }
        let steps = chosen.iter().flat_map(|saga| saga.stuck.iter().map(move |step| (saga, step)));
        let items = steps.map(|(saga, step)| {
            (saga, std::slice::from_ref(step), Request { step: Some(&step.name), ..request })
        });
        decide(pool, self.filters.dry_run, items.collect(), "step", "steps").await
    }

    async fn choose(&self, pool: &PgPool) -> Result<Vec<Chosen>, sqlx::Error> {
        let Filters { participant, queue, older_than, limit, .. } = &self.filters;
        let select = query::SelectStuck {
            participant: participant.as_deref(),
            queue: queue.as_deref(),
            stuck_for_us: micros(*older_than),
            sagas_max: *limit,
        };
        select.query().fetch_all(pool).await?.iter().map(with_steps).collect()
    }
}

fn with_steps(row: &PgRow) -> Result<Chosen, sqlx::Error> {
    let column = |name: &str| row.try_get::<Vec<String>, _>(name);
    let steps = column("steps")?.into_iter().zip(column("ops")?).zip(column("reasons")?);
    let stuck = steps.map(|((name, op), reason)| StuckStep { name, op, reason }).collect();
    Ok(Chosen { stuck, ..Chosen::from_row(row)? })
}

impl Open {
    pub(super) async fn decide(&self, pool: &PgPool, request: Request<'_>) -> Result<(), Error> {
        let Filters { participant, queue, older_than, limit, dry_run } = &self.filters;
        let (label_keys, label_values) = filter::labels(&self.label);
        let select = query::SelectOpen {
            participant: participant.as_deref(),
            queue: queue.as_deref(),
            label_keys: label_keys.as_deref(),
            label_values: &label_values,
            older_than_us: micros(*older_than),
            sagas_max: *limit,
        };
        let chosen: Vec<Chosen> = read::all(&select.query().fetch_all(pool).await?)?;
        let items = chosen.iter().map(|saga| (saga, &saga.stuck[..], request));
        decide(pool, *dry_run, items.collect(), "saga", "sagas").await
    }
}

async fn decide(
    pool: &PgPool,
    dry_run: bool,
    items: Vec<(&Chosen, &[StuckStep], Request<'_>)>,
    one: &str,
    many: &str,
) -> Result<(), Error> {
    let many = |number: usize| counted(number as i64, one, many);
    if dry_run {
        for (saga, stuck, request) in &items {
            say(format_args!("{}: {}", saga.gid, would(saga, stuck, request)));
        }
        say(format_args!("{} chosen; nothing was changed", many(items.len())));
        return Ok(());
    }
    let (mut done, mut refused) = (0, 0);
    for (saga, _, request) in &items {
        match request.take(pool, &saga.gid).await {
            Ok(taken) => {
                done += 1;
                say(format_args!("{}: {}: {taken}", saga.gid, request.about()));
            }
            // Another person, or the saga itself, was faster.
            Err(Error::Refused(words) | Error::Absent(words)) => {
                refused += 1;
                say(format_args!("{}: {}: refused: {words}", saga.gid, request.about()));
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
fn would(saga: &Chosen, stuck: &[StuckStep], request: &Request<'_>) -> String {
    let steps: Vec<String> = stuck
        .iter()
        .map(|step| format!("{} of {} ({})", step.op, step.name, printable(&step.reason, REASON_CHARS_MAX)))
        .collect();
    let about = if steps.is_empty() { String::new() } else { format!(": {}", steps.join(", ")) };
    let (would, status) = (request.about(), saga.status.as_str());
    format!("would {would}; {status} for {}{about}", span_us(saga.since_us))
}

/// A reader that has seen enough does not stop the decisions. The exit code tells of refusals all
/// the same.
fn say(line: impl Display) {
    let _ = out(line);
}
