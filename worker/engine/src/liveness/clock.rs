//! The database's clock, as a worker knows it. Workers sign calls and read dates by this clock,
//! because a worker's own clock may be wrong, and differs from worker to worker.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};

/// Difference between the worker's and the database's clock above which the worker warns.
/// Participants accept signatures that are some minutes old.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// The database's clock. It runs on by the worker's monotonic clock.
#[derive(Debug)]
pub(crate) struct DatabaseClock(Mutex<Read>);

/// The last time that was read from the database.
#[derive(Debug, Clone, Copy)]
struct Read {
    time: SystemTime,
    at: Instant,
    is_skewed: bool,
}

impl Default for DatabaseClock {
    /// A clock that was not read yet. A worker reads it when it registers, before its first call.
    fn default() -> DatabaseClock {
        let read = Read { time: SystemTime::UNIX_EPOCH, at: Instant::now(), is_skewed: false };
        DatabaseClock(Mutex::new(read))
    }
}

impl DatabaseClock {
    /// Records what the database replied to a statement that was sent at `sent`. Returns by how
    /// many seconds the worker's clock, which shows `own`, is ahead.
    pub(crate) fn learn(&self, replied: DateTime<Utc>, sent: Instant, own: SystemTime) -> f64 {
        // The database read its clock between the two moments.
        let at = sent + sent.elapsed() / 2;
        let mut read = self.lock();
        read.time = replied.into();
        read.at = at;
        let expected = read.time + at.elapsed();
        let ahead = match own.duration_since(expected) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        // control: clock-skew
        let is_skewed = ahead.abs() > SKEW_MAX.as_secs_f64();
        if is_skewed != std::mem::replace(&mut read.is_skewed, is_skewed) {
            if is_skewed {
                tracing::warn!(
                    seconds_ahead = ahead,
                    "the clocks of this worker and of the database differ by more than a second; calls are signed by the database's clock"
                );
            } else {
                tracing::info!("the clocks of this worker and of the database agree again");
            }
        }
        ahead
    }

    /// Returns the time of the database now.
    pub(crate) fn now(&self) -> SystemTime {
        let read = *self.lock();
        read.time + read.at.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_databases_and_the_skew_has_a_sign() {
        let clock = DatabaseClock::default();
        let replied = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        for skew in [-600.0, -0.5, 0.0, 0.5, 600.0_f64] {
            let own = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_700_000_000.0 + skew);
            let ahead = clock.learn(replied, Instant::now(), own);
            assert!((ahead - skew).abs() < 0.4, "{ahead} for {skew}");
            let since = clock.now().duration_since(replied.into()).unwrap();
            assert!(since < Duration::from_secs(60), "{since:?}");
        }
    }
}
