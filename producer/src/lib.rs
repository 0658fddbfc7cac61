#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")
)]

mod barrier;
mod definition;
mod error;
mod gid;
mod invalid;
mod json;
mod saga;
mod step_name;
mod submit;
mod url;
mod validate;
mod wait;

pub use barrier::{Barrier, Verdict};
pub use definition::{Definition, check_file};
pub use error::{Error, WaitError};
pub use gid::Gid;
pub use invalid::Invalid;
pub use saga::{Saga, Step};
pub use step_name::StepName;
pub use submit::{Producer, Status, Submitted, status, submit_many};
pub use validate::{Columns, validate_saga, validate_steps};
pub use wait::Waiter;
