//! An open circuit breaker: which task makes the next probe call.
//!
//! Tasks of one participant may differ much: behind one gateway, one path hangs and another one
//! answers. If the oldest task always made the probe, those that would be answered could wait for
//! hours behind those that hang. So the most urgent class makes the probe, and within a class the
//! queues take turns.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Interval between the probe calls of an open breaker.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Upper bound on the lanes that hold a task ready for a probe.
const WAITING_MAX: usize = 16;
/// Upper bound on the time for which a task is held ready for a probe.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A queue and a class of priority, as pgsaga.lane has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) id: i32,
    /// The class; the lowest is the most urgent.
    pub(crate) priority: i16,
}

/// An open breaker.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) since: Instant,
    pub(super) probe_at: Instant,
    /// Lanes with a task that waits for its turn, and since when.
    waiting: Vec<(Lane, Instant)>,
    /// Number of the latest probe of each lane.
    probes: HashMap<i32, u64>,
    count: u64,
}

/// Decision on a task that asks for the next probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Probe,
    Wait,
    Defer,
}

impl Open {
    pub(super) fn new(now: Instant) -> Open {
        let (waiting, probes) = (Vec::new(), HashMap::new());
        Open { since: now, probe_at: now + PROBE_EVERY, waiting, probes, count: 0 }
    }

    /// Decides for a task of this lane. One task of each lane may wait for its turn.
    pub(super) fn ask(&mut self, lane: Lane, is_waiting: bool, now: Instant) -> Turn {
        // control: probe-turns
        let is_best = self.waiting.iter().all(|(other, _)| self.rank(lane) <= self.rank(*other));
        if now >= self.probe_at && is_best {
            self.leave(lane);
            self.count += 1;
            self.probes.insert(lane.id, self.count);
            self.probe_at = now + PROBE_EVERY;
            return Turn::Probe;
        }
        match self.waiting.iter().find(|(other, _)| *other == lane) {
            Some((_, since)) if is_waiting && now - *since < WAIT_MAX => Turn::Wait,
            Some(_) if is_waiting => {
                self.leave(lane);
                Turn::Defer
            }
            None if self.waiting.len() < WAITING_MAX => {
                self.waiting.push((lane, now));
                Turn::Wait
            }
            Some(_) | None => Turn::Defer,
        }
    }

    /// Whether a task of this lane may make the next probe, or wait for one.
    pub(super) fn has_place(&self, lane: Lane, now: Instant) -> bool {
        let is_waiting = self.waiting.iter().any(|(other, _)| *other == lane);
        now >= self.probe_at || !is_waiting && self.waiting.len() < WAITING_MAX
    }

    /// Ends the wait of the lane's task.
    pub(super) fn leave(&mut self, lane: Lane) {
        self.waiting.retain(|(other, _)| *other != lane);
    }

    /// The lowest rank makes the next probe.
    fn rank(&self, lane: Lane) -> (i16, u64) {
        (lane.priority, self.probes.get(&lane.id).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANGING: Lane = Lane { id: 1, priority: 1 };
    const ANSWERED: Lane = Lane { id: 2, priority: 1 };
    const URGENT: Lane = Lane { id: 3, priority: 0 };

    #[test]
    fn queues_take_turns_and_one_task_of_each_waits() {
        let start = Instant::now();
        let mut open = Open::new(start);
        assert_eq!(open.ask(HANGING, false, start), Turn::Wait);
        assert_eq!(open.ask(HANGING, false, start), Turn::Defer, "one waits already");
        let mut now = start + PROBE_EVERY;
        assert_eq!(open.ask(HANGING, true, now), Turn::Probe);
        assert_eq!(open.ask(ANSWERED, false, now), Turn::Wait);
        for turn in 0..6 {
            now += PROBE_EVERY;
            let (mine, other) = if turn % 2 == 0 { (ANSWERED, HANGING) } else { (HANGING, ANSWERED) };
            assert_eq!(open.ask(other, false, now), Turn::Wait, "{turn}");
            assert_eq!(open.ask(mine, true, now), Turn::Probe, "{turn}");
            assert_eq!(open.ask(mine, false, now), Turn::Wait, "the interval, {turn}");
            open.leave(mine);
        }
    }

    #[test]
    fn the_most_urgent_class_makes_every_probe() {
        let mut now = Instant::now();
        let mut open = Open::new(now);
        for _ in 0..3 {
            assert_eq!(open.ask(HANGING, false, now), Turn::Wait);
            assert_eq!(open.ask(URGENT, false, now), Turn::Wait);
            now += PROBE_EVERY;
            assert_eq!(open.ask(HANGING, true, now), Turn::Wait);
            assert_eq!(open.ask(URGENT, true, now), Turn::Probe);
            open.leave(HANGING);
        }
    }

    #[test]
    fn a_task_whose_turn_does_not_come_goes_back_to_the_queue() {
        let start = Instant::now();
        let mut open = Open::new(start);
        assert_eq!(open.ask(HANGING, false, start), Turn::Wait);
        assert_eq!(open.ask(URGENT, false, start), Turn::Wait);
        let late = start + WAIT_MAX;
        assert_eq!(open.ask(HANGING, true, late), Turn::Defer);
        assert_eq!(open.ask(HANGING, false, late), Turn::Wait, "another one may wait");
    }

    #[test]
    fn few_lanes_hold_a_task_ready() {
        let start = Instant::now();
        let mut open = Open::new(start);
        let lane = |id| Lane { id, priority: 1 };
        let waiting = (0..100).filter(|id| open.ask(lane(*id), false, start) == Turn::Wait).count();
        assert_eq!(waiting, WAITING_MAX);
    }
}
