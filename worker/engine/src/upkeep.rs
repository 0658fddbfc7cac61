//! What one worker does for all: delete finished sagas, sample the tables, make partitions.

pub mod retention;
pub mod sample;
