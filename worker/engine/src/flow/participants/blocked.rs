//! What a claim leaves out because of its participant.

use std::time::Duration;

/// Participants whose tasks are not claimed, or only in part.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    /// Claims leave the tasks of these participants in the queue.
    pub(crate) unclaimed: Vec<String>,
    /// Upper bound on the tasks that a claim takes, per participant.
    pub(crate) few: (Vec<String>, Vec<i64>),
    /// The due tasks of these participants are deferred. Each has the time since its breaker
    /// opened.
    pub(crate) deferred: Vec<(String, Duration)>,
    /// Denied participants and the time since the denial. Their tasks are deferred only if every
    /// living worker is denied.
    pub(crate) deferred_if_nobody_may: Vec<(String, Duration)>,
    /// Denied participants that this worker does not serve. Their tasks are moved.
    pub(crate) unserved: Vec<String>,
    /// Interrupted or overdue tasks that claims skip, because this worker is denied the call that
    /// they need.
    pub(crate) passed_over: Vec<i64>,
    /// Number of open breakers of this worker.
    pub(crate) open: usize,
}
