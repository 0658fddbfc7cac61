#![doc = include_str!("../README.md")]

mod event;
mod graph;
mod outcome;
mod planner;
mod progress;
mod status;
#[cfg(test)]
mod tests;

pub use event::{Event, Fault, Interrupt, Op, Try};
pub use graph::{Cyclic, Rules, STEPS_MAX, Shape};
pub use outcome::Outcome;
pub use planner::{End, Illegal, Plan, Then, Wait, Why, may_call, nominal_delay, plan, retry_limit};
pub use progress::{Progress, State};
pub use status::SagaStatus;
