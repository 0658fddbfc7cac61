//! Who this worker is, and to which server.
//!
//! A fence names (task, worker, epoch), and a worker's memory is full of such facts. They are of one history of the database.
//! A standby that is promoted without the last of the old primary's WAL continues an older history and gives the same task
//! ids again: a fact of the lost part could then name another saga's task. So
//! * ids of workers are random (register.sql): no two workers are ever one, whatever was lost;
//! * claims and settles name the server that the worker knows, by the start of its postmaster, and do nothing on another
//!   one. So until the worker has looked, nothing is claimed there, and an old fact matches only the very row it is about;
//! * the heartbeat meets another server first of all. If it is the same one, started again, nothing was lost, and the worker
//!   goes on with all that it knows. If it continues another history, the worker drops its memory, leaves what it held there
//!   to be rescued (which records the tries as unknown: they may have happened), and registers anew.
//!
//! The same one started again: the same cluster, the same timeline, and a start later than everything seen of it before. A
//! promotion changes the timeline; a standby was started before it was promoted. Where a server does not tell its timeline,
//! every restart counts as another history, which is never wrong, and costs the calls in flight a repetition.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

/// An id, and the server that gave it or has gone on with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    /// The worker's id; 0 before it registered.
    pub id: i64,
    /// When that server's postmaster started.
    pub server: Option<DateTime<Utc>>,
}

/// A server, as it says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// When its postmaster started.
    pub started: DateTime<Utc>,
    /// Its cluster and timeline; `None` where it does not tell.
    pub history: Option<String>,
}

impl Server {
    /// Whether `next` is this server, started again after it said that it was `seen`.
    fn was_restarted_as(&self, next: &Server, seen: DateTime<Utc>) -> bool {
        self.history.is_some() && self.history == next.history && next.started > seen
    }
}

/// The identity of a worker and what it rests on.
#[derive(Debug, Default)]
pub struct Known(Mutex<Knowledge>);

#[derive(Debug, Default)]
struct Knowledge {
    id: i64,
    server: Option<Server>,
    /// The latest that the server's clock was seen to say.
    seen: DateTime<Utc>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Knowledge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both at once, so that no statement pairs the id of one with the server of another.
    pub fn identity(&self) -> Identity {
        let known = self.lock();
        Identity { id: known.id, server: known.server.as_ref().map(|server| server.started) }
    }

    /// A registration.
    pub fn begin(&self, id: i64, server: Server, seen: DateTime<Utc>) {
        *self.lock() = Knowledge { id, server: Some(server), seen };
    }

    /// The known server said what its clock says.
    pub fn see(&self, now: DateTime<Utc>) {
        let mut known = self.lock();
        known.seen = known.seen.max(now);
    }

    /// Goes on with another server if it is the known one, started again. False where it is not.
    pub fn goes_on_with(&self, next: Server) -> bool {
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
            // Two standbys that knew nothing of each other were promoted to the same timeline.
            (first(), server(50, Some("7/1")), false),
            (first(), server(101, None), false),
            (server(0, None), server(101, None), false),
        ] {
            let known = Known::default();
            known.begin(5, before.clone(), at(10));
            known.see(at(100));
            known.see(at(20));
            assert_eq!(known.goes_on_with(next.clone()), goes_on, "{before:?} {next:?}");
            let started = if goes_on { next.started } else { before.started };
            assert_eq!(known.identity(), Identity { id: 5, server: Some(started) });
        }
    }
}
