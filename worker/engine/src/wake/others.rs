//! Wakes other workers for tasks that this worker leaves to them.

use std::collections::BTreeSet;

use pgsaga_sql::contract::NamedUrl;
use pgsaga_sql::query;

use crate::db::{Db, PoolKind};

#[derive(Debug, Default)]
pub(crate) struct Others(BTreeSet<String>);

impl Others {
    /// Adds the workers that may call a task's participant: those that serve a named one, else any.
    pub(crate) fn add(&mut self, participant: &str) {
        let is_named = participant.starts_with(NamedUrl::SCHEME);
        self.0.insert(if is_named { participant.to_owned() } else { String::new() });
    }

    /// Whether there is nobody to wake.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notifies them. Where that fails, their next poll finds the tasks.
    pub(crate) async fn wake(self, db: &Db) {
        for participant in self.0 {
            let statement = sqlx::query(query::WAKE).bind(participant);
            if let Err(error) = db.run(PoolKind::Control, statement).await {
                db.failed("wake others", &error);
                return;
            }
        }
    }
}
