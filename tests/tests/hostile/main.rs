//! Input from people who mean harm, or whose software does: bytes of sagas, of answers, of requests
//! to the worker's own port, and of what ends up on an operator's terminal. (The product has no
//! callback endpoints yet, so none are tested.)
//!
//! Random, but the same at each run: from the seed `HOSTILE_SEED` (1), which is printed,
//! `HOSTILE_CASES` texts of sagas and of answers (3,000 each, 12,000 where `TEST_SIZE=full`),
//! and a fiftieth of that many random HTTP answers and requests. A long run, about an hour:
//!
//! ```sh
//! HOSTILE_CASES=3000000 HOSTILE_SEED=$RANDOM cargo test -p pgsaga-tests --test hostile --
//! --nocapture PROPTEST_CASES=1000000 PROPTEST_RNG_SEED=$RANDOM cargo test -p pgsaga-sql -p
//! pgsaga-producer -p pgsaga-participant -p pgsaga-worker --lib -- --nocapture
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod answers;
mod bytes;
#[path = "../../../producer/tests/cases/mod.rs"]
#[expect(dead_code, reason = "what fails here is told by its bytes, not by the name of its case")]
mod cases;
mod codings;
#[path = "../validation/dice.rs"]
#[expect(dead_code, reason = "its own seed and its own number of rolls are the validation's")]
mod dice;
mod endpoints;
mod jsonb;
mod process;
mod raw;
mod terminal;
mod verdicts;

use pgsaga_tests::{setting, sized};

/// The seed of this run, printed.
fn seed() -> u64 {
    let seed = setting("HOSTILE_SEED", 1);
    println!("HOSTILE_SEED={seed}");
    seed
}

/// How many texts.
fn count() -> usize {
    setting("HOSTILE_CASES", sized(3_000, 12_000)) as usize
}
