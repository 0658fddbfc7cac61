//! The worker's identity and the server that it is registered with.
//!
//! A worker's memory consists of facts about (task, worker, epoch). They belong to one history of
//! the database. If a standby is promoted without the last WAL of the old primary, it continues an
//! older history and assigns the same task ids again. A fact from the lost part could then match
//! the task of another saga. Three rules prevent this:
//!
//! * Worker ids are random (register.sql). Two workers never share an id, even if a part of the
//!   history was lost.
//! * Claims and settles name the known server by the start time of its postmaster, and have no
//!   effect on another server. Until the worker has checked the new server, it claims nothing
//!   there, and an old fact matches only its own row.
//! * The heartbeat is the first statement to notice another server. If the known server was
//!   restarted, nothing was lost, and the worker continues with its memory. If the server has
//!   another history, the worker clears its memory and registers again. Its rows there are left for
//!   rescue, which records the attempts as unknown because they may have happened.
//!
//! A restart of the known server has the same cluster, the same timeline, and a start time later
//! than any clock value seen from it. A promotion changes the timeline, and a standby was started
//! before its promotion. If a server does not reveal its timeline, every restart counts as another
//! history. This is always safe, and costs one repetition of the calls in flight.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

/// A worker id, and the server that it is valid on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The worker's id; 0 before its registration.
    pub(crate) id: i64,
    /// Start time of that server's postmaster.
    pub(crate) server: Option<DateTime<Utc>>,
}

/// A server's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// Start time of the server's postmaster.
    pub(crate) started: DateTime<Utc>,
    /// Cluster and timeline; `None` if the server does not reveal them.
    pub(crate) history: Option<String>,
}

impl Server {
    /// Whether `next` is this server, restarted after its clock was at `seen`.
    fn was_restarted_as(&self, next: &Server, seen: DateTime<Utc>) -> bool {
        self.history.is_some() && self.history == next.history && next.started > seen
    }
}

/// The worker's identity, and the facts about its server.
#[derive(Debug, Default)]
pub(crate) struct WorkerIdentity(Mutex<Knowledge>);

#[derive(Debug, Default)]
struct Knowledge {
    id: i64,
    server: Option<Server>,
    /// The latest value seen of the server's clock.
    seen: DateTime<Utc>,
}

impl WorkerIdentity {
    fn lock(&self) -> MutexGuard<'_, Knowledge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the id and its server together, so that no statement combines an id with another
    /// server.
    pub(crate) fn identity(&self) -> Identity {
        let known = self.lock();
        Identity { id: known.id, server: known.server.as_ref().map(|server| server.started) }
    }

    /// Records a registration with a server.
    pub(crate) fn begin(&self, id: i64, server: Server, seen: DateTime<Utc>) {
        *self.lock() = Knowledge { id, server: Some(server), seen };
    }

    /// Records a value of the server's clock.
    pub(crate) fn see(&self, now: DateTime<Utc>) {
        let mut known = self.lock();
        known.seen = known.seen.max(now);
    }

    /// Accepts the server if it is the known one after a restart. Returns whether it is.
    pub(crate) fn goes_on_with(&self, next: Server) -> bool {
        let mut known = self.lock();
        let seen = known.seen;
        let same = known.server.as_ref().is_some_and(|server| server.was_restarted_as(&next, seen));
        if same {
            known.server = Some(next);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn server(started: i64, history: Option<&str>) -> Server {
        Server { started: at(started), history: history.map(str::to_owned) }
    }

    #[test]
    fn only_a_restart_of_the_same_server_keeps_the_memory() {
        let first = || server(0, Some("7/1"));
        for (before, next, goes_on) in [
            (first(), server(101, Some("7/1")), true),
            (first(), server(101, Some("7/2")), false), // promoted
            (first(), server(101, Some("8/1")), false), // another cluster
            (first(), server(50, Some("7/2")), false),
            // Two independently promoted standbys can have the same timeline.
            (first(), server(50, Some("7/1")), false),
            (first(), server(101, None), false),
            (server(0, None), server(101, None), false),
        ] {
            let known = WorkerIdentity::default();
            known.begin(5, before.clone(), at(10));
            known.see(at(100));
            known.see(at(20));
            assert_eq!(known.goes_on_with(next.clone()), goes_on, "{before:?} {next:?}");
            let started = if goes_on { next.started } else { before.started };
            assert_eq!(known.identity(), Identity { id: 5, server: Some(started) });
        }
    }
}
