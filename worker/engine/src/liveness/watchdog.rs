//! When a loop last came around.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The last turn of a loop, for whoever looks whether it still turns.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    /// The loop comes around now.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago that was last; `None` before the first time.
    pub fn silence(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}
