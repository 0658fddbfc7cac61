//! Metrics, traces, and the address at which both they and the health checks are served.

pub mod listener;
pub mod metrics;
pub mod trace;
