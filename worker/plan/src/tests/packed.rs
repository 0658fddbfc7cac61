//! States as a few numbers, to remember that they were visited.

use super::super::*;
use super::model::{Holder, Model, Past, Repeat, Row, STEPS_MAX, Seen, Step};

/// Small values, one after the other.
#[derive(Default)]
struct Bits {
    bits: u64,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, width: u32) {
        debug_assert!(value < 1 << width);
        self.bits |= u64::from(value) << self.used;
        self.used += width;
        debug_assert!(self.used <= 64);
    }

    fn flag(&mut self, value: bool) {
        self.put(u32::from(value), 1);
    }

    fn outcome(&mut self, outcome: Option<Outcome>) {
        self.put(outcome.map_or(0, |outcome| outcome as u32 + 1), 3);
    }

    fn interrupt(&mut self, interrupt: Option<Interrupt>) {
        self.put(interrupt.map_or(0, |interrupt| interrupt as u32 + 1), 2);
    }

    /// Without its step: that is where it is.
    fn attempt(&mut self, now: Option<&Attempt>) {
        let Some(now) = now else { return };
        self.put(now.op as u32, 1);
        self.put(now.attempt, 2);
        self.put(now.counted, 2);
        self.flag(now.unknown_before);
        self.outcome(now.last);
    }

    fn row(&mut self, row: &Row) {
        self.interrupt(row.interrupt);
        self.interrupt(row.known);
        self.put(row.holder as u32, 2);
        for flag in [row.killer, row.forgotten, row.callable, row.unseen, row.marked, row.knows_mark] {
            self.flag(flag);
        }
        self.put(row.wait as u32, 2);
    }

    fn past(&mut self, past: &Past) {
        self.put(past.tries, 2);
        self.put(past.counted, 2);
        self.outcome(past.last);
        for flag in [past.unknown, past.refused, past.accepted, past.success, past.skipped] {
            self.flag(flag);
        }
    }
}

impl Step {
    pub(super) fn packed(&self) -> u64 {
        let mut bits = Bits::default();
        bits.put(self.state as u32, 4);
        bits.flag(self.happened);
        bits.past(&self.action);
        bits.past(&self.compensation);
        for completion in self.completions {
            bits.put(completion.map_or(0, |completion| completion as u32 + 1), 2);
        }
        // A step that needs a person has no task.
        bits.flag(self.stuck.is_some());
        bits.attempt(self.stuck.as_ref());
        bits.flag(self.row.is_some());
        bits.attempt(self.row.as_ref().map(|row| &row.now));
        if let Some(row) = &self.row {
            bits.row(row);
        }
        bits.bits
    }
}

impl Model {
    /// All of it; states differ exactly where this does.
    pub(super) fn packed(&self) -> [u64; STEPS_MAX + 4] {
        let mut bits = Bits::default();
        for flag in
            [self.abort_requested, self.aborting, self.unwinds, self.forced, self.overdue, self.aborts_now]
        {
            bits.flag(flag);
        }
        bits.put(self.ended.map_or(0, |end| end as u32 + 1), 2);
        let left = self.left;
        for count in [left.aborts, left.deadlines, left.deaths, left.lost_replies, left.decisions] {
            bits.put(u32::from(count), 2);
        }
        bits.put(u32::from(left.completions), 2);
        bits.put(u32::from(left.accepted), 2);
        let [one, two, three, four, five] = self.steps.map(|step| step.packed());
        let [seen, other] = self.seen.map(|seen| seen.as_ref().map_or(0, Seen::packed));
        let repeat = self.repeat.as_ref().map_or(0, Repeat::packed);
        [bits.bits, one, two, three, four, five, repeat, seen, other]
    }
}

impl Repeat {
    fn packed(&self) -> u64 {
        let mut bits = Bits::default();
        bits.flag(self.worker == Holder::Two);
        bits.put(self.at as u32, 3);
        bits.put(self.now.step as u32, 3);
        bits.attempt(Some(&self.now));
        bits.outcome(Some(self.outcome));
        bits.bits
    }
}

impl Seen {
    fn packed(&self) -> u64 {
        let mut bits = Bits::default();
        for state in self.states {
            bits.put(state as u32, 4);
        }
        bits.flag(self.abort_requested);
        bits.flag(self.version_holds);
        bits.flag(true);
        bits.bits
    }
}
