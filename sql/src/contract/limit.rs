//! Limits. Their `Display` is what an error says is allowed.

use std::fmt;
use std::ops::RangeInclusive;

use super::name::Name;

/// A saga's gid.
pub const GID: Name = Name { bytes_max: 128 };
/// The name of a step, unique in its saga.
pub const STEP_NAME: Name = Name { bytes_max: 64 };
/// The name of a queue.
pub const QUEUE: Name = Name { bytes_max: 64 };

/// A saga's class in its queue.
pub const PRIORITY: Whole = Whole { min: 0, max: 3 };
/// Retries of an op after its first try.
pub const RETRY_LIMIT: Whole = Whole { min: 0, max: 1_000_000 };

/// The first wait between two tries: up to a day.
pub const RETRY_INTERVAL: Seconds = Seconds { max: 86_400 };
/// The time that one call may take: up to a day.
pub const REQUEST_TIMEOUT: Seconds = Seconds { max: 86_400 };
/// The time until a saga that has not ended is rolled back: up to 365 days.
pub const TIMEOUT_TO_FAIL: Seconds = Seconds { max: 31_536_000 };
/// The time that a step, or a participant that has accepted a call, waits for a completion: up to
/// 365 days.
pub const WAIT: Seconds = Seconds { max: 31_536_000 };

/// Steps of one saga.
pub const STEPS_MAX: usize = 1_000;
/// Names in one step's `after`.
pub const AFTER_MAX: usize = 1_000;

/// Bytes of a payload as Postgres prints the JSON. A result and a body with answers in it obey the
/// same limit.
pub const PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Levels of arrays and objects in a payload or in an answer that is kept.
pub const PAYLOAD_DEPTH_MAX: usize = 64;

/// Entries of `headers` or `labels`.
pub const ENTRIES_MAX: usize = 64;
/// Bytes of a header's name.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Bytes of a header's value.
pub const HEADER_VALUE_BYTES_MAX: usize = 4_096;
/// Bytes of a label's key.
pub const LABEL_KEY_BYTES_MAX: usize = 64;
/// Characters of a label's value.
pub const LABEL_VALUE_CHARS_MAX: usize = 256;

/// Bytes of a step's URL.
pub const URL_BYTES_MAX: usize = 2_048;
/// Bytes of a named participant's name.
pub const PARTICIPANT_NAME_BYTES_MAX: usize = 64;

/// A whole number from `min` to `max`.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// The lowest number that is allowed.
    pub min: u64,
    /// The highest number that is allowed.
    pub max: u64,
}

impl Whole {
    /// Whether the number is one of these.
    pub fn contains(self, number: i64) -> bool {
        u64::try_from(number).is_ok_and(|number| (self.min..=self.max).contains(&number))
    }

    /// The numbers of a row's JSON, which a worker reads as a float.
    pub fn range(self) -> RangeInclusive<f64> {
        self.min as f64..=self.max as f64
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}", grouped(self.min), grouped(self.max))
    }
}

/// A number of seconds from 0.001 to `max`.
#[derive(Debug, Clone, Copy)]
pub struct Seconds {
    /// The longest time that is allowed, in seconds.
    pub max: u64,
}

impl Seconds {
    /// Whether so many microseconds are within the limit.
    pub fn contains_us(self, microseconds: i128) -> bool {
        (1_000..=i128::from(self.max) * 1_000_000).contains(&microseconds)
    }

    /// The seconds of a row, which a worker reads as a float.
    pub fn range(self) -> RangeInclusive<f64> {
        0.001..=self.max as f64
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from 0.001 to {} seconds", grouped(self.max))
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_what_is_allowed() {
        assert_eq!(RETRY_LIMIT.to_string(), "a whole number from 0 to 1,000,000");
        assert_eq!(PRIORITY.to_string(), "a whole number from 0 to 3");
        assert_eq!(TIMEOUT_TO_FAIL.to_string(), "from 0.001 to 31,536,000 seconds");
        assert_eq!(GID.to_string(), "1 to 128 of the characters A-Z a-z 0-9 . _ : -");
        assert_eq!([0, 999, 1_000, 123_456].map(grouped), ["0", "999", "1,000", "123,456"]);
    }

    #[test]
    fn a_limit_contains_both_its_ends() {
        assert_eq!([-1, 0, 3, 4].map(|number| PRIORITY.contains(number)), [false, true, true, false]);
        let is_within = |microseconds| REQUEST_TIMEOUT.contains_us(microseconds);
        assert!(is_within(1_000) && is_within(86_400_000_000));
        assert!(!is_within(-1) && !is_within(999) && !is_within(86_400_000_001));
    }
}
