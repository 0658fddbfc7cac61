//! Work that one worker does for all: retention and sampling.

pub(crate) mod partitions;
mod refused;
pub(crate) mod retention;
pub(crate) mod sample;
