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

pub use db::HandlerTransaction;
pub use error::Error;
pub use execute::handler::{Call, HandlerError, Participant, TransactionalParticipant};
pub use execute::intercept::{Deciding, Decision, Intercept, Intercepted};
pub use worker::{Builder, Database, Worker, WorkerStatus, not_ready};

/// The programs of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/handlers.md")]
struct Guide;
