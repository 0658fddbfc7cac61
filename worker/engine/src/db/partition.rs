//! Whether the history has a partition for every saga whose outcome this worker records.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::class::is_missing_partition;

/// State of the history's partitions, as statements of this worker saw it.
#[derive(Debug, Default)]
pub(super) struct Partition {
    is_missing: AtomicBool,
    failed: Notify,
}

impl Partition {
    /// Remembers that a statement failed for want of a partition, says so once, and wakes who
    /// creates partitions.
    pub(super) fn saw(&self, error: &sqlx::Error) {
        if !is_missing_partition(error) {
            return;
        }
        if !self.is_missing.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, "the history has no partition for a saga: its outcome cannot be recorded yet");
        }
        self.failed.notify_one();
    }

    pub(super) fn is_missing(&self) -> bool {
        self.is_missing.load(Ordering::Acquire)
    }

    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    pub(super) fn made(&self) {
        if self.is_missing.swap(false, Ordering::AcqRel) {
            tracing::info!("the history has every partition that its sagas need");
        }
    }
}
