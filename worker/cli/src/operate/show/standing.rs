//! Where a step stands, and how that is said and drawn.

use comfy_table::Color;

use super::read::{Saga, Step, Tries};
use pgsaga_plan::Op;
use pgsaga_plan::State;

/// Where a step stands: by the saga's own progress where it has one, else by what is queued or stuck, else by its history.
pub(crate) fn of(step: &Step, progress: Option<State>, task: Option<Op>, stuck: Option<Op>) -> State {
    match (task, stuck) {
        (Some(Op::Action), _) => return State::Acting,
        (Some(Op::Compensate), _) => return State::Undoing,
        (None, Some(Op::Action)) => return State::StuckActing,
        (None, Some(Op::Compensate)) => return State::StuckUndoing,
        (None, None) => {}
    }
    // What a person ended keeps the progress that it had; without a task nothing is under way.
    let under_way = |state: &State| {
        matches!(state, State::Acting | State::Undoing | State::StuckActing | State::StuckUndoing)
    };
    if let Some(state) = progress.filter(|state| !under_way(state)) {
        return state;
    }
    let ongoing = |tries: &Tries| tries.outcome.as_deref() == Some("ongoing");
    match (&step.acted, &step.undid) {
        (_, undid) if undid.done => State::Undone,
        // Skipped was the op at which it stood last.
        (acted, undid) if step.skipped && (acted.done || undid.tries > 0) => State::Undone,
        (_, undid) if undid.tries > 0 => State::MaybeDone,
        (acted, _) if acted.done || step.skipped => State::Done,
        (acted, _) if acted.doubtful || ongoing(acted) => State::MaybeDone,
        (acted, _) if acted.tries > 0 => State::NoEffect,
        _ => State::Waiting,
    }
}

/// A step's standing in words.
pub(crate) fn word(saga: &Saga, index: usize) -> &'static str {
    let Some(step) = saga.steps.get(index) else { return "unknown" };
    let held = saga.tasks.iter().any(|task| task.step == index && task.worker.is_some());
    let nothing_to_undo = step.compensate.is_none() && saga.head.status != "succeeded" && !saga.is_forward();
    match step.state {
        State::Waiting if saga.is_forward() => "waits",
        State::Waiting => "never ran",
        State::Acting if held => "runs",
        State::Acting => "queued",
        State::Done | State::Undone if nothing_to_undo => "done, nothing to undo",
        State::Done if step.acted.done => "done",
        State::Done => "skipped",
        State::NoEffect if step.acted.outcome.as_deref() == Some("failure") => "refused",
        State::NoEffect => "no effect",
        State::MaybeDone => "may have happened",
        State::Undoing if held => "is undone now",
        State::Undoing => "undo queued",
        State::Undone if step.undid.done => "undone",
        State::Undone => "undo skipped",
        State::StuckActing | State::StuckUndoing => "stuck",
    }
}

/// A step's standing as a mark and its colour.
pub(crate) fn mark(state: State) -> (&'static str, Color) {
    match state {
        State::Waiting => ("·", Color::Reset),
        State::Acting => ("▸", Color::Cyan),
        State::Done => ("✓", Color::Green),
        State::NoEffect => ("✗", Color::Red),
        State::MaybeDone => ("?", Color::Yellow),
        State::Undoing => ("↩", Color::Cyan),
        State::Undone => ("↩", Color::Magenta),
        State::StuckActing | State::StuckUndoing => ("!", Color::Red),
    }
}

impl Saga {
    /// Its steps are done one after the other or at once, none is undone.
    pub(crate) fn is_forward(&self) -> bool {
        match self.head.status.as_str() {
            "submitted" => true,
            "stuck" => self.stuck.iter().all(|stuck| stuck.op == Some(Op::Action)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(acted: &str, undid: &str, skipped: bool) -> Step {
        let tries = |outcomes: &str| {
            let outcomes: Vec<&str> = outcomes.split_whitespace().collect();
            Tries {
                tries: outcomes.len() as i64,
                done: outcomes.contains(&"success"),
                doubtful: outcomes.contains(&"unknown"),
                outcome: outcomes.last().map(|&outcome| outcome.to_owned()),
                ..Tries::default()
            }
        };
        Step {
            name: "pay".to_owned(),
            action: String::new(),
            compensate: None,
            payload: None,
            pivot: false,
            after: Vec::new(),
            retry_interval_seconds: None,
            retry_limit: None,
            compensate_retry_limit: None,
            acted: tries(acted),
            undid: tries(undid),
            skipped,
            state: State::Waiting,
        }
    }

    #[test]
    fn without_a_task_the_history_says_where_a_step_stands() {
        for (acted, undid, skipped, state) in [
            ("", "", false, State::Waiting),
            ("unknown success", "", false, State::Done),
            ("failure", "", false, State::NoEffect),
            ("unsent", "", false, State::NoEffect),
            ("unknown failure", "", false, State::MaybeDone),
            ("ongoing", "", false, State::MaybeDone),
            ("ongoing failure", "", false, State::NoEffect),
            ("success", "unknown success", false, State::Undone),
            ("success", "unknown", false, State::MaybeDone),
            ("unknown", "", true, State::Done),
            ("success", "failure", true, State::Undone),
            ("unknown", "failure", true, State::Undone),
        ] {
            assert_eq!(
                of(&step(acted, undid, skipped), None, None, None),
                state,
                "{acted}, {undid}, {skipped}"
            );
        }
    }

    #[test]
    fn what_is_queued_or_stuck_says_it_first_then_the_sagas_own_progress() {
        let done = step("success", "", false);
        assert_eq!(of(&done, Some(State::Acting), Some(Op::Compensate), None), State::Undoing);
        assert_eq!(of(&done, None, None, Some(Op::Compensate)), State::StuckUndoing);
        assert_eq!(of(&done, Some(State::Undone), None, None), State::Undone);
        // A person ended the saga: its progress is as it was.
        assert_eq!(of(&done, Some(State::Acting), None, None), State::Done);
    }
}
