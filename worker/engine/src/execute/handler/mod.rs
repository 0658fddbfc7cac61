//! Participants in this process: async functions that are called as the participants of sagas.
//!
//! A saga names the participant, `participant:stock/reserve`, and never where it is. So an
//! application can start with handlers in its own process and move a participant out behind HTTP
//! later, and no saga changes.

mod call;
mod error;
mod participant;
mod poll;
mod run;

pub use call::Call;
pub use error::HandlerError;
pub use participant::{Participant, TransactionalParticipant};
pub(crate) use run::{CONFLICT_PAUSE, ENDED_BY_HANDLER, HandlerExecutor};
