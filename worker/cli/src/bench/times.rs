//! Times of commits and first calls, by this process's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Prefix of the gids. A number with leading zeros follows, so that gids are in the order of their
/// insertion, like order numbers or UUIDs of version 7.
const PREFIX: &str = "bench-";
/// Upper bound on the sagas whose times are kept. Of more sagas, evenly distributed ones are kept.
const KEPT_MAX: u64 = 1_000_000;

/// Times of sagas by their number, in microseconds from an origin; 0 before the event.
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
    pub(crate) fn new(sagas_max: u64) -> Times {
        let every = sagas_max.div_ceil(KEPT_MAX).max(1);
        let kept = usize::try_from(sagas_max.div_ceil(every)).unwrap_or(0);
        let sagas = std::iter::repeat_with(Saga::default).take(kept).collect();
        Times(Arc::new(Kept { origin: Instant::now(), every, sagas }))
    }

    pub(crate) fn gid(saga: u64) -> String {
        format!("{PREFIX}{saga:010}")
    }

    /// The number of the saga of a gid.
    pub(crate) fn saga(gid: &str) -> Option<u64> {
        gid.strip_prefix(PREFIX)?.parse().ok()
    }

    /// The number of the saga that a URL's query names.
    pub(crate) fn saga_of(query: &str) -> Option<u64> {
        Times::saga(query.split('&').find_map(|pair| pair.strip_prefix("gid="))?)
    }

    /// The times of a saga; `None` if they are not kept.
    fn kept(&self, saga: u64) -> Option<&Saga> {
        let place = saga.is_multiple_of(self.0.every).then_some(saga / self.0.every)?;
        self.0.sagas.get(usize::try_from(place).ok()?)
    }

    /// Microseconds from the origin, never 0.
    pub(crate) fn now_us(&self) -> u64 {
        self.0.origin.elapsed().as_micros() as u64 + 1
    }

    /// Records that the commit of the saga's INSERT was acknowledged.
    pub(crate) fn committed(&self, saga: u64) {
        if let Some(saga) = self.kept(saga) {
            saga.committed_us.store(self.now_us(), Ordering::Relaxed);
        }
    }

    /// Records the first call of the saga's first step. Later calls do not count.
    pub(crate) fn called(&self, saga: u64) {
        if let Some(saga) = self.kept(saga) {
            let now = self.now_us();
            let _ = saga.called_us.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(crate) fn committed_us(&self, saga: u64) -> Option<u64> {
        let us = self.kept(saga)?.committed_us.load(Ordering::Relaxed);
        (us > 0).then_some(us)
    }

    /// Microseconds from the commit to the first call, for each called saga that was committed
    /// between two times. A call may come before the commit is acknowledged, which counts as 0.
    pub(crate) fn first_calls_us(&self, from_us: u64, to_us: u64) -> Vec<u64> {
        let took = self.0.sagas.iter().filter_map(|saga| {
            let committed = saga.committed_us.load(Ordering::Relaxed);
            let called = saga.called_us.load(Ordering::Relaxed);
            let is_measured = (from_us..to_us).contains(&committed) && called > 0;
            is_measured.then(|| called.saturating_sub(committed))
        });
        took.collect()
    }
}

/// The median and the slow end of many durations.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Percentiles {
    /// Percentiles of durations in microseconds, by the nearest rank. `None` without durations.
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
        assert_eq!([0, 1, 2].map(|saga| times.kept(saga).is_some()), [true, false, true]);
        times.committed(2);
        times.called(2);
        times.called(3);
        assert_eq!(times.first_calls_us(0, u64::MAX).len(), 1);
        assert_eq!(Times::saga_of(&format!("gid={}&op=action", Times::gid(42))), Some(42));
        assert_eq!(Times::saga_of("gid=other&op=action"), None);
    }
}
