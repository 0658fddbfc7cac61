//! The share of time that a periodic statement may take.

use std::time::Duration;

/// Pauses between rounds of work, so that the work takes at most one part in `part` of the time.
pub(crate) struct Share {
    part: u32,
    last: Duration,
}

impl Share {
    pub(crate) const fn one_in(part: u32) -> Self {
        Share { part, last: Duration::ZERO }
    }

    /// The pause after a round that took `took`. The shorter of the last two rounds counts: a round
    /// that waited once, for a lock or a busy machine, does not put off the next one for minutes.
    pub(crate) fn pause_after(&mut self, took: Duration) -> Duration {
        let usual = took.min(self.last);
        self.last = took;
        usual * self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_secs(10);

    #[test]
    fn one_slow_round_does_not_put_off_the_next() {
        let mut share = Share::one_in(100);
        assert_eq!(share.pause_after(SLOW), Duration::ZERO, "nothing is known of the first round");
        assert_eq!(share.pause_after(QUICK), QUICK * 100);
        assert_eq!(share.pause_after(SLOW), QUICK * 100);
        assert_eq!(share.pause_after(QUICK), QUICK * 100);
    }

    #[test]
    fn slow_work_takes_its_share_only() {
        let mut share = Share::one_in(100);
        share.pause_after(SLOW);
        assert_eq!(share.pause_after(SLOW), SLOW * 100);
    }
}
