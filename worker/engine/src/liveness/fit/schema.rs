//! What a newer schema means for a running worker. A fleet is upgraded by a migration under running
//! workers. A version whose name starts with `expand_` promises that workers of the release before
//! may continue. Beside any other version this worker could misread what newer workers write. So it
//! claims, calls and rescues nothing, releases the tasks that it has not started, settles the calls
//! in flight, is not ready, and waits to be replaced.

use std::sync::atomic::{AtomicI64, Ordering};

use pgsaga_sql::SCHEMA_VERSION;

/// State of the schema according to the last heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    newer: AtomicI64,
    expanded: AtomicI64,
}

impl Schema {
    /// Learns the newest unknown version that forbids this worker to continue, and the newest that
    /// allows it. Each change is logged once. Returns whether this worker may continue again.
    pub(crate) fn learn(&self, newer: Option<i64>, expanded: Option<i64>) -> bool {
        let (newer, expanded) = (newer.unwrap_or(0), expanded.unwrap_or(0));
        let known = SCHEMA_VERSION;
        if expanded > self.expanded.swap(expanded, Ordering::AcqRel) {
            tracing::info!(
                version = expanded,
                known,
                "a newer pgsaga has migrated the database, and lets workers of this release go on: upgrade this worker soon"
            );
        }
        match (self.newer.swap(newer, Ordering::AcqRel), newer) {
            (before, now) if before == now => false,
            (_, 0) => {
                tracing::info!(known, "the schema fits again: this worker goes on");
                true
            }
            _ => {
                tracing::error!(
                    version = newer,
                    known,
                    "a newer pgsaga has migrated the database: this worker claims nothing more, upgrade it"
                );
                false
            }
        }
    }

    /// Whether this worker may claim, call and rescue.
    pub(crate) fn fits(&self) -> bool {
        self.newer.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_forbids_it_stops_a_worker_and_only_its_end_wakes_it() {
        let schema = Schema::default();
        assert!(!schema.learn(None, None) && schema.fits());
        assert!(!schema.learn(None, Some(SCHEMA_VERSION + 1)) && schema.fits());
        assert!(!schema.learn(Some(SCHEMA_VERSION + 2), Some(SCHEMA_VERSION + 1)) && !schema.fits());
        assert!(!schema.learn(Some(SCHEMA_VERSION + 2), None) && !schema.fits());
        assert!(schema.learn(None, None) && schema.fits());
    }
}
