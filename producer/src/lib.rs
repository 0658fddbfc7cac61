#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")
)]

mod answer;
mod barrier;
mod definition;
mod entries;
mod error;
mod gid;
mod invalid;
mod json;
mod named_url;
mod number;
mod order;
mod payload;
#[cfg(test)]
mod property;
mod reference;
mod saga;
mod step;
mod step_name;
mod steps;
mod submit;
mod url;
mod validate;
mod wait;
pub mod webhook;

pub use answer::{AnswerOf, Literal, answer_of, literal};
pub use barrier::{Barrier, Verdict};
pub use definition::{Definition, check_file};
pub use entries::is_reserved_header;
pub use error::{Error, WaitError};
pub use gid::Gid;
pub use invalid::Invalid;
pub use json::{JsonSize, measure_json};
pub use named_url::NamedUrl;
pub use saga::Saga;
pub use step::Step;
pub use step_name::StepName;
pub use submit::{Producer, Status, Submitted, abort, status, submit_many};
pub use validate::{Columns, validate_saga, validate_steps};
pub use wait::Waiter;
