mod table;
mod watch;

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::query;
use sqlx::postgres::PgPool;

use super::filter::{self, Label, duration, label, micros, participant};
use super::{Database, connect};
use crate::error::Error;
use crate::operate::read::{self, list::Listed};
use crate::output::{columns, out, out_json};
use crate::words::{count, newer_format, printable, time, when};

const REASON_CHARS_MAX: usize = 200;
/// Upper bound on the characters of a gid, a queue or a step's name. The row may hold any text, if
/// a person changed it by hand.
const NAME_CHARS_MAX: usize = 128;

/// List sagas, the newest first, by status, age, queue, label, participant or lack of progress
///
/// Lists the sagas that pass every filter. One statement reads backwards from the newest saga until
/// the limit is reached. If few sagas pass the filters, the statement reads all sagas: about one
/// second for each million, and four with --participant, which reads the definitions of the sagas
/// that pass the other filters. --no-progress reads the histories of the unfinished sagas.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Only sagas with one of these statuses; repeatable, or separated by commas
    #[arg(long, value_delimiter = ',', value_parser = statuses())]
    status: Vec<SagaStatus>,
    /// Only sagas that have not finished
    #[arg(long)]
    open: bool,
    /// Only sagas that were created at least this long ago, such as 90s, 2h or 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only sagas that were created at most this long ago
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    newer_than: Option<Duration>,
    /// Only sagas of this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only sagas with this label, and with this value if one is given; repeatable: all must match
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = label)]
    label: Vec<Label>,
    /// Only sagas with an action or compensation that calls this participant: the host as the URL
    /// writes it, with the port if the URL has one
    #[arg(long, value_name = "HOST[:PORT]", value_parser = participant)]
    participant: Option<String>,
    /// Only unfinished sagas that make no progress: for at least this long, the participant
    /// answered every attempt of a queued op with 404, or with what counts against no limit, such
    /// as ongoing (425, 202)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1h", value_parser = duration)]
    no_progress: Option<Duration>,
    /// Upper bound on the number of sagas, 1 to 10,000
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// Print one JSON object for each saga
    #[arg(long)]
    json: bool,
    /// Repeat the list at this interval, 1 to 3,600 seconds, until a signal arrives or the output
    /// is closed. A terminal shows the table anew; any other output gets the sagas that are new or
    /// changed. Continues while the database cannot be reached
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

fn statuses() -> impl clap::builder::TypedValueParser<Value = SagaStatus> {
    PossibleValuesParser::new(SagaStatus::ALL.map(SagaStatus::as_str))
        .try_map(|word| SagaStatus::of(&word).ok_or("no such status"))
}

impl List {
    /// Whether the command handles the signal that ends it.
    pub(crate) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Prints the list once or repeatedly.
    pub(crate) async fn run(self) -> Result<(), Error> {
        if let Some(seconds) = self.watch {
            return watch::run(&self, Duration::from_secs(seconds)).await;
        }
        let pool = connect(&self.database.database_url).await?;
        let sagas = self.read(&pool).await?;
        pool.close().await;
        if self.json {
            return sagas.iter().try_for_each(|saga| out_json(json(saga)?));
        }
        out(table::of(&sagas, columns()))
    }

    async fn read(&self, pool: &PgPool) -> Result<Vec<Listed>, sqlx::Error> {
        let statuses: Vec<String> = self.status.iter().map(|status| status.as_str().to_owned()).collect();
        let (label_keys, label_values) = filter::labels(&self.label);
        let list = query::List {
            statuses: (!statuses.is_empty()).then_some(&statuses),
            only_unfinished: self.open,
            older_than_us: micros(self.older_than),
            newer_than_us: micros(self.newer_than),
            queue: self.queue.as_deref(),
            label_keys: label_keys.as_deref(),
            label_values: &label_values,
            participant: self.participant.as_deref(),
            no_progress_us: micros(self.no_progress),
            sagas_max: self.limit,
        };
        // Not kept, because the plan fits only these filters.
        read::all(&list.query().persistent(false).fetch_all(pool).await?)
    }
}

fn json(saga: &Listed) -> Result<String, Error> {
    serde_json::to_string(saga)
        .map_err(|error| Error::Found(format!("saga {} cannot be written as JSON: {error}", saga.gid)))
}

/// One line for a saga, for output that is no terminal.
fn line(saga: &Listed) -> String {
    let rest = [next(saga), reason(saga)].into_iter().filter(|text| !text.is_empty());
    let rest = rest.collect::<Vec<_>>().join("; ");
    let (created, gid) = (time(saga.created_at), printable(&saga.gid, NAME_CHARS_MAX));
    format!("{created}  {gid}  {}  {rest}", saga.status.as_str()).trim_end().to_owned()
}

/// The earliest task, in words.
fn next(saga: &Listed) -> String {
    let Some(next) = &saga.next else { return String::new() };
    let more = if saga.tasks > 1 { format!(", +{} more", count(saga.tasks - 1)) } else { String::new() };
    let when = when(next.worker, next.due_ms);
    let newer = newer_format(next.format).map(|why| format!("; {why}")).unwrap_or_default();
    let step = printable(&next.step, NAME_CHARS_MAX);
    format!("{} of {step}, try {}, {when}{more}{newer}", next.op.as_str(), count(next.attempt.into()))
}

fn reason(saga: &Listed) -> String {
    saga.reason.as_deref().map(|reason| printable(reason, REASON_CHARS_MAX)).unwrap_or_default()
}
