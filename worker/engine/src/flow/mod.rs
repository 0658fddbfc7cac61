//! What keeps calls back: limits of queues and participants, the breaker, and backoff.

pub mod backoff;
pub(crate) mod capacity;
pub(crate) mod participants;
pub mod queues;
