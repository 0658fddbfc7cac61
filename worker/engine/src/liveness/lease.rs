//! How long this worker may still believe that its claims hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The worker's own lease. It counts from before the last acknowledged heartbeat was *sent*, so it ends before anyone
/// else can have seen a whole lease of silence. Past it no call is started.
#[derive(Debug)]
pub(crate) struct Lease {
    origin: Instant,
    ends_us: AtomicU64,
    duration: Duration,
}

impl Lease {
    /// A lease that has not begun.
    pub(crate) fn new(duration: Duration) -> Lease {
        Lease { origin: Instant::now(), ends_us: AtomicU64::new(0), duration }
    }

    /// The time that a heartbeat buys.
    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// A heartbeat that was sent at `sent` has been acknowledged.
    pub(crate) fn renew(&self, sent: Instant) {
        // control: lease-from-sent
        let ends = sent.saturating_duration_since(self.origin) + self.duration;
        self.ends_us.fetch_max(ends.as_micros() as u64, Ordering::AcqRel);
    }

    /// Ends it at once: this worker was declared dead.
    pub(crate) fn end(&self) {
        self.ends_us.store(0, Ordering::Release);
    }

    /// Whether a call may be started now.
    pub(crate) fn holds(&self) -> bool {
        (self.origin.elapsed().as_micros() as u64) < self.ends_us.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_counts_from_before_the_heartbeat_was_sent() {
        let lease = Lease::new(Duration::from_secs(10));
        assert!(!lease.holds());
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(4)).await;
        lease.renew(sent);
        assert!(lease.holds());
        tokio::time::advance(Duration::from_millis(5_999)).await;
        assert!(lease.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!lease.holds(), "ten seconds after the heartbeat was sent");
        lease.renew(sent);
        assert!(!lease.holds(), "a heartbeat that took as long as the lease renews nothing");
        lease.renew(Instant::now());
        assert!(lease.holds());
        lease.end();
        assert!(!lease.holds());
    }
}
