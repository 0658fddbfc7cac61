//! Sagas page by page, from the newest backwards. Each page examines a bounded number of sagas.

use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgPool;

use super::all;
use super::list::Summary;
use crate::error::Error;
use crate::operate::filter::{self, Label};

/// Upper bound on the sagas that a page examines, whether they pass the filters or not: about 20 MB
/// of a table with usual rows.
const LOOKED_AT_MAX: i64 = 20_000;

/// A filter by status.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    Open,
    Status(SagaStatus),
}

impl Wanted {
    pub(crate) fn all() -> impl Iterator<Item = Wanted> {
        std::iter::once(Wanted::Open).chain(SagaStatus::ALL.map(Wanted::Status))
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Wanted::Open => "open",
            Wanted::Status(status) => status.as_str(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Search {
    pub(crate) status: Option<Wanted>,
    pub(crate) queue: Option<String>,
    pub(crate) labels: Vec<Label>,
    /// Text within the gid.
    pub(crate) text: Option<String>,
    /// Only sagas that were inserted before the saga with this id.
    pub(crate) before: Option<i64>,
}

pub(crate) struct Found {
    pub(crate) rows: Vec<Summary>,
    /// Whether the page is full and a further saga passes the filters.
    pub(crate) is_full: bool,
    /// Number of examined sagas, whether these are all sagas, and the last of them, if the page is
    /// not full.
    pub(crate) looked_at: i64,
    pub(crate) is_end: bool,
    pub(crate) last_id: Option<i64>,
    /// The gid of the saga whose whole gid is the text, however old the saga is.
    pub(crate) exact: Option<String>,
}

impl Search {
    /// Whether the search is for unfinished sagas, which are found by their tasks and stuck steps,
    /// however old they are.
    fn is_of_open(&self) -> bool {
        match self.status {
            Some(Wanted::Status(SagaStatus::Succeeded | SagaStatus::Failed)) | None => false,
            Some(Wanted::Open | Wanted::Status(_)) => true,
        }
    }

    /// Whether the search is for sagas with a task. A stuck saga without running steps has none.
    fn is_of_tasks(&self) -> bool {
        self.status != Some(Wanted::Status(SagaStatus::Stuck))
    }

    /// Returns a page of at most `rows_max` sagas.
    pub(crate) async fn run(self, pool: PgPool, rows_max: usize) -> Result<Found, Error> {
        let status = match self.status {
            None | Some(Wanted::Open) => None,
            Some(Wanted::Status(status)) => Some(status.as_str()),
        };
        let (label_keys, label_values) = filter::labels(&self.labels);
        let sagas = query::UiSagas {
            before_id: self.before,
            statuses: status.as_ref().map(std::slice::from_ref),
            queue: self.queue.as_deref(),
            label_keys: label_keys.as_deref(),
            label_values: &label_values,
            gid_part: self.text.as_deref(),
            looked_at_max: LOOKED_AT_MAX,
            shown_max: rows_max as i64 + 1,
        };
        let list = if self.is_of_open() {
            query::UiSagasOpen { sagas, with_tasks: self.is_of_tasks() }.query()
        } else {
            sagas.query()
        };
        // Not kept, because the plan fits only these filters.
        let mut rows: Vec<Summary> = all(&list.persistent(false).fetch_all(&pool).await?)?;
        let is_full = rows.len() > rows_max;
        rows.truncate(rows_max);
        let (mut looked_at, mut is_end, mut last_id) = (0, false, rows.last().map(|row| row.id));
        if !is_full {
            let looked = query::UiSagasLooked {
                before_id: self.before,
                looked_at_max: LOOKED_AT_MAX,
                only_open: self.is_of_open(),
                with_tasks: self.is_of_tasks(),
            };
            let looked = looked.query().persistent(false).fetch_one(&pool).await?;
            is_end = looked.try_get::<i64, _>("entries")? < LOOKED_AT_MAX;
            (looked_at, last_id) = (looked.try_get("looked_at")?, looked.try_get("last_id")?);
        }
        let exact = match &self.text {
            Some(gid) if !rows.iter().any(|row| row.gid == *gid) => {
                let found = sqlx::query(query::SHOW_SAGA).bind(gid).bind(false).fetch_optional(&pool).await?;
                found.map(|row| row.try_get("gid")).transpose()?
            }
            _ => None,
        };
        Ok(Found { rows, is_full, looked_at, is_end, last_id, exact })
    }
}
