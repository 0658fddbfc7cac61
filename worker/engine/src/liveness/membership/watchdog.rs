//! Time of a loop's last iteration.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Detects a loop that no longer runs.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Mutex<Option<Instant>>);

impl Watchdog {
    /// Records an iteration of the loop.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns the time since the last iteration; `None` before the first one.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}
