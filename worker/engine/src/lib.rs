#![doc = include_str!("../README.md")]

mod claim;
pub mod db;
mod error;
pub mod execute;
pub mod flow;
mod liveness;
mod settle;
pub mod telemetry;
mod upkeep;
mod wake;
mod worker;

pub use error::Error;
pub use worker::{Options, Worker, WorkerStatus, not_ready};
