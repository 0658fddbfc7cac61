#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")
)]

mod barrier;
mod error;
pub mod webhook;

pub use barrier::{Barrier, Verdict};
pub use error::Error;
