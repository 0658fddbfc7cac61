//! The definitions of parallel sagas whose tasks this worker holds: a saga of a thousand steps is
//! decoded once, not once for each task.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError, Weak};

use crate::execute::task::definition::Definition;

/// At this number of entries, those that no task holds any more are dropped.
const SWEEP_AT: usize = 1024;

/// Definitions by saga, for as long as a task holds them. A definition never changes, because
/// `steps` is a snapshot of the INSERT. The entries belong to one worker id: a worker that had to
/// register anew may meet another saga under the same number.
#[derive(Debug, Default)]
pub(crate) struct Definitions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    worker: i64,
    by_saga: HashMap<i64, Weak<Definition>>,
}

impl Definitions {
    /// Returns the definition of a saga if a task holds it.
    pub(crate) fn get(&self, worker: i64, saga_id: i64) -> Option<Arc<Definition>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_saga.get(&saga_id).filter(|_| known.worker == worker)?.upgrade()
    }

    /// Remembers the definition of a saga.
    pub(crate) fn keep(&self, worker: i64, saga_id: i64, definition: &Arc<Definition>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.worker != worker {
            *known = Known { worker, by_saga: HashMap::new() };
        }
        if known.by_saga.len() >= SWEEP_AT {
            known.by_saga.retain(|_, definition| definition.strong_count() > 0);
        }
        known.by_saga.insert(saga_id, Arc::downgrade(definition));
    }
}
