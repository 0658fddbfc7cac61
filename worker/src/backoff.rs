//! The only place that knows the `backoff` crate: waits between tries of a step, and between tries of the database.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::plan::{Wait, nominal_delay};

/// The longest wait between two tries of a step, unless the saga's own interval is longer (DESIGN.md §4). `Retry-After`
/// is held to it too.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);
/// The part by which a wait varies, up and down.
pub const JITTER: f64 = 0.2;

/// The wait before the next try of a step: doubling, ±20 %, at most five minutes. A participant's `Retry-After`
/// replaces the computed wait, shorter or longer.
pub fn retry_delay(wait: Wait, interval: Duration, retry_after: Option<Duration>) -> Duration {
    let cap = RETRY_DELAY_MAX.max(interval);
    if let Some(asked) = retry_after {
        return asked.min(cap);
    }
    let nominal = nominal_delay(wait, interval, cap);
    let mut policy = ExponentialBackoff {
        current_interval: nominal,
        initial_interval: nominal,
        randomization_factor: JITTER,
        multiplier: 1.0,
        max_interval: cap,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    policy.next_backoff().unwrap_or(nominal).min(cap)
}

/// Waits between tries of a database that does not answer: 50 ms, doubling to two seconds, for as long as it takes.
pub struct Reconnect(ExponentialBackoff);

impl Reconnect {
    /// Starts at the shortest wait.
    pub fn new() -> Reconnect {
        Reconnect(ExponentialBackoff {
            current_interval: Duration::from_millis(50),
            initial_interval: Duration::from_millis(50),
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: Duration::from_secs(2),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The next wait.
    pub fn pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(Duration::from_secs(2))
    }

    /// Back to the shortest wait, after something worked.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Reconnect::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_the_jitter_and_never_pass_the_cap() {
        let interval = Duration::from_secs(10);
        for counted in [1, 2, 3, 5, 6, 31, 32, 10_000, u32::MAX] {
            let nominal = nominal_delay(Wait::Backoff { counted }, interval, RETRY_DELAY_MAX);
            for _ in 0..200 {
                let delay = retry_delay(Wait::Backoff { counted }, interval, None);
                assert!(delay <= RETRY_DELAY_MAX, "{counted}: {delay:?}");
                assert!(
                    delay >= nominal.mul_f64(1.0 - JITTER - 0.001),
                    "{counted}: {delay:?} for {nominal:?}"
                );
                assert!(
                    delay <= nominal.mul_f64(1.0 + JITTER + 0.001),
                    "{counted}: {delay:?} for {nominal:?}"
                );
            }
        }
        assert_eq!(
            nominal_delay(Wait::Backoff { counted: 3 }, interval, RETRY_DELAY_MAX),
            Duration::from_secs(40)
        );
    }

    #[test]
    fn ongoing_keeps_the_interval_and_retry_after_replaces_it() {
        let delay = retry_delay(Wait::Interval, Duration::from_secs(10), None);
        assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&delay));
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(retry_delay(Wait::Interval, Duration::from_secs(10), asked(1)), Duration::from_secs(1));
        assert_eq!(retry_delay(Wait::Interval, Duration::from_secs(10), asked(0)), Duration::ZERO);
        assert_eq!(retry_delay(Wait::Interval, Duration::from_secs(10), asked(9999)), RETRY_DELAY_MAX);
    }

    #[test]
    fn an_interval_longer_than_the_cap_is_its_own_cap() {
        let day = Duration::from_secs(86_400);
        for counted in [1, 2, 10] {
            let delay = retry_delay(Wait::Backoff { counted }, day, None);
            assert!((day.mul_f64(0.79)..=day).contains(&delay), "{delay:?}");
        }
    }
}
