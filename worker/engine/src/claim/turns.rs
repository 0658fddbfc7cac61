//! Which lanes a claim looks at. A worker that serves a thousand participants has thousands of
//! lanes, and a look at an empty one costs as much as a claimed task.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::LaneReport;

/// Up to this many lanes, each claim looks at all.
const LANES_MAX: usize = 64;
/// Interval at which a claim looks at all lanes, however many there are.
const ALL_EVERY: Duration = Duration::from_secs(1);

/// The lanes in which something was due, and when all were looked at.
#[derive(Debug, Default)]
pub(super) struct Turns {
    looked_at_all: Option<Instant>,
    count: usize,
    busy: BTreeSet<i32>,
}

impl Turns {
    /// Returns the lanes of the next claim; `None` for all. `whole`: it looks at all, because a
    /// task may be due in any of them.
    pub(super) fn next(&mut self, whole: bool, nth: u32) -> Option<Vec<i32>> {
        let is_fresh = self.looked_at_all.is_some_and(|looked| looked.elapsed() < ALL_EVERY);
        if whole || self.count <= LANES_MAX || !is_fresh || self.busy.is_empty() {
            return None;
        }
        if self.busy.len() <= LANES_MAX {
            return Some(self.busy.iter().copied().collect());
        }
        // More busy lanes than one claim looks at take turns.
        let first = nth as usize * LANES_MAX % self.busy.len();
        Some(self.busy.iter().cycle().skip(first).take(LANES_MAX).copied().collect())
    }

    /// Remembers what a claim saw.
    pub(super) fn learn(&mut self, whole: bool, seen: &LaneReport, claimed: impl Iterator<Item = i32>) {
        if whole {
            self.looked_at_all = Some(Instant::now());
            self.count = seen.scanned.len();
            self.busy.clear();
        } else {
            self.busy.retain(|lane| !seen.scanned.contains_key(lane));
        }
        self.busy.extend(seen.due.iter().copied().chain(claimed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lanes: impl Iterator<Item = i32>, due: &[i32]) -> LaneReport {
        LaneReport::with(lanes, due)
    }

    #[tokio::test(start_paused = true)]
    async fn few_lanes_are_looked_at_each_time_and_of_many_the_busy_ones() {
        let mut turns = Turns::default();
        turns.learn(true, &report(1..=64, &[3]), [5].into_iter());
        assert_eq!(turns.next(false, 1), None, "all of 64 lanes");
        turns.learn(true, &report(1..=1000, &[3, 900]), [5, 5].into_iter());
        assert_eq!(turns.next(false, 1), Some(vec![3, 5, 900]));
        assert_eq!(turns.next(true, 1), None, "a notification says that any lane may have a task");
        turns.learn(false, &report([3, 5, 900].into_iter(), &[900]), [].into_iter());
        assert_eq!(turns.next(false, 2), Some(vec![900]));
        tokio::time::advance(ALL_EVERY).await;
        assert_eq!(turns.next(false, 3), None, "each lane once a second");
    }

    #[tokio::test(start_paused = true)]
    async fn more_busy_lanes_than_a_claim_looks_at_take_turns() {
        let mut turns = Turns::default();
        let due: Vec<i32> = (1..=200).collect();
        turns.learn(true, &report(1..=1000, &due), [].into_iter());
        let mut seen = BTreeSet::new();
        for nth in 1..=25 {
            let looked = turns.next(false, nth).unwrap();
            assert_eq!(looked.len(), LANES_MAX);
            seen.extend(looked);
        }
        assert_eq!(seen.len(), due.len());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_busy_lane_all_are_looked_at() {
        let mut turns = Turns::default();
        turns.learn(true, &report(1..=1000, &[]), [].into_iter());
        assert_eq!(turns.next(false, 1), None);
    }
}
