//! What the modes are made of: waits, gates, and refused steps that are compensated.

pub(super) mod controls;
mod every;
mod gates;
mod lowering;
mod mutants;
mod waits;
