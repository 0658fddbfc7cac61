#![doc = include_str!("../README.md")]

mod completion;
mod event;
mod graph;
mod lower;
mod outcome;
mod planner;
mod progress;
mod status;
#[cfg(test)]
mod tests;
mod word;

pub use completion::{Completion, TaskWait};
pub use event::{Attempt, Event, Fault, Interrupt, Op};
pub use graph::{ActionKind, Cyclic, STEPS_MAX, StepGraph, StepPolicy};
pub use lower::{BranchOp, Gate, Given, Layout, Lowered, Mode, Unfit, WireOp, lower};
pub use outcome::{Effect, Facts, Outcome};
pub use planner::{
    AbortCause, Illegal, Plan, SagaEnd, TaskPlan, Wait, attempt_after, begin, insert, may_call,
    nominal_delay, plan, recorded, retry_limit, unbuildable,
};
pub use progress::{Progress, State};
pub use status::StatusChange;
pub use word::Word;
