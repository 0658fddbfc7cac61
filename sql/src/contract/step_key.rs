//! The keys of a step: one table for the producer's validation, for `pgsaga check` and for what
//! `pgsaga show` says about a step. `check_saga` has the same table in SQL.

use std::fmt;

use super::limit::{REQUEST_TIMEOUT, RETRY_INTERVAL, RETRY_LIMIT, STEP_NAME, Seconds, WAIT, Whole};
use super::target::URLS;

/// The keys of a step, in the order in which an error names and a validation checks them.
pub const STEP_KEYS: [StepKey; 13] = [
    key("name", StepValue::Name),
    key("action", StepValue::Url),
    key("compensate", StepValue::Url),
    key("payload", StepValue::Payload),
    key("compensate_payload", StepValue::Payload),
    key("after", StepValue::Names),
    key("pivot", StepValue::Pivot),
    key("headers", StepValue::Headers),
    key("retry_limit", StepValue::Whole(RETRY_LIMIT)),
    key("compensate_retry_limit", StepValue::Whole(RETRY_LIMIT)),
    key("retry_interval_seconds", StepValue::Seconds(RETRY_INTERVAL)),
    key("request_timeout_seconds", StepValue::Seconds(REQUEST_TIMEOUT)),
    key("wait_seconds", StepValue::Seconds(WAIT)),
];

const fn key(name: &'static str, value: StepValue) -> StepKey {
    StepKey { name, value }
}

/// A key that a step may have.
#[derive(Debug, Clone, Copy)]
pub struct StepKey {
    /// The key, as the column `steps` holds it.
    pub name: &'static str,
    /// The kind of value that the key takes.
    pub value: StepValue,
}

impl StepKey {
    /// Whether the key is a number that says how the ops of the step are run.
    pub fn is_setting(&self) -> bool {
        matches!(self.value, StepValue::Whole(_) | StepValue::Seconds(_))
    }
}

/// The value of a step's key. Its `Display` is what an error says is allowed.
#[derive(Debug, Clone, Copy)]
pub enum StepValue {
    /// The step's name, unique in its saga.
    Name,
    /// A URL, or nothing to call.
    Url,
    /// The body of a call.
    Payload,
    /// Names of other steps.
    Names,
    /// Whether the step is the pivot.
    Pivot,
    /// Headers of the step's calls.
    Headers,
    /// A whole number.
    Whole(Whole),
    /// A number of seconds. The key ends with `_seconds`.
    Seconds(Seconds),
}

impl fmt::Display for StepValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepValue::Name => STEP_NAME.fmt(f),
            StepValue::Url => f.write_str(URLS),
            StepValue::Payload => f.write_str("any JSON"),
            StepValue::Names => f.write_str("an array of up to 1,000 names of other steps"),
            StepValue::Pivot => f.write_str("true or false"),
            StepValue::Headers => f.write_str("an object of strings"),
            StepValue::Whole(limit) => limit.fmt(f),
            StepValue::Seconds(limit) => limit.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `check_saga` tells seconds from whole numbers by the key.
    #[test]
    fn a_number_of_seconds_has_its_unit_in_its_key() {
        for StepKey { name, value } in STEP_KEYS {
            assert_eq!(name.ends_with("_seconds"), matches!(value, StepValue::Seconds(_)), "{name}");
        }
    }
}
