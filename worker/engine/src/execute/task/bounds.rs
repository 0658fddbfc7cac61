//! Range checks for values read from a row.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Checks a column's value against the range that INSERT and workers may write.
///
/// # Errors
/// The value found and the allowed range.
pub(crate) fn within<T: PartialOrd + Display>(
    place: impl Display,
    found: T,
    allowed: RangeInclusive<T>,
) -> Result<T, String> {
    if allowed.contains(&found) {
        return Ok(found);
    }
    Err(format!("{place}: found {found}; allowed: from {} to {}", allowed.start(), allowed.end()))
}
