//! The state of a step in words and colours, and its settings that differ from its saga's.

use comfy_table::Color;
use pgsaga_plan::{Outcome, State};
use pgsaga_sql::contract::SagaStatus;

use crate::operate::read::saga::{Saga, Step};
use crate::words::printable;

/// Characters of the value of a setting.
const SETTING_CHARS_MAX: usize = 32;

pub(crate) fn word(saga: &Saga, index: usize) -> &'static str {
    let Some(step) = saga.steps.get(index) else { return "unknown" };
    let held = saga.tasks.iter().any(|task| task.step == index && task.worker.is_some());
    let waits = saga.tasks.iter().any(|task| task.step == index && task.waits_for_completion());
    let nothing_to_undo =
        step.compensate.is_none() && saga.head.status != SagaStatus::Succeeded && !saga.is_forward();
    match step.state {
        State::Waiting if saga.is_forward() => "waits",
        State::Waiting => "never ran",
        State::Reported => "reported as done",
        State::Acting if held => "runs",
        State::Acting if waits => "waits for a completion",
        State::Acting => "queued",
        State::Done | State::Undone if nothing_to_undo => "done, nothing to undo",
        State::Done if step.acted.succeeded => "done",
        State::Done => "skipped",
        State::NoEffect if step.acted.outcome == Some(Outcome::Failure) => "refused",
        State::NoEffect => "no effect",
        State::MaybeDone => "may have happened",
        State::Undoing if held => "is undone now",
        State::Undoing if waits => "undo waits for a completion",
        State::Undoing => "undo queued",
        State::Undone if step.undone.succeeded => "undone",
        State::Undone => "undo skipped",
        State::StuckActing | State::StuckUndoing => SagaStatus::Stuck.as_str(),
    }
}

/// The symbol of a state, and its colour.
pub(crate) fn mark(state: State) -> (&'static str, Color) {
    match state {
        State::Waiting => ("·", Color::Reset),
        State::Reported => ("✓", Color::Yellow),
        State::Acting => ("▸", Color::Cyan),
        State::Done => ("✓", Color::Green),
        State::NoEffect => ("✗", Color::Red),
        State::MaybeDone => ("?", Color::Yellow),
        State::Undoing => ("↩", Color::Cyan),
        State::Undone => ("↩", Color::Magenta),
        State::StuckActing | State::StuckUndoing => ("!", Color::Red),
    }
}

pub(crate) fn color(status: SagaStatus) -> Color {
    match status {
        SagaStatus::Succeeded => Color::Green,
        SagaStatus::Failed | SagaStatus::Stuck => Color::Red,
        SagaStatus::Aborting => Color::Yellow,
        SagaStatus::Submitted => Color::Cyan,
    }
}

/// The keys by which a step says otherwise than its saga, on one line.
pub(crate) fn settings(step: &Step) -> String {
    let settings = step.settings.iter();
    let settings = settings.map(|(key, value)| format!("{key} {}", printable(value, SETTING_CHARS_MAX)));
    settings.collect::<Vec<_>>().join(", ")
}
