//! What a deployment builds on: the probe, what systemd is told, the autoscaler's role, and the
//! files that say all that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod calls;
mod files;
mod health;
mod manager;
mod scaler;
mod systemd;
