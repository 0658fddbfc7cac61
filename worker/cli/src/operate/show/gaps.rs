//! Tables in which lines that are left out are counted across all columns.

use comfy_table::Table;

use crate::error::Error;
use crate::output::out;

/// A row of just this is a gap.
pub(crate) const GAP: &str = "⋮";

/// Prints a table whose rows of [`GAP`] alone stand for these lines: a text across all columns.
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
