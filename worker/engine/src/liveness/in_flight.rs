//! The tasks that this worker believes it holds. The database is authoritative; reconciling
//! compares the two.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One task that the worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The epoch that fences writes.
    pub(crate) epoch: i32,
    /// A call was started. The task can then only be settled or rescued, not released.
    pub(crate) started: bool,
}

/// The tasks that this worker holds, by id.
///
/// All entries belong to one worker id. A late call with a previous worker id has no effect,
/// because the task id may have been assigned again (see [`crate::liveness::identity`]).
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<Tasks>);

#[derive(Debug, Default)]
struct Tasks {
    worker: i64,
    entries: HashMap<i64, Entry>,
}

impl Tasks {
    fn of(&mut self, worker: i64) -> Option<&mut HashMap<i64, Entry>> {
        (self.worker == worker).then_some(&mut self.entries)
    }
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task after a claim or a settle. Returns false if the worker already holds the task,
    /// because its work must not start twice.
    pub(crate) fn take(&self, worker: i64, task: i64, epoch: i32) -> bool {
        self.lock()
            .of(worker)
            .is_some_and(|held| held.insert(task, Entry { epoch, started: false }).is_none())
    }

    /// Records a new epoch of the task, without a started call.
    pub(crate) fn advance(&self, worker: i64, task: i64, epoch: i32) {
        if let Some(held) = self.lock().of(worker) {
            held.insert(task, Entry { epoch, started: false });
        }
    }

    /// Records a new epoch of a task whose call was started.
    pub(crate) fn take_over(&self, worker: i64, task: i64, epoch: i32) {
        if let Some(entry) = self.lock().of(worker).and_then(|held| held.get_mut(&task)) {
            entry.epoch = epoch;
        }
    }

    /// Marks the task's call as started.
    pub(crate) fn start(&self, worker: i64, task: i64) {
        if let Some(entry) = self.lock().of(worker).and_then(|held| held.get_mut(&task)) {
            entry.started = true;
        }
    }

    /// Removes a task that was settled, released or lost.
    pub(crate) fn forget(&self, worker: i64, task: i64) {
        if let Some(held) = self.lock().of(worker) {
            held.remove(&task);
        }
    }

    /// Starts with a new worker id. All tasks of the previous id are dropped.
    pub(crate) fn begin(&self, worker: i64) {
        *self.lock() = Tasks { worker, entries: HashMap::new() };
    }

    /// Whether the worker holds the task, at any epoch.
    pub(crate) fn knows(&self, task: i64) -> bool {
        self.lock().entries.contains_key(&task)
    }

    /// Returns all tasks, sorted by id.
    pub(crate) fn all(&self) -> Vec<(i64, Entry)> {
        let mut all: Vec<_> = self.lock().entries.iter().map(|(id, entry)| (*id, *entry)).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// Returns the number of held tasks.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_late_with_an_old_id_changes_nothing() {
        let held = InFlight::default();
        held.begin(5);
        assert!(held.take(5, 17, 1));
        assert!(!held.take(5, 17, 1), "the same work does not start twice");
        held.begin(6);
        assert_eq!(held.len(), 0);
        assert!(held.take(6, 17, 1), "another saga's task under the same number");
        held.start(5, 17);
        held.advance(5, 17, 9);
        held.advance(5, 18, 1);
        held.forget(5, 17);
        assert!(!held.take(5, 19, 1));
        assert_eq!(held.all(), [(17, Entry { epoch: 1, started: false })]);
    }
}
