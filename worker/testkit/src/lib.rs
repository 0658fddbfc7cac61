#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")
)]

pub mod call_log;
pub mod child;
mod database;
pub mod embedded;
mod error;
pub mod fleet;
mod kit;
pub mod proxy;
pub mod scratch;

pub use database::Database;
pub use error::Error;
pub use kit::{Case, Entry, Kit, Question, Report, Run, Verdict};
