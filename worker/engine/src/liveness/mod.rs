//! The worker's identity and lease, its held tasks, and the tasks of dead workers.

pub(crate) mod clock;
pub(crate) mod fit;
pub(crate) mod handlers;
pub(crate) mod heartbeat;
pub(crate) mod identity;
pub(crate) mod in_flight;
pub(crate) mod membership;
pub(crate) mod reconcile;
pub(crate) mod release;
pub(crate) mod rescue;
pub(crate) mod shutdown;
pub(crate) mod unreadable;
