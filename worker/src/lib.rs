#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod call;
pub mod claim;
pub mod cli;
pub mod commands;
pub mod db;
pub mod definition;
pub mod definitions;
pub mod embedded;
pub mod error;
pub mod execute;
pub mod hand_back;
pub mod heartbeat;
pub mod held;
pub mod identity;
pub mod lease;
pub mod ledger;
pub mod listen;
pub mod mark;
pub mod metrics;
pub mod outcome;
pub mod park;
pub mod participants;
pub mod plan;
pub mod progress;
#[cfg(test)]
mod property;
pub mod queues;
pub mod reconcile;
pub mod references;
pub mod rescue;
pub mod retention;
pub mod run;
pub mod sample;
pub mod schema;
pub mod serve;
pub mod settle;
pub mod shape;
pub mod signals;
pub mod task;
pub mod trace;
pub mod worker;

pub use error::Error;
