//! Tables that replace rows by a line across all columns.

use comfy_table::Table;

use crate::error::Error;
use crate::output::out;

/// The only cell of a row that such a line replaces.
pub(crate) const GAP: &str = "⋮";

/// Prints a table and replaces each row of [`GAP`] by the next of these lines.
pub(crate) fn print_with_gaps(table: &Table, gaps: Vec<String>) -> Result<(), Error> {
    let mut gaps = gaps.into_iter();
    for line in table.trim_fmt().lines() {
        match if line.trim() == GAP { gaps.next() } else { None } {
            Some(gap) => out(format_args!("    … {gap}"))?,
            None => out(line)?,
        }
    }
    Ok(())
}
