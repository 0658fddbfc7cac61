//! `pgsaga list`.

mod row;
mod watch;

use std::time::Duration;

use clap::{Args, ValueEnum};
use pgsaga_sql::query;
use sqlx::postgres::{PgPool, PgRow};

use super::filter::{self, Label, duration, label, micros, participant};
use super::{Database, connect, out, out_json};
use crate::error::Error;
use row::Row;

/// List sagas, the newest first, by status, age, queue, label, participant or lack of progress
///
/// A saga is listed when every filter lets it pass. One statement reads from the newest saga backwards until the limit is
/// reached. With filters that few sagas pass it reads them all: about a second a million, and four with --participant, which
/// reads the definitions of those that pass the other filters. --no-progress reads the histories of the unfinished ones.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    database: Database,
    /// Only sagas of these statuses; repeatable, or separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    status: Vec<Status>,
    /// Only unfinished sagas
    #[arg(long)]
    open: bool,
    /// Only sagas created at least so long ago, such as 90s, 2h or 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only sagas created at most so long ago
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    newer_than: Option<Duration>,
    /// Only sagas of this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only sagas with this label, of any value where none is given; repeatable: all must match
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = label)]
    label: Vec<Label>,
    /// Only sagas of which some action or compensation calls this participant: host, and port where the URL names it, as
    /// the URL writes them
    #[arg(long, value_name = "HOST[:PORT]", value_parser = participant)]
    participant: Option<String>,
    /// Only unfinished sagas that make no progress: over so long, up to its last try, every try of an op that is queued
    /// was answered 404, or that it is ongoing (425, 202)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1h", value_parser = duration)]
    no_progress: Option<Duration>,
    /// At most so many, 1 to 10,000
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// Print one JSON object a saga
    #[arg(long)]
    json: bool,
    /// Follow, every so many seconds, 1 to 3,600: on a terminal the table is drawn anew, elsewhere sagas that are new or
    /// changed are appended. Until a signal, or until nobody reads the output any more; goes on where the database is
    /// away for a while
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Submitted,
    Succeeded,
    Aborting,
    Failed,
    Stuck,
}

impl Status {
    /// The word in SQL.
    fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl List {
    /// Whether it ends by a signal that it handles itself.
    pub(crate) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Prints the table, or follows it.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) async fn run(self) -> Result<(), Error> {
        if let Some(seconds) = self.watch {
            return watch::run(&self, Duration::from_secs(seconds)).await;
        }
        let pool = connect(&self.database.database_url).await?;
        let rows = self.read(&pool).await?;
        pool.close().await;
        if self.json {
            return rows.iter().try_for_each(|row| out_json(row.json()?));
        }
        out(row::table(&rows))
    }

    async fn read(&self, pool: &PgPool) -> Result<Vec<Row>, sqlx::Error> {
        let statuses: Vec<String> = self.status.iter().map(|status| status.word()).collect();
        let (label_keys, label_values) = filter::labels(&self.label);
        let rows: Vec<PgRow> = sqlx::query(query::LIST)
            // Planned for just these filters.
            .persistent(false)
            .bind((!statuses.is_empty()).then_some(statuses))
            .bind(self.open)
            .bind(micros(self.older_than))
            .bind(micros(self.newer_than))
            .bind(&self.queue)
            .bind(label_keys)
            .bind(label_values)
            .bind(&self.participant)
            .bind(micros(self.no_progress))
            .bind(self.limit)
            .fetch_all(pool)
            .await?;
        rows.iter().map(Row::read).collect()
    }
}
