//! The low-water mark of the claim: where its scan of `task_run_at` may start, so that it does not walk over every dead
//! row while somebody holds an old snapshot (DESIGN.md §7, RACES 18).
//!
//! Why it is sound. A row is missed only if it becomes visible, unclaimed, with `run_at` below the mark.
//! * Every writer raises `run_at` to the clock *after* its transaction has an xid (it has locked or written rows before).
//! * A sample is a time T from one claim and the `xmax` of a *later* claim's snapshot: each transaction that took a
//!   `run_at` below T had its xid before T, hence below that xmax.
//! * Once a snapshot's `xmin` has reached that xmax, all of those have ended: what they committed is visible, so the
//!   oldest unclaimed row of that snapshot bounds what can still be claimed below T.
//!
//! A clock that steps back breaks the second point; the mark is dropped when a claim's clock is behind an earlier one,
//! on every error of the connection, and once a lease in any case.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

/// What a claim's header says.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The database's clock during the claim.
    pub now: DateTime<Utc>,
    /// Every transaction below it has ended.
    pub xmin: i64,
    /// No transaction at or above it had started.
    pub xmax: i64,
    /// `run_at` of the first unclaimed row at or after the mark, in this claim's snapshot.
    pub lowest: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy)]
enum Sample {
    /// A time; the next claim adds its xmax.
    Time(DateTime<Utc>),
    /// Valid once xmin has reached `xmax`.
    Pending { time: DateTime<Utc>, xmax: i64 },
}

/// The mark of one lane.
#[derive(Debug, Default)]
pub struct Mark {
    at: Option<DateTime<Utc>>,
    sample: Option<Sample>,
    latest: Option<DateTime<Utc>>,
}

impl Mark {
    /// Where the next claim may start.
    pub fn start(&self) -> DateTime<Utc> {
        self.at.unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Forgets everything: the next claim scans from the beginning.
    pub fn reset(&mut self) {
        *self = Mark::default();
    }

    /// Learns from a claim that succeeded.
    pub fn learn(&mut self, seen: Seen) {
        if self.latest.is_some_and(|latest| seen.now < latest) {
            self.reset();
        }
        self.latest = Some(seen.now);
        self.sample = match self.sample.take() {
            None => Some(Sample::Time(seen.now)),
            Some(Sample::Time(time)) => Some(Sample::Pending { time, xmax: seen.xmax }),
            Some(Sample::Pending { time, xmax }) if seen.xmin >= xmax => {
                let bound = seen.lowest.map_or(time, |lowest| lowest.min(time));
                self.at = Some(self.at.map_or(bound, |at| at.max(bound)));
                Some(Sample::Time(seen.now))
            }
            pending => pending,
        };
    }
}

/// The marks of one worker, one a lane.
#[derive(Debug, Default)]
pub struct Marks(Mutex<HashMap<i32, Mark>>);

impl Marks {
    fn marks(&self) -> MutexGuard<'_, HashMap<i32, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lanes, and where their next scan may start.
    pub fn all(&self) -> (Vec<i32>, Vec<DateTime<Utc>>) {
        self.marks().iter().map(|(lane, mark)| (*lane, mark.start())).unzip()
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.marks().clear();
    }

    /// Learns from a claim that succeeded.
    pub fn learn(&self, lane: i32, seen: Seen) {
        self.marks().entry(lane).or_default().learn(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn seen(now: i64, xmin: i64, xmax: i64, lowest: Option<i64>) -> Seen {
        Seen { now: at(now), xmin, xmax, lowest: lowest.map(at) }
    }

    #[test]
    fn it_waits_for_every_transaction_that_could_still_commit_an_older_row() {
        let mut mark = Mark::default();
        mark.learn(seen(10, 100, 105, None));
        mark.learn(seen(11, 100, 110, None));
        for now in 12..20 {
            mark.learn(seen(now, 100, 200, None)); // transaction 100 is still open
            assert_eq!(mark.start(), DateTime::UNIX_EPOCH);
        }
        mark.learn(seen(20, 110, 210, None));
        assert_eq!(mark.start(), at(10));
    }

    #[test]
    fn it_never_passes_an_unclaimed_row() {
        let mut mark = Mark::default();
        mark.learn(seen(10, 100, 100, None));
        mark.learn(seen(11, 101, 101, None));
        mark.learn(seen(12, 102, 102, Some(3)));
        assert_eq!(mark.start(), at(3));
    }

    #[test]
    fn a_clock_that_steps_back_drops_it() {
        let mut mark = Mark::default();
        for now in 10..20 {
            mark.learn(seen(now, 1000 + now, 1000 + now, None));
        }
        assert!(mark.start() > at(0));
        mark.learn(seen(5, 2000, 2000, None));
        assert_eq!(mark.start(), DateTime::UNIX_EPOCH);
    }
}
