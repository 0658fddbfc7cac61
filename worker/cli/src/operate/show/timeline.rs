//! The history, in the order of time.

use comfy_table::{Cell, CellAlignment, Color};

use pgsaga_plan::{Op, Outcome, Word as _};
use pgsaga_worker::db::Time;
use pgsaga_worker::execute::call::MESSAGE_BYTES_MAX;

use super::gaps::{GAP, print_with_gaps};
use crate::error::Error;
use crate::operate::read::saga::{Line, Saga};
use crate::operate::read::words::EventKind;
use crate::output::{out, plain_table};
use crate::words::{count, counted, printable, span_us, spans_us, time};

pub(crate) fn print(saga: &Saga) -> Result<(), Error> {
    out("\nTimeline, by the end of each try (UTC)")?;
    if saga.timeline.is_empty() {
        return out("  nothing has happened yet");
    }
    let mut table = plain_table();
    let mut gaps = Vec::new();
    let (mut place, mut tries, mut successes) = (0, 0, 0);
    for line in &saga.timeline {
        let left_out = line.place - place - 1;
        if left_out > 0 {
            let tries = line.tries_so_far - line.tries - tries;
            let own_success = if line.outcome == Some(Outcome::Success) { line.tries } else { 0 };
            let successes = line.successes_so_far - own_success - successes;
            gaps.push(gap(left_out, tries, successes));
            table.add_row([GAP]);
        }
        (place, tries, successes) = (line.place, line.tries_so_far, line.successes_so_far);
        table.add_row(row(saga, line));
    }
    if let Some(since_start) = table.column_mut(0) {
        since_start.set_cell_alignment(CellAlignment::Right);
    }
    print_with_gaps(&table, gaps)
}

fn gap(lines: i64, tries: i64, successes: i64) -> String {
    let lines = counted(lines, "line", "lines");
    let (tries, successes) = (counted(tries, "try", "tries"), count(successes));
    format!("{lines} left out: {tries}, of which {successes} succeeded; --lines or --json shows them")
}

fn row(saga: &Saga, line: &Line) -> Vec<Cell> {
    let since = |at: Time| relative(at.us_since(saga.head.created_at));
    let name = line.step.and_then(|step| saga.steps.get(step)).map_or("", |step| step.name.as_str());
    let message = line.message.as_deref().map(|text| printable(text, MESSAGE_BYTES_MAX)).unwrap_or_default();
    let mut cells = vec![Cell::new(since(line.at)), Cell::new(time(line.at))];
    if line.kind != EventKind::Attempt {
        let text = match (&line.decision, &line.decided_by) {
            (None, None) => message,
            (decision, by) => {
                let what = decision.as_deref().or(line.outcome.map(Outcome::as_str)).unwrap_or_default();
                let of = if line.op == Some(Op::Compensate) { " of its compensation" } else { "" };
                let by = by.as_deref().unwrap_or("somebody");
                let colon = if message.is_empty() { "" } else { ": " };
                format!("{what}{of} by {}{colon}{message}", printable(by, 64))
            }
        };
        cells.extend([
            Cell::new("◆").fg(Color::Cyan),
            Cell::new(name),
            Cell::new(line.kind.word()).fg(Color::Cyan),
        ]);
        cells.extend([Cell::new(""), Cell::new(""), Cell::new(""), Cell::new(text).fg(Color::Cyan)]);
        return cells;
    }
    let (mark, op_color) = match line.op {
        Some(Op::Compensate) => ("↩", Color::Magenta),
        _ => ("→", Color::Reset),
    };
    let op = line.op.map(Op::as_str).unwrap_or_default();
    cells.extend([Cell::new(mark).fg(op_color), Cell::new(name).fg(op_color), Cell::new(op).fg(op_color)]);
    cells.push(Cell::new(tries(line)));
    let outcome = line.outcome.map(Outcome::as_str).unwrap_or_default();
    let code = line.status_code.map(|code| format!(" {code}")).unwrap_or_default();
    cells.push(Cell::new(format!("{outcome}{code}")).fg(color(line.outcome)));
    cells.push(Cell::new(lasted(line)));
    let until = if line.tries > 1 {
        format!(
            "until {} ({}){}",
            since(line.until),
            time(line.until),
            if message.is_empty() { "" } else { "; the last: " }
        )
    } else {
        String::new()
    };
    cells.push(Cell::new(format!("{until}{message}")));
    cells
}

fn relative(us: i64) -> String {
    if us < 0 { format!("-{}", span_us(us.saturating_neg())) } else { format!("+{}", span_us(us)) }
}

fn tries(line: &Line) -> String {
    match (line.attempt, line.last_attempt) {
        (Some(first), Some(last)) if last > first => {
            format!("tries {}–{}", count(first.into()), count(last.into()))
        }
        (Some(first), _) => format!("try {}", count(first.into())),
        (None, _) => String::new(),
    }
}

/// The duration of the calls, and the waits before the next ones.
fn lasted(line: &Line) -> String {
    let took = line.duration_us_min.zip(line.duration_us_max);
    let took = took.map(|(least, most)| format!("took {}", spans_us(least.into(), most.into())));
    let wait = line.wait_us_min.zip(line.wait_us_max);
    let wait = wait.map(|(least, most)| format!("next after {}", spans_us(least, most)));
    took.into_iter().chain(wait).collect::<Vec<_>>().join(", ")
}

fn color(outcome: Option<Outcome>) -> Color {
    match outcome {
        Some(Outcome::Success) => Color::Green,
        Some(Outcome::Failure) => Color::Red,
        _ => Color::Yellow,
    }
}
