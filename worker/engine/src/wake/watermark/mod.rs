//! The watermark of a lane: the lower bound on `run_at` at which a claim's scan of
//! `task_lane_run_at` may start. Without the watermark, a claim would walk over all dead rows that
//! an old snapshot or transaction keeps from being vacuumed (docs/races.md, R18).
//!
//! Correctness: a row is missed only if it becomes visible and unclaimed with `run_at` below the
//! watermark.
//!
//! * A writer sets `run_at` to the clock or later, *after* its transaction has an xid: the
//!   transaction has locked or written rows before.
//! * A sample is a time T from one claim and the `xmax` of the snapshot of a *later* claim. A
//!   transaction that wrote a `run_at` below T had its xid before T, so its xid is below that
//!   `xmax`.
//! * Once all these transactions have ended, their rows are visible. The oldest unclaimed row of
//!   that snapshot is then a lower bound on all rows below T that can still be claimed.
//!
//! A transaction may stay open for hours, and rows that died after its start cannot be vacuumed.
//! The watermark therefore waits for a transaction for at most one second. It then advances and
//! records the transactions that it passed. After one of them ends, one claim starts where the
//! watermark was before it passed any of them. That claim finds the rows that the transaction
//! committed.
//!
//! A clock that steps back breaks the second point. The watermark is reset when the clock of a
//! claim is behind that of an earlier claim, and on every connection error. A step shorter than the
//! time between two claims goes unnoticed, but lowers `run_at` by no more than that time. Every few
//! seconds a claim therefore starts that much earlier.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// Upper bound on the time for which the watermark waits for an open transaction.
const PASS_AFTER: TimeDelta = TimeDelta::seconds(1);
/// Minimum interval between claims that start before the watermark. Each of them may walk over all
/// rows that cannot be vacuumed.
const LOOK_BACK_EVERY: TimeDelta = TimeDelta::milliseconds(100);

/// The values that a claim returns for one lane.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The database's clock at the claim.
    pub(crate) now: DateTime<Utc>,
    /// Xids of the running transactions.
    pub(crate) running: Vec<i64>,
    /// Upper bound (exclusive) on the xids of transactions that had started.
    pub(crate) xmax: i64,
    /// The time at which this claim's scan started.
    pub(crate) from: DateTime<Utc>,
    /// `run_at` of the first unclaimed row at or after `from`, in this claim's snapshot.
    pub(crate) lowest: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy)]
enum Sample {
    /// A time. The next claim adds its `xmax`.
    Time(DateTime<Utc>),
    /// All transactions that wrote a `run_at` below `time` have an xid below `xmax`.
    Pending { time: DateTime<Utc>, xmax: i64 },
}

/// The watermark of one lane.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    at: Option<DateTime<Utc>>,
    sample: Option<Sample>,
    latest: Option<DateTime<Utc>>,
    /// Open transactions that the watermark passed, and its position before.
    passed: HashSet<i64>,
    before: Option<DateTime<Utc>>,
    /// A passed transaction has ended since the last look back.
    ended: bool,
    looked_back: Option<DateTime<Utc>>,
    /// Start of the next claim only.
    look_from: Option<DateTime<Utc>>,
}

impl Watermark {
    /// Returns the time at which the next claim starts its scan.
    pub(crate) fn start(&self) -> DateTime<Utc> {
        self.look_from.or(self.at).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// Makes the next claim start this much earlier.
    pub(crate) fn look_back(&mut self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        let from = self.at.and_then(|at| at.checked_sub_signed(by));
        self.look_from = self.look_from.into_iter().chain(from).min();
    }

    /// Makes the next claim start at `lowest` if that lies before the watermark. Such an unclaimed
    /// row exists only after someone changed its `run_at` by hand.
    pub(crate) fn look_from(&mut self, lowest: DateTime<Utc>) {
        if self.at.is_some_and(|at| lowest < at) {
            self.look_from = self.look_from.into_iter().chain([lowest]).min();
        }
    }

    /// Resets the watermark. The next claim scans from the beginning.
    pub(crate) fn reset(&mut self) {
        *self = Watermark::default();
    }

    /// Updates the lane's watermark after a successful claim. Returns the wait until the next look
    /// back, if one is due.
    pub(crate) fn learn(&mut self, seen: &Seen) -> Option<Duration> {
        // control: watermark-clock
        if self.latest.is_some_and(|latest| seen.now < latest) {
            self.reset();
        }
        self.latest = Some(seen.now);
        if self.look_from.is_some_and(|from| seen.from <= from) {
            self.look_from = None;
            // Unclaimed rows that were found there hold the watermark back.
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
                // control: watermark-waits
                if open().next().is_some() && seen.now - time < PASS_AFTER {
                    Sample::Pending { time, xmax }
                } else {
                    // control: watermark-passed
                    self.passed.extend(open());
                    if !self.passed.is_empty() {
                        self.before.get_or_insert(self.at.unwrap_or(DateTime::UNIX_EPOCH));
                    }
                    // control: watermark-unclaimed
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

/// The watermarks of one worker, by lane.
#[derive(Debug, Default)]
pub(crate) struct Watermarks(Mutex<HashMap<i32, Watermark>>);

impl Watermarks {
    fn lanes(&self) -> MutexGuard<'_, HashMap<i32, Watermark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lanes, and where their next scan may start.
    pub(crate) fn all(&self) -> (Vec<i32>, Vec<DateTime<Utc>>) {
        self.lanes().iter().map(|(lane, watermark)| (*lane, watermark.start())).unzip()
    }

    /// Returns the watermarks of these lanes; `None` for all.
    pub(crate) fn of(&self, looked: Option<&[i32]>) -> (Vec<i32>, Vec<DateTime<Utc>>) {
        let Some(looked) = looked else { return self.all() };
        let known = self.lanes();
        looked.iter().filter_map(|lane| Some((*lane, known.get(lane)?.start()))).unzip()
    }

    /// Resets the watermarks of all lanes.
    pub(crate) fn reset(&self) {
        self.lanes().clear();
    }

    /// Makes the next claim of each lane start this much earlier.
    pub(crate) fn look_back(&self, by: Duration) {
        self.lanes().values_mut().for_each(|watermark| watermark.look_back(by));
    }

    /// Makes the lane's next claim start at `lowest` if that lies before the watermark.
    pub(crate) fn look_from(&self, lane: i32, lowest: DateTime<Utc>) {
        if let Some(watermark) = self.lanes().get_mut(&lane) {
            watermark.look_from(lowest);
        }
    }

    /// Updates the lane's watermark after a successful claim. Returns the wait until the next look
    /// back, if one is due.
    pub(crate) fn learn(&self, lane: i32, seen: &Seen) -> Option<Duration> {
        self.lanes().entry(lane).or_default().learn(seen)
    }
}

#[cfg(test)]
mod tests;
