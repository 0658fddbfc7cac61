//! How a worker learns that a task is due, and from where on it scans.

pub(crate) mod listen;
pub(crate) mod others;
pub(crate) mod share;
pub(crate) mod wakeups;
pub(crate) mod watermark;
