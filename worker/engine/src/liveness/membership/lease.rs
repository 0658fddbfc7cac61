//! The worker's own view of its lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The worker's lease. It is counted from before the last acknowledged heartbeat was *sent*. It
/// therefore ends before another worker can observe a full lease of silence. After it expires, the
/// worker starts no call.
#[derive(Debug)]
pub(crate) struct Lease {
    origin: Instant,
    ends_us: AtomicU64,
    duration: Duration,
}

impl Lease {
    /// Creates an expired lease of this duration.
    pub(crate) fn new(duration: Duration) -> Lease {
        Lease { origin: Instant::now(), ends_us: AtomicU64::new(0), duration }
    }

    /// The time that a heartbeat buys.
    pub(crate) fn duration(&self) -> Duration {
        self.duration
    }

    /// Renews the lease after the heartbeat sent at `sent` was acknowledged.
    pub(crate) fn renew(&self, sent: Instant) {
        // control: lease-from-sent
        let ends = sent.saturating_duration_since(self.origin) + self.duration;
        self.ends_us.fetch_max(ends.as_micros() as u64, Ordering::AcqRel);
    }

    /// Ends the lease now, because this worker was declared dead.
    pub(crate) fn end(&self) {
        self.ends_us.store(0, Ordering::Release);
    }

    /// Whether the worker may start a call now.
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
