//! The queues that this worker serves, with an optional limit on calls (`--queue NAME[=LIMIT]`).

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// The value of one `--queue` flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Name of the served queue.
    pub name: String,
    /// Upper bound on calls in flight; `None` means no limit for this queue.
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

/// All served queues. An empty list means every queue.
#[derive(Debug, Default)]
pub struct Queues(HashMap<String, Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    limit: Option<usize>,
    held: AtomicUsize,
    call_slots: Arc<Semaphore>,
}

/// A held task of a queue with a limit. The slot is free again when the value is dropped.
#[derive(Debug)]
pub struct QueuePermit(Arc<Queue>);

impl Queues {
    /// Creates the slots. An empty list means every queue.
    pub fn new(served: &[Served]) -> Queues {
        let queue = |served: &Served| {
            let call_slots = Arc::new(Semaphore::new(served.limit.unwrap_or(Semaphore::MAX_PERMITS)));
            Arc::new(Queue { limit: served.limit, held: AtomicUsize::new(0), call_slots })
        };
        Queues(served.iter().map(|served| (served.name.clone(), queue(served))).collect())
    }

    /// Whether this worker serves every queue.
    pub fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names of the served queues, sorted. `None` means every queue.
    pub fn names(&self) -> Option<Vec<String>> {
        let mut names: Vec<String> = self.0.keys().cloned().collect();
        names.sort_unstable();
        (!names.is_empty()).then_some(names)
    }

    /// Returns the queues and the upper bound on tasks to claim from each, at most `free`. `None`
    /// means every queue, without limits.
    pub fn rooms(&self, free: usize) -> Option<(Vec<&str>, Vec<i64>)> {
        let room = |queue: &Queue| match queue.limit {
            // Twice the calls, so that a queue at its limit has its next task ready.
            Some(limit) => (2 * limit).saturating_sub(queue.held.load(Ordering::Acquire)).min(free),
            None => free,
        };
        let rooms = || self.0.iter().map(|(name, queue)| (name.as_str(), room(queue) as i64)).unzip();
        (!self.0.is_empty()).then(rooms)
    }

    /// Counts a held task of `queue`; `None` if the queue has no limit.
    pub fn hold(&self, queue: &str) -> Option<QueuePermit> {
        let queue = self.0.get(queue).filter(|queue| queue.limit.is_some())?;
        queue.held.fetch_add(1, Ordering::AcqRel);
        Some(QueuePermit(Arc::clone(queue)))
    }
}

impl QueuePermit {
    /// Returns the queue's call slots, one for each call in flight.
    pub fn call_slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.call_slots)
    }
}

impl Drop for QueuePermit {
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
