//! What comes after the last fault.

use std::time::Duration;

/// How it went on after the last fault.
#[derive(Clone, Debug)]
pub struct Tail {
    /// How long it may take until all has ended.
    pub bound: Duration,
    /// How long it took; `None` when it did not.
    pub ended_after: Option<Duration>,
    /// Sagas that were inserted after the last fault, which nothing keeps from succeeding: gid and
    /// status.
    pub sagas: Vec<(String, String)>,
    /// The workers that live.
    pub workers: Vec<WorkerTail>,
}

/// A worker that lives at the end.
#[derive(Clone, Debug)]
pub struct WorkerTail {
    /// Which.
    pub pid: u32,
    /// Successful calls until the last fault.
    pub successes_before: f64,
    /// Successful calls at the end.
    pub successes_after: f64,
}

impl Tail {
    /// Everything ended in time, what came after succeeded, and every worker had a part in it.
    pub fn judge(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.ended_after.is_none_or(|took| took > self.bound) {
            found.push(format!("not all had ended {:?} after the last fault", self.bound));
        }
        if self.sagas.is_empty() {
            found.push("no saga was inserted after the last fault".to_owned());
        }
        for (gid, status) in self.sagas.iter().filter(|(_, status)| status != "succeeded") {
            found.push(format!("{gid}, inserted after the last fault, is {status}"));
        }
        if self.workers.is_empty() {
            found.push("no worker lives".to_owned());
        }
        for worker in self.workers.iter().filter(|worker| worker.successes_after <= worker.successes_before) {
            found.push(format!("worker {} made no successful call after the last fault", worker.pid));
        }
        found
    }
}
