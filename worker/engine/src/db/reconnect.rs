//! The wait between two attempts to reach the database.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(2);

/// Waits from 50 ms, doubling to two seconds, for as long as the database is away.
pub(crate) struct Reconnect(ExponentialBackoff);

impl Reconnect {
    pub(crate) fn new() -> Reconnect {
        Reconnect(ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: MAX,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    pub(crate) fn pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(MAX)
    }

    /// Goes back to the shortest wait, after a success.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_of_the_database_stay_between_their_bounds_and_start_anew(failures in 0..100_usize) {
            let mut reconnect = Reconnect::new();
            for _ in 0..failures {
                let pause = reconnect.pause();
                prop_assert!((Duration::from_millis(25)..=Duration::from_millis(3001)).contains(&pause), "{pause:?}");
            }
            reconnect.reset();
            prop_assert!(reconnect.pause() <= Duration::from_millis(76));
        }
    }
}
