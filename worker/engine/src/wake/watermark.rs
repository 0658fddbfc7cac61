//! The low-water mark of the claim: where its scan of `task_lane_run_at` may start, so that it does not walk over every dead
//! row while somebody holds an old snapshot or an old transaction (DESIGN.md §7, RACES 18).
//!
//! Why it is sound. A row is missed only if it becomes visible, unclaimed, with `run_at` below the mark.
//! * Every writer raises `run_at` to the clock *after* its transaction has an xid (it has locked or written rows before).
//! * A sample is a time T from one claim and the `xmax` of a *later* claim's snapshot: each transaction that took a
//!   `run_at` below T had its xid before T, hence below that xmax.
//! * Once every one of those has ended, what they committed is visible, so the oldest unclaimed row of that snapshot bounds
//!   what can still be claimed below T.
//!
//! A transaction may stay open for hours, and no row that died after it began can be vacuumed. So the mark does not wait for it
//! longer than a second: it goes on, and remembers which transactions it passed. When one of them has ended, the next claim
//! starts once from where the mark was before it passed any: what that transaction committed is found there.
//!
//! A clock that steps back breaks the second point. The mark is dropped when a claim's clock is behind an earlier one, and on
//! every error of the connection. A step that is shorter than the time between two claims does not show; but neither does it
//! make a `run_at` that lies further behind than that time, so every few seconds a claim starts that much further back.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// A transaction that is open for so long is passed.
const PASS_AFTER: TimeDelta = TimeDelta::seconds(1);
/// Claims that look behind the mark are at least so far apart: each may walk over all that nobody can vacuum.
const LOOK_BACK_EVERY: TimeDelta = TimeDelta::milliseconds(100);

/// What a claim's header says.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The database's clock during the claim.
    pub now: DateTime<Utc>,
    /// Transactions that were running.
    pub running: Vec<i64>,
    /// No transaction at or above it had started.
    pub xmax: i64,
    /// Where this claim's scan started.
    pub from: DateTime<Utc>,
    /// `run_at` of the first unclaimed row at or after that, in this claim's snapshot.
    pub lowest: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy)]
enum Sample {
    /// A time; the next claim adds its xmax.
    Time(DateTime<Utc>),
    /// What took a `run_at` below `time` has an xid below `xmax`.
    Pending { time: DateTime<Utc>, xmax: i64 },
}

/// The mark of one lane.
#[derive(Debug, Default)]
pub struct Mark {
    at: Option<DateTime<Utc>>,
    sample: Option<Sample>,
    latest: Option<DateTime<Utc>>,
    /// Open transactions that it passed, and where it was before.
    passed: HashSet<i64>,
    before: Option<DateTime<Utc>>,
    /// One of them has ended since the last look back.
    ended: bool,
    looked_back: Option<DateTime<Utc>>,
    /// Where the next claim starts, once.
    look_from: Option<DateTime<Utc>>,
}

impl Mark {
    /// Where the next claim may start.
    pub fn start(&self) -> DateTime<Utc> {
        self.look_from.or(self.at).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// The next claim starts so much further back.
    pub fn look_back(&mut self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        let from = self.at.and_then(|at| at.checked_sub_signed(by));
        self.look_from = self.look_from.into_iter().chain(from).min();
    }

    /// The next claim starts no later than there: something unclaimed lies before the mark, because
    /// somebody changed its `run_at` by hand.
    pub fn look_from(&mut self, lowest: DateTime<Utc>) {
        if self.at.is_some_and(|at| lowest < at) {
            self.look_from = self.look_from.into_iter().chain([lowest]).min();
        }
    }

    /// Forgets everything: the next claim scans from the beginning.
    pub fn reset(&mut self) {
        *self = Mark::default();
    }

    /// Learns from a claim that succeeded. Answers how soon the next one should look back, if it should.
    pub fn learn(&mut self, seen: &Seen) -> Option<Duration> {
        if self.latest.is_some_and(|latest| seen.now < latest) {
            self.reset();
        }
        self.latest = Some(seen.now);
        if self.look_from.is_some_and(|from| seen.from <= from) {
            self.look_from = None;
            // What lies there unclaimed holds the mark.
            self.at = self.at.into_iter().chain(seen.lowest).min();
            if self.before.is_some_and(|before| seen.from <= before) {
                self.ended = false;
                self.looked_back = Some(seen.now);
            }
        }
        let passed = self.passed.len();
        self.passed.retain(|xid| seen.running.contains(xid));
        self.ended |= self.passed.len() < passed;
        if self.passed.is_empty() && !self.ended {
            self.before = None;
        }
        self.sample = Some(match self.sample.take() {
            None => Sample::Time(seen.now),
            Some(Sample::Time(time)) => Sample::Pending { time, xmax: seen.xmax },
            Some(Sample::Pending { time, xmax }) => {
                let open = || seen.running.iter().copied().filter(|xid| *xid < xmax);
                if open().next().is_some() && seen.now - time < PASS_AFTER {
                    Sample::Pending { time, xmax }
                } else {
                    self.passed.extend(open());
                    if !self.passed.is_empty() {
                        self.before.get_or_insert(self.at.unwrap_or(DateTime::UNIX_EPOCH));
                    }
                    let bound = seen.lowest.map_or(time, |lowest| lowest.min(time));
                    self.at = Some(self.at.map_or(bound, |at| at.max(bound)));
                    Sample::Time(seen.now)
                }
            }
        });
        if !self.ended {
            return None;
        }
        let since = self.looked_back.map_or(LOOK_BACK_EVERY, |looked| seen.now - looked);
        if since >= LOOK_BACK_EVERY {
            self.look_from = self.look_from.into_iter().chain(self.before).min();
        }
        Some((LOOK_BACK_EVERY - since).to_std().unwrap_or_default())
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

    /// The next claim of each lane starts so much further back.
    pub fn look_back(&self, by: Duration) {
        self.marks().values_mut().for_each(|mark| mark.look_back(by));
    }

    /// The next claim of the lane starts no later than there.
    pub fn look_from(&self, lane: i32, lowest: DateTime<Utc>) {
        if let Some(mark) = self.marks().get_mut(&lane) {
            mark.look_from(lowest);
        }
    }

    /// Learns from a claim that succeeded. Answers how soon the next one should look back, if it should.
    pub fn learn(&self, lane: i32, seen: &Seen) -> Option<Duration> {
        self.marks().entry(lane).or_default().learn(seen)
    }
}

#[cfg(test)]
mod tests;
