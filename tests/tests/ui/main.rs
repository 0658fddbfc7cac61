//! `pgsaga ui`: what it shows and what it lets people decide, over HTTP and in a real browser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod away;
mod browser;
mod completing;
mod deciding;
mod guarding;
mod offers;
mod reading;
mod story;
mod visitor;
