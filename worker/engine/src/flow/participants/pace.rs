//! How fast calls of a participant end.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_millis(100);

/// Counts the calls that end, in windows of 100 ms.
#[derive(Debug)]
pub(super) struct Pace {
    /// The beginning of the window.
    since: Instant,
    ended: usize,
    /// The same in the window before.
    before: usize,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { since: now, ended: 0, before: 0 }
    }

    pub(super) fn call_ended(&mut self, now: Instant) {
        let age = now - self.since;
        if age >= WINDOW {
            self.before = if age < 2 * WINDOW { self.ended } else { 0 };
            (self.since, self.ended) = (now, 0);
        }
        self.ended += 1;
    }

    /// Calls that end in 100 ms, as far as the last ones tell.
    pub(super) fn calls(&self, now: Instant) -> usize {
        let age = now - self.since;
        if age < WINDOW {
            self.ended.max(self.before)
        } else if age < 2 * WINDOW {
            self.ended
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_what_ended_lately_and_forgets() {
        let mut pace = Pace::new(Instant::now());
        assert_eq!(pace.calls(Instant::now()), 0);
        for _ in 0..30 {
            tokio::time::advance(Duration::from_millis(5)).await;
            pace.call_ended(Instant::now());
        }
        assert_eq!(pace.calls(Instant::now()), 19, "of the window before");
        tokio::time::advance(WINDOW).await;
        assert_eq!(pace.calls(Instant::now()), 11);
        tokio::time::advance(WINDOW).await;
        assert_eq!(pace.calls(Instant::now()), 0);
        pace.call_ended(Instant::now());
        assert_eq!(pace.calls(Instant::now()), 1);
    }
}
