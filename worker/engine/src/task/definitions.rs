//! The definitions of parallel sagas that this worker holds tasks of: a saga of a thousand steps is decoded once, not once
//! a task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::task::definition::Definition;

/// So many entries, and those that nobody holds any more are dropped.
const SWEEP_AT: usize = 1024;

/// Definitions by saga, for as long as a task holds them. They never change: `steps` is a snapshot of the INSERT.
#[derive(Debug, Default)]
pub struct Definitions(Mutex<HashMap<i64, Weak<Definition>>>);

impl Definitions {
    /// The definition of a saga, if a task holds it.
    pub fn get(&self, saga_id: i64) -> Option<Arc<Definition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&saga_id)?.upgrade()
    }

    /// Forgets all: the numbers of sagas may be given again.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Remembers it.
    pub fn keep(&self, saga_id: i64, definition: &Arc<Definition>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SWEEP_AT {
            known.retain(|_, definition| definition.strong_count() > 0);
        }
        known.insert(saga_id, Arc::downgrade(definition));
    }
}
