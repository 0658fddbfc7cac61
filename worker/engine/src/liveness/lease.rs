//! How long this worker may still believe that its claims hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The worker's own lease. It counts from before the last acknowledged heartbeat was *sent*, so it ends before anyone
/// else can have seen a whole lease of silence. Past it no call is started.
#[derive(Debug)]
pub struct Lease {
    origin: Instant,
    ends_us: AtomicU64,
    duration: Duration,
}

impl Lease {
    /// A lease that has not begun.
    pub fn new(duration: Duration) -> Lease {
        Lease { origin: Instant::now(), ends_us: AtomicU64::new(0), duration }
    }

    /// A heartbeat that was sent at `sent` has been acknowledged.
    pub fn renew(&self, sent: Instant) {
        let ends = sent.saturating_duration_since(self.origin) + self.duration;
        self.ends_us.fetch_max(ends.as_micros() as u64, Ordering::AcqRel);
    }

    /// Ends it at once: this worker was declared dead.
    pub fn end(&self) {
        self.ends_us.store(0, Ordering::Release);
    }

    /// Whether a call may be started now.
    pub fn holds(&self) -> bool {
        (self.origin.elapsed().as_micros() as u64) < self.ends_us.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_before_the_heartbeat_was_sent() {
        let lease = Lease::new(Duration::from_secs(10));
        assert!(!lease.holds());
        lease.renew(lease.origin - Duration::from_secs(0));
        assert!(lease.holds());
        lease.end();
        assert!(!lease.holds());
        let short = Lease::new(Duration::from_millis(50));
        let sent = Instant::now();
        while sent.elapsed() < short.duration {
            std::thread::yield_now();
        }
        short.renew(sent);
        assert!(!short.holds(), "a heartbeat that took as long as the lease renews nothing");
    }
}
