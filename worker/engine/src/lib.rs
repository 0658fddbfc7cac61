#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod claim;
pub mod db;
pub mod error;
pub mod execute;
pub mod flow;
pub mod liveness;
#[cfg(test)]
mod proptest_config;
pub mod run;
pub mod settle;
pub mod task;
pub mod telemetry;
pub mod upkeep;
pub mod wake;
pub mod worker;

pub use error::Error;
