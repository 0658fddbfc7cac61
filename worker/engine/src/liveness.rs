//! Who this worker is, what it holds, and what becomes of the tasks of dead workers.

pub mod heartbeat;
pub mod identity;
pub mod in_flight;
pub mod lease;
pub mod reconcile;
pub mod release;
pub mod rescue;
pub mod schema;
pub mod unreadable;
pub mod watchdog;
