#![doc = include_str!("../README.md")]

mod event;
mod graph;
mod outcome;
mod planner;
mod progress;
mod status;
#[cfg(test)]
mod tests;
mod word;

pub use event::{Attempt, Event, Fault, Interrupt, Op};
pub use graph::{Cyclic, STEPS_MAX, StepGraph, StepPolicy};
pub use outcome::{Effect, Facts, Outcome};
pub use planner::{
    AbortCause, Illegal, Plan, SagaEnd, TaskPlan, Wait, may_call, nominal_delay, plan, retry_limit,
};
pub use progress::{Progress, State};
pub use status::StatusChange;
pub use word::Word;
