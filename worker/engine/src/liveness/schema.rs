//! A newer release may migrate the database under a running worker: that is how a fleet is upgraded. A version whose name
//! starts with `expand_` promises that workers of the release before may go on beside it; next to any other, this worker
//! could misread what newer ones write. It then claims, calls and rescues nothing, gives back what it has not started,
//! settles the calls that run, is not ready, and waits to be replaced.

use std::sync::atomic::{AtomicI64, Ordering};

use pgsaga_sql::SCHEMA_VERSION;

/// State of the schema according to the last heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    newer: AtomicI64,
    expanded: AtomicI64,
}

impl Schema {
    /// A heartbeat has seen the newest version that is unknown here, if any, of those that forbid to go on and of those that do
    /// not. Each change is logged once. True when this worker may go on again.
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
