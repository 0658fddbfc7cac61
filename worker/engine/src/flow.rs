//! What keeps calls back: limits of queues and participants, and the breaker.

pub mod participants;
pub mod queues;
