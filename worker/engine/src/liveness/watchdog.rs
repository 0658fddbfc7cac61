//! When a loop last came around.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The last turn of a loop, for whoever looks whether it still turns.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Mutex<Option<Instant>>);

impl Watchdog {
    /// The loop comes around now.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago that was last; `None` before the first time.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}
