//! The sagas as a table: one line for each where the terminal is wide enough, else two.

use comfy_table::{Cell, Color};
use console::{measure_text_width, pad_str, style, truncate_str};

use super::{NAME_CHARS_MAX, next, reason};
use crate::operate::read::list::Listed;
use crate::operate::show::standing;
use crate::output::table_of;
use crate::words::{printable, time};

/// Width from which the table with all columns can be read. In a narrower one, a gid and a time
/// would be broken over many lines.
const WIDE_COLUMNS: usize = 160;
/// Width of the longest status.
const STATUS_COLUMNS: usize = 9;
/// Width of a time with its milliseconds.
const TIME_COLUMNS: usize = 23;

/// Returns the table for a terminal of this width; `None` for output that is no terminal.
pub(super) fn of(sagas: &[Listed], columns: Option<usize>) -> String {
    match columns {
        Some(columns) if columns < WIDE_COLUMNS => narrow(sagas, columns),
        _ => wide(sagas),
    }
}

fn wide(sagas: &[Listed]) -> String {
    let mut table = table_of(&["gid", "status", "queue", "steps", "created", "finished", "next", "reason"]);
    for saga in sagas {
        table.add_row([
            Cell::new(printable(&saga.gid, NAME_CHARS_MAX)),
            Cell::new(saga.status.as_str()).fg(standing::color(saga.status)),
            Cell::new(printable(&saga.queue, NAME_CHARS_MAX)),
            Cell::new(saga.steps),
            Cell::new(time(saga.created_at)),
            Cell::new(saga.finished_at.map(time).unwrap_or_default()),
            Cell::new(next(saga)),
            Cell::new(reason(saga)),
        ]);
    }
    table.to_string()
}

/// Two lines for a saga: what it is, and what comes next or why it ended.
fn narrow(sagas: &[Listed], columns: usize) -> String {
    let cut = |line: String| truncate_str(&line, columns, "…").trim_end().to_owned();
    let gids = sagas.iter().map(|saga| printable(&saga.gid, NAME_CHARS_MAX));
    let longest = gids.map(|gid| measure_text_width(&gid)).max().unwrap_or_default();
    // A gid stays whole where a status fits behind it, because it is what other commands take.
    let gid_columns = longest.max(3).min(columns.saturating_sub(STATUS_COLUMNS + 2).max(3));
    let row = |gid: &str, status: &str, created: &str| {
        let gid = pad_str(gid, gid_columns, console::Alignment::Left, Some("…"));
        cut(format!("{gid}  {status}  {created}"))
    };
    let pad = |word: &str| format!("{word:STATUS_COLUMNS$}");
    let mut lines = vec![row("gid", &pad("status"), "created")];
    lines.push("─".repeat(columns.min(gid_columns + 2 + STATUS_COLUMNS + 2 + TIME_COLUMNS)));
    for saga in sagas {
        let gid = printable(&saga.gid, NAME_CHARS_MAX);
        let status = style(pad(saga.status.as_str()));
        let status = match standing::color(saga.status) {
            Color::Green => status.green(),
            Color::Red => status.red(),
            Color::Yellow => status.yellow(),
            _ => status.cyan(),
        };
        let status = status.to_string();
        lines.push(row(&gid, &status, &time(saga.created_at)));
        let rest = [next(saga), reason(saga)].into_iter().filter(|text| !text.is_empty());
        let rest = rest.collect::<Vec<_>>().join("; ");
        if !rest.is_empty() {
            lines.push(cut(format!("  {rest}")));
        }
    }
    lines.join("\n")
}
