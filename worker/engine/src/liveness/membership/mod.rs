//! What a worker is among the workers of its database.

pub(crate) mod lease;
pub(crate) mod watchdog;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::RwLock;

use crate::liveness::clock::DatabaseClock;
use crate::liveness::fit::home::Home;
use crate::liveness::fit::schema::Schema;
use crate::liveness::identity::{Identity, WorkerIdentity};
use crate::liveness::in_flight::InFlight;
use lease::Lease;
use watchdog::Watchdog;

/// A worker's identity and what depends on it.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Who this worker is, and to which server.
    pub(crate) identity: WorkerIdentity,
    /// The database's clock.
    pub(crate) clock: DatabaseClock,
    /// How long this worker may start calls.
    pub(crate) lease: Lease,
    /// Whether this worker may work on the database's schema.
    pub(crate) schema: Schema,
    /// Whether this worker may work in the database.
    pub(crate) home: Home,
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
    pub(crate) fn new(lease: Duration, environment: Option<String>) -> Membership {
        Membership {
            identity: WorkerIdentity::default(),
            clock: DatabaseClock::default(),
            lease: Lease::new(lease),
            schema: Schema::default(),
            home: Home::new(environment),
            in_flight: InFlight::default(),
            watchdog: Watchdog::default(),
            gate: RwLock::new(()),
            duty: AtomicBool::new(false),
        }
    }

    /// Whether this worker may claim, call and rescue: it knows the schema, and the database is its
    /// own.
    pub(crate) fn fits(&self) -> bool {
        self.schema.fits() && self.home.fits()
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
