//! The queues that this worker serves, and how many calls of each it makes at once (`--queue NAME[=LIMIT]`).

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// One `--queue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The queue.
    pub name: String,
    /// Calls of it at once; `None` is without a limit of its own.
    pub limit: Option<usize>,
}

impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> Result<Served, String> {
        let (name, limit) = match text.split_once('=') {
            Some((name, limit)) => (name, Some(limit)),
            None => (text, None),
        };
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
        let limit = match limit.map(str::parse::<usize>) {
            None => None,
            Some(Ok(limit @ 1..=65_536)) => Some(limit),
            Some(_) => return Err("allowed: NAME, or NAME=LIMIT with a limit from 1 to 65,536".to_owned()),
        };
        if !is_name {
            return Err("allowed: a name of 1 to 64 of the characters A-Z a-z 0-9 . _ : -".to_owned());
        }
        Ok(Served { name: name.to_owned(), limit })
    }
}

/// All that this worker serves; empty is every queue.
#[derive(Debug, Default)]
pub struct Queues(HashMap<String, Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    limit: Option<usize>,
    held: AtomicUsize,
    turns: Arc<Semaphore>,
}

/// A held task's place in its queue's limit; free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<Queue>);

impl Queues {
    /// The queues that were named; none is every queue.
    pub fn new(served: &[Served]) -> Queues {
        let queue = |served: &Served| {
            let turns = Arc::new(Semaphore::new(served.limit.unwrap_or(Semaphore::MAX_PERMITS)));
            Arc::new(Queue { limit: served.limit, held: AtomicUsize::new(0), turns })
        };
        Queues(served.iter().map(|served| (served.name.clone(), queue(served))).collect())
    }

    /// Whether it serves every queue.
    pub fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and how many tasks of each may be claimed, at most `free`; `None` is every queue without a limit.
    pub fn rooms(&self, free: usize) -> Option<(Vec<&str>, Vec<i64>)> {
        let room = |queue: &Queue| match queue.limit {
            // Twice the calls, so that a queue at its limit finds its next task at hand.
            Some(limit) => (2 * limit).saturating_sub(queue.held.load(Ordering::Acquire)).min(free),
            None => free,
        };
        let rooms = || self.0.iter().map(|(name, queue)| (name.as_str(), room(queue) as i64)).unzip();
        (!self.0.is_empty()).then(rooms)
    }

    /// Takes a place for a held task of `queue`; `None` where it has no limit.
    pub fn hold(&self, queue: &str) -> Option<Place> {
        let queue = self.0.get(queue).filter(|queue| queue.limit.is_some())?;
        queue.held.fetch_add(1, Ordering::AcqRel);
        Some(Place(Arc::clone(queue)))
    }
}

impl Place {
    /// The turns of its queue: one a call.
    pub fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.turns)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_a_name_and_maybe_a_limit() {
        let served = |text: &str| text.parse::<Served>();
        assert_eq!(served("bulk"), Ok(Served { name: "bulk".into(), limit: None }));
        assert_eq!(served("bulk=4"), Ok(Served { name: "bulk".into(), limit: Some(4) }));
        for bad in ["", "=4", "bulk=", "bulk=0", "bulk=-1", "bulk=65537", "bu lk", "bulk=4=5"] {
            assert!(served(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_limited_queue_has_room_for_twice_its_calls() {
        let queues = Queues::new(&["a=2".parse().unwrap(), "b".parse().unwrap()]);
        let room = |name: &str| {
            let (names, rooms) = queues.rooms(100).unwrap();
            rooms[names.iter().position(|other| *other == name).unwrap()]
        };
        let held: Vec<_> = (0..3).map(|_| queues.hold("a")).collect();
        assert_eq!((room("a"), room("b")), (1, 100));
        drop(held);
        assert_eq!(room("a"), 4);
        assert!(queues.hold("b").is_none());
        assert!(Queues::new(&[]).rooms(100).is_none());
    }
}
