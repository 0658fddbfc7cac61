//! Faults on purpose. The same seed selects the same calls on every run.

use sha2::{Digest as _, Sha256};

/// A way in which a bank mishandles a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The bank does nothing and answers 500.
    Error,
    /// The bank does nothing for longer than the caller waits.
    Hang,
    /// The bank does the work, then closes the connection without an answer.
    Drop,
    Early,
}

/// From this attempt on, calls are handled well, so that every saga ends.
const LAST_ATTEMPT: u32 = 2;

impl Mishap {
    /// The fault of this attempt, if any. About a tenth of the first and second attempts have one.
    pub(crate) fn of(seed: u64, key: &str, attempt: u32) -> Option<Mishap> {
        if attempt > LAST_ATTEMPT {
            return None;
        }
        match hash(seed, key, attempt) % 1000 {
            0..30 => Some(Mishap::Error),
            30..45 => Some(Mishap::Hang),
            45..70 => Some(Mishap::Drop),
            70..95 => Some(Mishap::Early),
            _ => None,
        }
    }
}

/// A number that depends only on these values. The standard library's hash may differ in its next
/// release.
fn hash(seed: u64, key: &str, attempt: u32) -> u32 {
    let digest = Sha256::digest(format!("{seed}/{key}/{attempt}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mishap_happens_to_some_calls_and_none_to_a_third_try() {
        for mishap in [Mishap::Error, Mishap::Hang, Mishap::Drop, Mishap::Early] {
            let calls = (0..1000)
                .filter(|n| Mishap::of(7, &format!("transfer-{n}/withdraw/action"), 1) == Some(mishap));
            assert!((5..60).contains(&calls.count()), "{mishap:?}");
        }
        assert!((0..1000).all(|n| Mishap::of(7, &format!("transfer-{n}/withdraw/action"), 3).is_none()));
    }

    #[test]
    fn another_seed_is_another_run() {
        let run = |seed| (0..1000).map(move |n| Mishap::of(seed, &n.to_string(), 1)).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
