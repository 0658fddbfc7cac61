//! The saga on a terminal: its head, its steps, its timeline, and what happens next.

use comfy_table::{Attribute, Cell};
use console::style;
use pgsaga_plan::State;
use pgsaga_sql::contract::SagaStatus;

use super::gaps::{GAP, print_with_gaps};
use super::{next, standing, timeline};
use crate::error::Error;
use crate::operate::read::saga::{Head, Saga};
use crate::output::{out, plain_table};
use crate::words::{counted, printable, some_names, span_us, time};

/// Upper bound on the characters of a reason, a result or a URL.
const TEXT_CHARS_MAX: usize = 1100;
const JSON_CHARS_MAX: usize = 400;
const URL_CHARS_MAX: usize = 100;
/// Upper bound on the characters of a gid, a queue or a step's name.
const NAME_CHARS_MAX: usize = 128;
const PAYLOAD_CHARS_MAX: usize = 60;
/// Upper bound on the names of steps in one line.
pub(super) const NAMES_MAX: usize = 6;

/// Draws the saga, with about `lines` lines of its steps.
pub(crate) fn print(saga: &Saga, lines: i64) -> Result<(), Error> {
    head(&saga.head)?;
    steps(saga, usize::try_from(lines).unwrap_or(usize::MAX))?;
    timeline::print(saga)?;
    next::print(saga)
}

fn head(head: &Head) -> Result<(), Error> {
    let status = style(head.status.as_str());
    let status = match head.status {
        SagaStatus::Succeeded => status.green(),
        SagaStatus::Failed | SagaStatus::Stuck => status.red(),
        SagaStatus::Aborting => status.yellow(),
        SagaStatus::Submitted => status.cyan(),
    };
    out(format_args!("saga {}: {}", style(printable(&head.gid, NAME_CHARS_MAX)).bold(), status.bold()))?;
    if let Some(reason) = &head.reason {
        out(format_args!("reason: {}", printable(reason, TEXT_CHARS_MAX)))?;
    }
    let created = format!("created {}", time(head.created_at));
    let finished = head
        .finished_at
        .map(|at| format!(", finished {}, after {}", time(at), span_us(at.us_since(head.created_at))));
    out(format_args!("{created}{}", finished.unwrap_or_default()))?;
    if let Some(run_at) = head.run_at {
        out(format_args!("to run from {} on", time(run_at)))?;
    }
    if let Some(deadline) = head.deadline {
        let left = match head.deadline_us {
            _ if head.finished_at.is_some() => String::new(),
            Some(us) if us > 0 => format!(", in {}", span_us(us)),
            Some(us) => format!(", {} ago", span_us(us.saturating_neg())),
            None => String::new(),
        };
        out(format_args!("deadline {}{left}", time(deadline)))?;
    }
    if head.queue != "default" || head.priority != 1 {
        out(format_args!("queue {}, priority {}", printable(&head.queue, NAME_CHARS_MAX), head.priority))?;
    }
    for (name, json) in [("labels", &head.labels), ("result", &head.result)] {
        if let Some(json) = json {
            out(format_args!("{name} {}", printable(json, JSON_CHARS_MAX)))?;
        }
    }
    Ok(())
}

/// The steps in the order of the definition. If there are too many, steps that wait or are done are
/// left out first.
fn steps(saga: &Saga, lines: usize) -> Result<(), Error> {
    out("\nSteps")?;
    let parallel = saga.head.progress.is_some();
    let mut shown: Vec<usize> = (0..saga.steps.len()).collect();
    if shown.len() > lines {
        let plain =
            |index: &usize| matches!(saga.steps[*index].state, State::Waiting | State::Done | State::Undone);
        let (mut plain, mut kept): (Vec<usize>, Vec<usize>) = shown.into_iter().partition(plain);
        kept.truncate(lines / 2);
        // The first and the last of them.
        let room = lines - kept.len();
        plain.drain(room / 2..plain.len() - (room - room / 2));
        kept.extend(plain);
        kept.sort_unstable();
        shown = kept;
    }
    let mut table = plain_table();
    let mut gaps = Vec::new();
    let mut next = 0;
    for index in shown.into_iter().chain([saga.steps.len()]) {
        let left_out = index - next;
        if left_out > 0 {
            gaps.push(format!("{} left out", counted(left_out as i64, "step", "steps")));
            table.add_row([GAP]);
        }
        next = index + 1;
        if index < saga.steps.len() {
            table.add_row(step(saga, index, parallel));
        }
    }
    print_with_gaps(&table, gaps)
}

fn step(saga: &Saga, index: usize, parallel: bool) -> Vec<Cell> {
    let step = &saga.steps[index];
    let (mark, color) = standing::mark(step.state);
    let pivot = if step.pivot { " (pivot)" } else { "" };
    let mut cells = vec![
        Cell::new(mark).fg(color),
        Cell::new(format!("{}{pivot}", printable(&step.name, NAME_CHARS_MAX))),
        Cell::new(standing::word(saga, index)).fg(color),
    ];
    let tries = counted(step.acted.tries, "try", "tries");
    cells.push(Cell::new(match (step.acted.tries, step.undone.tries) {
        (0, 0) => String::new(),
        (_, 0) => tries,
        (_, undid) => format!("{tries}, {} to undo", counted(undid, "try", "tries")),
    }));
    if parallel {
        cells.push(Cell::new(after(saga, &step.after)));
    }
    let url = |url: &str| if url.is_empty() { "(no call)".to_owned() } else { printable(url, URL_CHARS_MAX) };
    cells.push(Cell::new(if step.waits() { "(waits)".to_owned() } else { url(&step.action) }));
    cells.push(Cell::new(
        step.compensate.as_deref().map(url).map(|url| format!("↩ {url}")).unwrap_or_default(),
    ));
    let payload = step.payload.as_deref().map(|payload| printable(payload, PAYLOAD_CHARS_MAX));
    cells.push(Cell::new(payload.unwrap_or_default()).add_attribute(Attribute::Dim));
    if !step.settings.is_empty() {
        cells.push(Cell::new(standing::settings(step)));
    }
    cells
}

fn after(saga: &Saga, waits_for: &[usize]) -> String {
    if waits_for.is_empty() {
        return "at once".to_owned();
    }
    let names: Vec<&str> = waits_for.iter().map(|&before| saga.steps[before].name.as_str()).collect();
    format!("after {}", some_names(&names, NAMES_MAX))
}
