//! How much of a long test runs.
//!
//! `cargo test` runs long tests at a small size. `TEST_SIZE=full` runs them whole, as `.ci/full`
//! does. This is the only place of the harness that reads the variable.

use crate::setting;

/// `small`, or `full` where `TEST_SIZE` says so.
///
/// # Panics
/// When the variable holds something else.
pub fn sized<T>(small: T, full: T) -> T {
    if is_full(std::env::var("TEST_SIZE").ok().as_deref()) { full } else { small }
}

fn is_full(value: Option<&str>) -> bool {
    match value {
        None => false,
        Some("full") => true,
        Some(other) => panic!("TEST_SIZE: found {other:?}; allowed: full, or unset"),
    }
}

/// Whether a small run has this one of several cases: every case is in one of `of` consecutive
/// seeds. A full run has them all.
pub fn is_drawn(case: usize, of: u64) -> bool {
    sized(is_the_turn_of(case, of, seed()), true)
}

/// `SEED` of a small run, 1 by default.
pub fn seed() -> u64 {
    setting("SEED", 1)
}

fn is_the_turn_of(case: usize, of: u64, seed: u64) -> bool {
    (case as u64).wrapping_add(seed).is_multiple_of(of)
}

#[cfg(test)]
mod tests {
    use super::{is_full, is_the_turn_of};

    #[test]
    fn only_the_word_full_makes_a_run_full() {
        assert!(is_full(Some("full")) && !is_full(None));
        assert!(std::panic::catch_unwind(|| is_full(Some("ful"))).is_err());
    }

    #[test]
    fn consecutive_seeds_have_each_case_once() {
        for case in 0..20 {
            let drawn = (7..12).filter(|seed| is_the_turn_of(case, 5, *seed)).count();
            assert_eq!(drawn, 1, "{case}");
        }
    }
}
