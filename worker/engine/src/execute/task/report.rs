//! What `pgsaga.complete` reported of the op of a task.

use std::collections::HashMap;

use pgsaga_plan::Completion;
use pgsaga_sql::query;
use sqlx::Row as _;

use crate::db::{Db, PoolKind};

/// What was reported of a task's op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// The op's outcome.
    pub(crate) completion: Completion,
    /// The comment, for people.
    pub(crate) message: Option<String>,
    /// JSON for later steps, as Postgres prints it.
    pub(crate) answer: Option<String>,
}

impl Report {
    /// Reads what was reported of tasks whose rows bear a completion.
    ///
    /// # Errors
    /// Any error of the database.
    pub(crate) async fn read_all(
        db: &Db,
        marked: &HashMap<i64, Completion>,
    ) -> Result<HashMap<i64, Report>, sqlx::Error> {
        // Without its event, which only an edit by hand removes, a completion still counts.
        let bare = |(&id, &completion)| (id, Report { completion, message: None, answer: None });
        let mut reports: HashMap<i64, Report> = marked.iter().map(bare).collect();
        if marked.is_empty() {
            return Ok(reports);
        }
        let ids: Vec<i64> = marked.keys().copied().collect();
        for row in db.run(PoolKind::Work, sqlx::query(query::COMPLETIONS).bind(ids)).await? {
            if let Some(report) = reports.get_mut(&row.try_get("id")?) {
                (report.message, report.answer) = (row.try_get("message")?, row.try_get("answer")?);
            }
        }
        Ok(reports)
    }
}
