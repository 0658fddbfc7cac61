//! How properties are tried.

use proptest::test_runner::{Config, RngSeed};

/// `PROPTEST_CASES` times each (256), from the seed `PROPTEST_RNG_SEED` (1): the same cases at each run, unless somebody
/// asks for others. What fails is printed with its smallest form and becomes a test of its own.
pub(crate) fn tried() -> Config {
    let config = Config::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => 1,
    };
    println!("PROPTEST_RNG_SEED={seed} PROPTEST_CASES={}", config.cases);
    Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..config }
}
