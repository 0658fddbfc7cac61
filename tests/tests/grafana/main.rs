//! Dashboards, alerts and runbooks: each query names what workers export, each link leads
//! somewhere, each command and each SQL of a runbook runs; and against a real Prometheus that
//! scrapes two real workers every query finds something.
//!
//! A longer run, of which `grafana/draw` makes the pictures:
//!
//! ```sh
//! GRAFANA_SECONDS=240 cargo test -p pgsaga-tests --test grafana live
//! ```
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod board;
mod files;
mod live;
mod prometheus;
mod promql;
mod rules;
mod runbooks;
#[path = "../readme/text.rs"]
#[expect(dead_code, reason = "what only the README's own tests need")]
mod text;
