//! What the INSERT takes and workers write, checked where a row is read.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Whether a column's value is one that the INSERT takes or a worker writes.
///
/// # Errors
/// What was found, and what is allowed.
pub fn within<T: PartialOrd + Display>(
    place: impl Display,
    found: T,
    allowed: RangeInclusive<T>,
) -> Result<T, String> {
    if allowed.contains(&found) {
        return Ok(found);
    }
    Err(format!("{place}: found {found}; allowed: from {} to {}", allowed.start(), allowed.end()))
}
