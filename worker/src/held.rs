//! What this worker believes it holds. The database has the truth; reconcile compares the two.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One held task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The fence.
    pub epoch: i32,
    /// A call was started: it can no longer be handed back, only settled or rescued.
    pub started: bool,
}

/// The tasks that this worker holds, by id.
#[derive(Debug, Default)]
pub struct Held(Mutex<HashMap<i64, Entry>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim or a settle gave this worker a task. False when it already held that very task: the same work must not
    /// start twice.
    pub fn take(&self, task: i64, epoch: i32) -> bool {
        self.lock().insert(task, Entry { epoch, started: false }).is_none()
    }

    /// The task moved on under this worker: a new epoch, nothing started.
    pub fn advance(&self, task: i64, epoch: i32) {
        self.lock().insert(task, Entry { epoch, started: false });
    }

    /// Its call begins.
    pub fn start(&self, task: i64) {
        if let Some(entry) = self.lock().get_mut(&task) {
            entry.started = true;
        }
    }

    /// Settled, handed back, or gone.
    pub fn forget(&self, task: i64) {
        self.lock().remove(&task);
    }

    /// This worker was declared dead: nothing of it is its own any more.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    /// Whether the task is known, at whatever epoch.
    pub fn knows(&self, task: i64) -> bool {
        self.lock().contains_key(&task)
    }

    /// A copy, ascending by id.
    pub fn all(&self) -> Vec<(i64, Entry)> {
        let mut all: Vec<_> = self.lock().iter().map(|(id, entry)| (*id, *entry)).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
