use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn seen(watermark: &Watermark, now: i64, running: &[i64], xmax: i64, lowest: Option<i64>) -> Seen {
    Seen { now: at(now), running: running.to_vec(), xmax, from: watermark.start(), lowest: lowest.map(at) }
}

fn learn(
    watermark: &mut Watermark,
    now: i64,
    running: &[i64],
    xmax: i64,
    lowest: Option<i64>,
) -> Option<Duration> {
    let seen = seen(watermark, now, running, xmax, lowest);
    watermark.learn(&seen)
}

#[test]
fn it_waits_a_second_for_transactions_that_could_still_commit_an_older_row() {
    let mut watermark = Watermark::default();
    let mut learn = |ms: i64, running: &[i64]| {
        let now = at(0) + TimeDelta::milliseconds(ms);
        let seen = Seen { now, running: running.to_vec(), xmax: 200, from: watermark.start(), lowest: None };
        watermark.learn(&seen);
        watermark.start()
    };
    assert_eq!(learn(0, &[100]), DateTime::UNIX_EPOCH);
    assert_eq!(learn(100, &[100]), DateTime::UNIX_EPOCH);
    assert_eq!(learn(900, &[100]), DateTime::UNIX_EPOCH, "transaction 100 is still open");
    assert_eq!(learn(950, &[]), at(0), "it has ended");
}

#[test]
fn it_never_passes_an_unclaimed_row() {
    let mut watermark = Watermark::default();
    learn(&mut watermark, 10, &[], 100, None);
    learn(&mut watermark, 11, &[], 101, None);
    learn(&mut watermark, 12, &[], 102, Some(3));
    assert_eq!(watermark.start(), at(3));
}

#[test]
fn a_transaction_that_stays_open_is_passed_and_looked_for_when_it_has_ended() {
    let mut watermark = Watermark::default();
    for now in 10..20 {
        assert_eq!(learn(&mut watermark, now, &[100], 200, None), None);
    }
    assert!(watermark.start() > at(10), "it went on");
    assert_eq!(learn(&mut watermark, 20, &[], 200, None), Some(Duration::ZERO), "look at once");
    assert_eq!(watermark.start(), DateTime::UNIX_EPOCH, "from where it was before");
    learn(&mut watermark, 21, &[], 200, Some(12));
    assert_eq!(watermark.start(), at(12), "and not past what lies there");
}

#[test]
fn a_clock_that_steps_back_drops_it() {
    let mut watermark = Watermark::default();
    for now in 10..20 {
        learn(&mut watermark, now, &[], 1000 + now, None);
    }
    assert!(watermark.start() > at(0));
    learn(&mut watermark, 5, &[], 2000, None);
    assert_eq!(watermark.start(), DateTime::UNIX_EPOCH);
}

/// A simulation: transactions that write due rows and end at random, and a worker that claims from
/// its watermark.
struct World {
    random: StdRng,
    now: DateTime<Utc>,
    next_xid: i64,
    /// Rows of open transactions, by xid.
    open: BTreeMap<i64, Vec<DateTime<Utc>>>,
    /// Committed, unclaimed rows, and the number of claims that missed each.
    due: Vec<(DateTime<Utc>, u32)>,
    watermark: Watermark,
    missed_max: u32,
    forgets_whom_it_passed: bool,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: StdRng::seed_from_u64(seed),
            now: at(0),
            next_xid: 100,
            open: BTreeMap::new(),
            due: Vec::new(),
            watermark: Watermark::default(),
            missed_max: 0,
            forgets_whom_it_passed: false,
        }
    }

    fn begin(&mut self) -> i64 {
        self.next_xid += 1;
        self.open.insert(self.next_xid, Vec::new());
        self.next_xid
    }

    fn step(&mut self, immortal: i64) {
        self.now += TimeDelta::milliseconds(self.random.random_range(0..200));
        match self.random.random_range(0..8) {
            0 => drop(self.begin()),
            1..=3 => {
                let now = self.now;
                if let Some(rows) = self.open.values_mut().choose(&mut self.random) {
                    rows.push(now);
                }
            }
            4 => {
                let ends = self.open.keys().copied().filter(|xid| *xid != immortal).choose(&mut self.random);
                if let Some(rows) = ends.and_then(|xid| self.open.remove(&xid)) {
                    self.due.extend(rows.into_iter().map(|row| (row, 0)));
                }
            }
            _ => self.claim(),
        }
    }

    fn claim(&mut self) {
        let from = self.watermark.start();
        let lowest = self.due.iter().map(|(row, _)| *row).filter(|row| *row >= from).min();
        let running = self.open.keys().copied().collect();
        // Claims up to three rows, the oldest first.
        self.due.sort_unstable();
        let mut room = 3;
        self.due.retain_mut(|(row, missed)| {
            if *row >= from && room > 0 {
                room -= 1;
                return false;
            }
            if *row < from {
                *missed += 1;
                self.missed_max = self.missed_max.max(*missed);
            }
            true
        });
        self.watermark.learn(&Seen { now: self.now, running, xmax: self.next_xid + 1, from, lowest });
        if self.forgets_whom_it_passed {
            self.watermark.passed.clear();
        }
    }

    /// Runs beside a transaction that never ends, then claims the remaining rows.
    fn run(&mut self) {
        let immortal = self.begin();
        for _ in 0..1000 {
            self.step(immortal);
        }
        for _ in 0..1000 {
            self.now += TimeDelta::milliseconds(50);
            self.claim();
        }
    }
}

#[test]
fn no_committed_row_is_missed_for_long_and_the_watermark_advances_beside_a_transaction_that_never_ends() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.run();
        assert_eq!(world.due, [], "seed {seed}: rows that no claim found");
        // The claim that learns of the end, and the claims before the next look back.
        assert!(world.missed_max <= 8, "seed {seed}: a row was missed by {} claims", world.missed_max);
        let behind = world.now - world.watermark.start();
        assert!(behind < TimeDelta::seconds(4), "seed {seed}: the watermark is {behind} behind");
    }
}

#[test]
fn without_a_look_back_rows_are_lost() {
    let lost = (0..50).any(|seed| {
        let mut world = World { forgets_whom_it_passed: true, ..World::new(seed) };
        world.run();
        !world.due.is_empty()
    });
    assert!(lost, "the simulation cannot fail");
}

#[test]
fn a_step_back_that_does_not_show_hides_a_row_only_until_the_next_look_back() {
    let mut watermark = Watermark::default();
    for now in 10..20 {
        learn(&mut watermark, now, &[], 1000 + now, None);
    }
    let (was, hidden) = (watermark.start(), at(13));
    assert!(was > hidden);
    watermark.look_back(Duration::from_secs(5));
    assert!(watermark.start() <= hidden, "one claim starts further back");
    learn(&mut watermark, 21, &[], 2000, Some(13));
    assert_eq!(watermark.start(), hidden, "and what it finds holds the watermark");
}
