#![doc = include_str!("../README.md")]

pub mod call_log;
pub mod embedded;
mod error;
pub mod fleet;
pub mod scratch;

pub use error::Error;
