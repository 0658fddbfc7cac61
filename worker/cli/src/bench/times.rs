//! When sagas were committed and first called, by this process's own clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The gids of the bench: a prefix and a number, with zeros, so that they are in the order of their insertion as an order
/// number or a UUID of version 7 would be.
const PREFIX: &str = "bench-";
/// So many sagas have their times kept at most; of more, evenly chosen ones.
const KEPT_MAX: u64 = 1_000_000;

/// The times of sagas by their number, in microseconds from an origin; 0 where nothing has happened.
#[derive(Debug, Clone)]
pub(crate) struct Times(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    origin: Instant,
    every: u64,
    sagas: Box<[Saga]>,
}

#[derive(Debug, Default)]
struct Saga {
    committed_us: AtomicU64,
    called_us: AtomicU64,
}

impl Times {
    /// For up to this many sagas.
    pub(crate) fn new(sagas_max: u64) -> Times {
        let every = sagas_max.div_ceil(KEPT_MAX).max(1);
        let kept = usize::try_from(sagas_max.div_ceil(every)).unwrap_or(0);
        Times(Arc::new(Kept {
            origin: Instant::now(),
            every,
            sagas: std::iter::repeat_with(Saga::default).take(kept).collect(),
        }))
    }

    /// The gid of a saga.
    pub(crate) fn gid(saga: u64) -> String {
        format!("{PREFIX}{saga:010}")
    }

    /// The number of the saga that a URL's query names.
    pub(crate) fn saga_of(query: &str) -> Option<u64> {
        let gid = query.split('&').find_map(|pair| pair.strip_prefix("gid="))?;
        gid.strip_prefix(PREFIX)?.parse().ok()
    }

    /// Whether the times of this saga are kept, and at which place.
    pub(crate) fn place(&self, saga: u64) -> Option<usize> {
        let place = saga.is_multiple_of(self.0.every).then_some(saga / self.0.every)?;
        usize::try_from(place).ok().filter(|place| *place < self.0.sagas.len())
    }

    /// Microseconds from the origin, never 0.
    pub(crate) fn now_us(&self) -> u64 {
        self.0.origin.elapsed().as_micros() as u64 + 1
    }

    /// Its INSERT's commit was acknowledged.
    pub(crate) fn committed(&self, saga: u64) {
        if let Some(place) = self.place(saga) {
            self.0.sagas[place].committed_us.store(self.now_us(), Ordering::Relaxed);
        }
    }

    /// Its first step is called; only the first call counts.
    pub(crate) fn called(&self, saga: u64) {
        if let Some(place) = self.place(saga) {
            let called = &self.0.sagas[place].called_us;
            let _ = called.compare_exchange(0, self.now_us(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// When a saga was committed; `None` where that is not kept.
    pub(crate) fn committed_us(&self, saga: u64) -> Option<u64> {
        let us = self.0.sagas[self.place(saga)?].committed_us.load(Ordering::Relaxed);
        (us > 0).then_some(us)
    }

    /// From the commit to the first call, in microseconds, of each saga that was committed between two times and called.
    /// A call may come before its commit is acknowledged: that is 0.
    pub(crate) fn first_calls_us(&self, from_us: u64, to_us: u64) -> Vec<u64> {
        self.0
            .sagas
            .iter()
            .filter_map(|saga| {
                let committed = saga.committed_us.load(Ordering::Relaxed);
                let called = saga.called_us.load(Ordering::Relaxed);
                ((from_us..to_us).contains(&committed) && called > 0)
                    .then(|| called.saturating_sub(committed))
            })
            .collect()
    }
}

/// The middle and the slow end of many durations.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Percentiles {
    /// Of microseconds, by the nearest rank. `None` of none.
    pub(crate) fn of(mut us: Vec<u64>) -> Option<Percentiles> {
        us.sort_unstable();
        let at = |share: f64| {
            let rank = (share * us.len() as f64).ceil() as usize;
            us.get(rank.saturating_sub(1)).map(|us| *us as f64 / 1000.0)
        };
        Some(Percentiles { p50_ms: at(0.5)?, p90_ms: at(0.9)?, p99_ms: at(0.99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        assert!(Percentiles::of(Vec::new()).is_none());
        let of = Percentiles::of((1..=1000).rev().map(|ms| ms * 1000).collect()).unwrap();
        assert_eq!((of.p50_ms, of.p90_ms, of.p99_ms), (500.0, 900.0, 990.0));
        let one = Percentiles::of(vec![7000]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms), (7.0, 7.0));
    }

    #[test]
    fn of_too_many_sagas_evenly_chosen_ones_are_kept() {
        let times = Times::new(2 * KEPT_MAX);
        assert_eq!((times.place(0), times.place(1), times.place(2)), (Some(0), None, Some(1)));
        times.committed(2);
        times.called(2);
        times.called(3);
        assert_eq!(times.first_calls_us(0, u64::MAX).len(), 1);
        assert_eq!(Times::saga_of(&format!("gid={}&op=action", Times::gid(42))), Some(42));
        assert_eq!(Times::saga_of("gid=other&op=action"), None);
    }
}
