//! The behaviours that DTM's own tests cover, one test each, through the crate and in plain SQL:
//! sagas and the barrier.

mod bank;
mod barriers;
mod client;
mod concurrent;
mod retries;
mod sagas;
mod timeouts;
mod waits;
