#![doc = include_str!("../README.md")]

mod event;
mod graph;
mod outcome;
mod planner;
mod progress;
#[cfg(test)]
mod tests;

pub use event::{Event, Fault, Interrupt, Op, Try};
pub use graph::{Cyclic, Rules, STEPS_MAX, Shape};
pub use outcome::Outcome;
pub use planner::{End, Illegal, Plan, Then, Wait, Why, may_call, nominal_delay, plan};
pub use progress::{Progress, State};
