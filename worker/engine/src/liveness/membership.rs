//! What a worker is among the workers of its database.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::RwLock;

use crate::liveness::identity::{Identity, WorkerIdentity};
use crate::liveness::in_flight::InFlight;
use crate::liveness::lease::Lease;
use crate::liveness::schema::Schema;
use crate::liveness::watchdog::Watchdog;

/// A worker's identity and what depends on it.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Who this worker is, and to which server.
    pub(crate) identity: WorkerIdentity,
    /// How long this worker may start calls.
    pub(crate) lease: Lease,
    /// Whether this worker may work on the database's schema.
    pub(crate) schema: Schema,
    /// The tasks that this worker believes it holds.
    pub(crate) in_flight: InFlight,
    /// When the heartbeat loop last came around.
    pub(crate) watchdog: Watchdog,
    /// Claims and settles share it. Reconciling and registering take it alone, because memory and
    /// database must not move meanwhile.
    pub(crate) gate: RwLock<()>,
    duty: AtomicBool,
}

impl Membership {
    pub(crate) fn new(lease: Duration) -> Membership {
        Membership {
            identity: WorkerIdentity::default(),
            lease: Lease::new(lease),
            schema: Schema::default(),
            in_flight: InFlight::default(),
            watchdog: Watchdog::default(),
            gate: RwLock::new(()),
            duty: AtomicBool::new(false),
        }
    }

    /// The id under which this worker claims now.
    pub(crate) fn id(&self) -> i64 {
        self.identity().id
    }

    /// The id, and the server that knows it.
    pub(crate) fn identity(&self) -> Identity {
        self.identity.identity()
    }

    /// Whether this worker's id was the lowest of all living workers at the last heartbeat. The
    /// duty worker does what one worker does for all.
    pub(crate) fn is_duty_worker(&self) -> bool {
        self.duty.load(Ordering::Relaxed)
    }

    /// A heartbeat has seen which workers live.
    pub(crate) fn set_duty_worker(&self, duty: bool) {
        self.duty.store(duty, Ordering::Relaxed);
    }
}
