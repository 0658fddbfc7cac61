//! The planner, shown in three ways: each rule by itself, every saga of up to three steps in every
//! interleaving, and that each check of that search can fail.

mod canonical;
mod checks;
mod completions;
mod controls;
mod every;
mod invariant;
mod limits;
mod mirrored;
mod model;
mod modes;
mod moves;
mod mutants;
mod order;
mod packed;
mod people;
mod pivot;
mod rules;
mod search;
mod settle;
mod shapes;
mod statements;
mod told;
