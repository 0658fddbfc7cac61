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
///
/// They are those of one worker id: whoever comes late with another changes nothing, though the number of his task may be
/// given again (see [`crate::liveness::identity`]).
#[derive(Debug, Default)]
pub struct Held(Mutex<Tasks>);

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

impl Held {
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim or a settle gave this worker a task. False when it already held that very task: the same work must not
    /// start twice.
    pub fn take(&self, worker: i64, task: i64, epoch: i32) -> bool {
        self.lock()
            .of(worker)
            .is_some_and(|held| held.insert(task, Entry { epoch, started: false }).is_none())
    }

    /// The task moved on under this worker: a new epoch, nothing started.
    pub fn advance(&self, worker: i64, task: i64, epoch: i32) {
        if let Some(held) = self.lock().of(worker) {
            held.insert(task, Entry { epoch, started: false });
        }
    }

    /// The row of a call that was started has another epoch.
    pub fn take_over(&self, worker: i64, task: i64, epoch: i32) {
        if let Some(entry) = self.lock().of(worker).and_then(|held| held.get_mut(&task)) {
            entry.epoch = epoch;
        }
    }

    /// Its call begins.
    pub fn start(&self, worker: i64, task: i64) {
        if let Some(entry) = self.lock().of(worker).and_then(|held| held.get_mut(&task)) {
            entry.started = true;
        }
    }

    /// Settled, handed back, or gone.
    pub fn forget(&self, worker: i64, task: i64) {
        if let Some(held) = self.lock().of(worker) {
            held.remove(&task);
        }
    }

    /// A new id: nothing that the old one held is its own any more.
    pub fn begin(&self, worker: i64) {
        *self.lock() = Tasks { worker, entries: HashMap::new() };
    }

    /// Whether the task is known, at whatever epoch.
    pub fn knows(&self, task: i64) -> bool {
        self.lock().entries.contains_key(&task)
    }

    /// A copy, ascending by id.
    pub fn all(&self) -> Vec<(i64, Entry)> {
        let mut all: Vec<_> = self.lock().entries.iter().map(|(id, entry)| (*id, *entry)).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_late_with_an_old_id_changes_nothing() {
        let held = Held::default();
        held.begin(5);
        assert!(held.take(5, 17, 1));
        assert!(!held.take(5, 17, 1), "the same work does not start twice");
        held.begin(6);
        assert!(held.is_empty());
        assert!(held.take(6, 17, 1), "another saga's task under the same number");
        held.start(5, 17);
        held.advance(5, 17, 9);
        held.advance(5, 18, 1);
        held.forget(5, 17);
        assert!(!held.take(5, 19, 1));
        assert_eq!(held.all(), [(17, Entry { epoch: 1, started: false })]);
    }
}
