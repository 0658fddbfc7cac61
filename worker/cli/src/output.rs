//! What a command prints: lines, JSON and tables on standard output, complaints on standard error.

use std::fmt::Display;
use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

use crate::error::Error;
use crate::words::{printable_json, printable_lines};

/// A table as wide as the terminal, with a line below its header only.
pub(crate) fn table_of(header: &[&str]) -> Table {
    const LINE: LineStyle = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LINE))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    fit(&mut table);
    table
}

/// Width of a terminal that does not say how wide it is, such as one that a container or a program
/// has made.
const USUAL_COLUMNS: u16 = 80;

/// Returns the width of the terminal; `None` where standard output is none.
pub(crate) fn columns() -> Option<usize> {
    plain_table().width().map(usize::from)
}

/// A terminal of size 0 would get a table of single characters.
fn fit(table: &mut Table) {
    if table.width() == Some(0) {
        table.set_width(USUAL_COLUMNS);
    }
}

pub(crate) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    fit(&mut table);
    table
}

/// Prints JSON so that it can be read on a terminal as well as by a program.
pub(crate) fn out_json(json: impl Display) -> Result<(), Error> {
    out(printable_json(&json.to_string()))
}

/// Prints a line. A reader that closes its end (`pgsaga list | head`) is an error, not a panic.
pub(crate) fn out(line: impl Display) -> Result<(), Error> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(Error::io("print the result"))
}

/// Says on standard error what went wrong. The text may quote what others wrote.
pub(crate) fn complain(what: impl Display) {
    eprintln!("pgsaga: {}", printable_lines(&what.to_string()));
}
