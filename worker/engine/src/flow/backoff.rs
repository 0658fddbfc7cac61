//! The wait between two attempts of a step.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use pgsaga_plan::{Wait, nominal_delay};

/// Upper bound on the nominal wait between two attempts of a step. A longer `retry_interval` of the
/// saga raises the bound.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);
/// Lower bound on a wait requested by `Retry-After`. Without the bound, a participant that responds
/// with `Retry-After: 0` or a past date would be called again immediately. Each call writes a
/// history row.
pub(crate) const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Upper bound on a wait requested by `Retry-After`, before jitter. A participant must not be able
/// to delay a saga for years.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Jitter, as a fraction of the wait. A computed wait varies in both directions. A requested wait
/// that does not grow only becomes longer.
pub(crate) const JITTER: f64 = 0.2;

/// Returns the wait before the next attempt of a step.
///
/// Without `retry_after`, the wait is the nominal delay ±20 %. Its upper bound is five minutes or
/// the step's own interval, whichever is longer.
///
/// A participant's `Retry-After` (RFC 9110 §10.2.3) replaces the saga's interval, within one
/// second and one hour, and the wait is never shorter than that. After an attempt that counts (429,
/// 503), the wait is spread above what was asked for: by up to as much again, and twice that each
/// time the step is refused again, within the usual upper bound. A participant refuses many calls
/// at the same moment, and would have to refuse them all again if all came back together
/// (docs/performance.md). [`Wait::Interval`] (202, 425, a refusal to be confirmed) is spread by
/// 20 % and does not grow.
pub(crate) fn retry_delay(wait: Wait, interval: Duration, retry_after: Option<Duration>) -> Duration {
    let cap = RETRY_DELAY_MAX.max(interval);
    let Some(asked) = retry_after else {
        return spread(nominal_retry_delay(wait, interval), JITTER).min(cap);
    };
    // control: retry-after-least
    let asked = asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    let above = match wait {
        // control: retry-after-grows
        Wait::Backoff { .. } => nominal_delay(wait, asked, cap),
        Wait::Interval => asked.mul_f64(JITTER),
    };
    asked.saturating_add(spread(above / 2, 1.0))
}

/// Returns the wait before the next try of a step, without jitter.
pub fn nominal_retry_delay(wait: Wait, interval: Duration) -> Duration {
    nominal_delay(wait, interval, RETRY_DELAY_MAX.max(interval))
}

/// Returns a random duration between `1 - factor` and `1 + factor` times `middle`.
fn spread(middle: Duration, factor: f64) -> Duration {
    let mut policy = ExponentialBackoff {
        current_interval: middle,
        initial_interval: middle,
        randomization_factor: factor,
        multiplier: 1.0,
        max_interval: middle,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    policy.next_backoff().unwrap_or(middle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ATTEMPTS_MAX: u32 = 10_000;

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
        // Requested seconds, and the lower bound on the wait.
        for (asked, waited) in
            [(0, 1), (1, 1), (7, 7), (301, 301), (3600, 3600), (3601, 3600), (u64::MAX, 3600)]
        {
            let delay =
                retry_delay(Wait::Interval, Duration::from_secs(10), Some(Duration::from_secs(asked)));
            assert!(above_only(delay, Duration::from_secs(waited)), "{asked}: {delay:?}");
        }
    }

    #[test]
    fn retry_after_is_spread_above_what_was_asked_wider_each_time_a_step_is_refused() {
        let second = Some(Duration::ZERO);
        let interval = Duration::from_millis(20);
        for (counted, seconds) in
            [(0, 1), (1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (11, 300), (u32::MAX, 300)]
        {
            let wait = Wait::Backoff { counted };
            let delays: Vec<_> = (0..1000).map(|_| retry_delay(wait, interval, second)).collect();
            let most = RETRY_AFTER_MIN + Duration::from_secs(seconds);
            assert!(delays.iter().all(|delay| (RETRY_AFTER_MIN..=most).contains(delay)), "{counted}");
            // Each tenth of the range gets some of the 1,000 samples.
            for tenth in 0..10 {
                let from = RETRY_AFTER_MIN + Duration::from_secs(seconds) * tenth / 10;
                let to = from + Duration::from_secs(seconds) / 10;
                assert!(delays.iter().any(|delay| (from..=to).contains(delay)), "{counted}: {from:?}");
            }
            let delay = retry_delay(Wait::Interval, interval, second);
            assert!(above_only(delay, RETRY_AFTER_MIN), "ongoing does not grow: {delay:?}");
        }
        // The spread ends at the step's own interval if that is longer.
        let day = Duration::from_secs(86_400);
        let within = |delay: Duration, asked: Duration, spread| (asked..=asked + spread).contains(&delay);
        assert!(within(retry_delay(Wait::Backoff { counted: 40 }, day, second), RETRY_AFTER_MIN, day));
        for counted in [1, 2, 40] {
            let delay = retry_delay(Wait::Backoff { counted }, interval, Some(Duration::MAX));
            assert!(within(delay, RETRY_AFTER_MAX, RETRY_DELAY_MAX), "{counted}: {delay:?}");
        }
    }

    #[test]
    fn the_jitter_of_retry_after_is_spread_above_what_was_asked() {
        let asked = Duration::from_secs(40);
        let delays: Vec<f64> = (0..1000)
            .map(|_| retry_delay(Wait::Interval, Duration::from_secs(10), Some(asked)))
            .map(|delay| delay.as_secs_f64() / asked.as_secs_f64() - 1.0)
            .collect();
        for tenth in 0..10 {
            let from = JITTER * f64::from(tenth) / 10.0;
            assert!(delays.iter().any(|delay| (from..from + JITTER / 10.0).contains(delay)), "{from}");
        }
    }

    #[test]
    fn an_interval_longer_than_the_cap_is_its_own_cap() {
        let day = Duration::from_secs(86_400);
        for counted in [1, 2, 10] {
            let delay = retry_delay(Wait::Backoff { counted }, day, None);
            assert!((day.mul_f64(0.79)..=day).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn ten_thousand_attempts_grow_up_to_the_cap_and_stay_there() {
        for interval_ms in [1, 20, 10_000, 299_999, 300_001, 86_400_000] {
            let interval = Duration::from_millis(interval_ms);
            let cap = RETRY_DELAY_MAX.max(interval);
            let mut before = Duration::ZERO;
            for counted in (1..=ATTEMPTS_MAX).chain([u32::MAX - 1, u32::MAX]) {
                let wait = Wait::Backoff { counted };
                let nominal = nominal_delay(wait, interval, cap);
                assert!((before..=cap).contains(&nominal), "{interval:?}, {counted}: {nominal:?}");
                assert!(
                    within_jitter(retry_delay(wait, interval, None), nominal, cap),
                    "{interval:?}, {counted}"
                );
                before = nominal;
            }
            assert_eq!(before, cap, "{interval:?}");
        }
    }

    #[test]
    fn the_jitter_is_spread_over_all_of_its_range() {
        let nominal = Duration::from_secs(40);
        let delays: Vec<f64> = (0..1000)
            .map(|_| retry_delay(Wait::Backoff { counted: 3 }, Duration::from_secs(10), None))
            .map(|delay| delay.as_secs_f64() / nominal.as_secs_f64() - 1.0)
            .collect();
        // Each tenth of the range gets some of the 1,000 samples. The test fails by chance once in
        // 10^45 runs.
        for tenth in 0..10 {
            let from = JITTER * (f64::from(tenth) / 5.0 - 1.0);
            assert!(delays.iter().any(|delay| (from..from + JITTER / 5.0).contains(delay)), "{from}");
        }
    }

    /// Whether the wait is between `nominal` and `nominal` plus jitter, allowing for rounding.
    fn above_only(delay: Duration, nominal: Duration) -> bool {
        let most = nominal.mul_f64((1.0 + JITTER) * (1.0 + 1e-9)).saturating_add(Duration::from_nanos(2));
        (nominal..=most).contains(&delay)
    }

    fn within_jitter(delay: Duration, nominal: Duration, cap: Duration) -> bool {
        // Allows for rounding of floating-point nanoseconds.
        let least = nominal.mul_f64((1.0 - JITTER) * (1.0 - 1e-9)).saturating_sub(Duration::from_nanos(2));
        let most = nominal.mul_f64((1.0 + JITTER) * (1.0 + 1e-9)).saturating_add(Duration::from_nanos(2));
        delay <= cap && (least..=most).contains(&delay)
    }

    proptest! {
        #[test]
        fn every_wait_of_every_saga_is_within_the_jitter_and_the_cap(
            counted in prop_oneof![0..=ATTEMPTS_MAX, any::<u32>()],
            interval_us in 0..=86_400_000_000_u64,
        ) {
            let interval = Duration::from_micros(interval_us);
            let cap = RETRY_DELAY_MAX.max(interval);
            for wait in [Wait::Backoff { counted }, Wait::Interval] {
                let delay = retry_delay(wait, interval, None);
                prop_assert!(within_jitter(delay, nominal_delay(wait, interval, cap), cap), "{delay:?}");
            }
        }

        #[test]
        fn no_interval_and_no_retry_after_overflows(
            counted in any::<u32>(),
            interval in any::<Duration>(),
            asked in prop::option::of(prop_oneof![
                any::<Duration>(),
                any::<u64>().prop_map(Duration::from_secs),
                Just(Duration::MAX),
            ]),
        ) {
            let cap = RETRY_DELAY_MAX.max(interval);
            for wait in [Wait::Backoff { counted }, Wait::Interval] {
                let delay = retry_delay(wait, interval, asked);
                let Some(asked) = asked else {
                    prop_assert!(delay <= cap);
                    continue;
                };
                let asked = asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
                prop_assert!(delay >= asked, "{delay:?}");
                prop_assert!(delay <= asked.saturating_add(cap), "{delay:?}");
                prop_assert!(wait != Wait::Interval || above_only(delay, asked), "{delay:?}");
            }
        }
    }
}
