#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")
)]

mod complete;
mod definition;
mod error;
mod saga;
mod submit;
mod validate;
mod wait;

pub use complete::{Completion, complete};
pub use definition::Definition;
pub use error::{Error, WaitError};
pub use pgsaga_sql::contract::SagaStatus;
pub use saga::{AnswerOf, Literal, Saga, Step, answer_of, literal};
pub use submit::{Producer, Status, Submitted, abort, status, submit_many};
pub use validate::{Columns, Invalid};
pub use wait::Waiter;
