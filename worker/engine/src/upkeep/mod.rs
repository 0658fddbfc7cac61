//! What one worker does for all: delete finished sagas, sample the tables, make partitions.

pub(crate) mod partitions;
pub(crate) mod retention;
pub(crate) mod sample;
