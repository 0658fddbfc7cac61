//! Metrics, the HTTP listener for metrics and health checks, and a bound on lines of the log.

pub mod listener;
pub(crate) mod log_limit;
pub mod metrics;
