//! How much one worker does at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// Upper bound on the bytes of definitions that a worker holds. A larger saga is held alone.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The slots and the memory of one worker.
#[derive(Debug)]
pub(crate) struct Capacity {
    /// Upper bound on the calls in flight.
    pub(crate) calls_max: usize,
    /// Upper bound on the tasks held: those in flight, a small prefetch, and those to be settled.
    pub(crate) tasks_max: usize,
    /// One permit for each task that may be held.
    pub(crate) task_slots: Arc<Semaphore>,
    /// One permit for each call that may run. An isolated task takes all of them.
    pub(crate) call_slots: Semaphore,
    /// The bytes of the definitions held.
    pub(crate) memory: MemoryUse,
}

impl Capacity {
    pub(crate) fn new(calls_max: usize, tasks_max: usize) -> Capacity {
        Capacity {
            calls_max,
            tasks_max,
            task_slots: Arc::new(Semaphore::new(tasks_max)),
            call_slots: Semaphore::new(calls_max),
            memory: MemoryUse::default(),
        }
    }

    /// Whether fewer than an eighth of the task slots are free.
    pub(crate) fn is_full(&self) -> bool {
        self.task_slots.available_permits() < self.tasks_max / 8
    }

    /// Bytes of definitions that may still be claimed.
    pub(crate) fn free_memory(&self) -> usize {
        MEMORY_BYTES_MAX.saturating_sub(self.memory.0.load(Ordering::Acquire))
    }
}

/// The bytes of definitions that a worker holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryUse(Arc<AtomicUsize>);

impl MemoryUse {
    /// Adds a definition, until the share is dropped.
    pub(crate) fn add(&self, bytes: usize) -> MemoryShare {
        self.0.fetch_add(bytes, Ordering::AcqRel);
        MemoryShare { memory: self.clone(), bytes }
    }
}

/// One definition's share of the memory.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    memory: MemoryUse,
    bytes: usize,
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
