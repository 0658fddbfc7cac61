//! Metrics, and the HTTP listener for metrics and health checks.

pub mod listener;
pub mod metrics;
