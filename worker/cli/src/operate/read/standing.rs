//! Where a step stands.

use pgsaga_plan::{Op, State};

use super::parts::Step;

/// Where a step stands: by what is queued or stuck, else by the saga's own progress if it has one,
/// else by its history.
pub(super) fn of(step: &Step, progress: Option<State>, task: Option<Op>, stuck: Option<Op>) -> State {
    match (task, stuck) {
        (Some(Op::Action), _) => State::Acting,
        (Some(Op::Compensate), _) => State::Undoing,
        (None, Some(Op::Action)) => State::StuckActing,
        (None, Some(Op::Compensate)) => State::StuckUndoing,
        (None, None) => at_rest(step, progress),
    }
}

fn at_rest(step: &Step, progress: Option<State>) -> State {
    // A saga that a person ended keeps the progress that it had, although nothing is under way
    // without a task.
    let under_way = |state: &State| {
        matches!(state, State::Acting | State::Undoing | State::StuckActing | State::StuckUndoing)
    };
    if let Some(state) = progress.filter(|state| !under_way(state)) {
        return state;
    }
    match (&step.acted, &step.undone) {
        (_, undone) if undone.succeeded => State::Undone,
        // A person skipped the op at which the step stood last.
        (acted, undone) if step.skipped && (acted.succeeded || undone.tries > 0) => State::Undone,
        (_, undone) if undone.tries > 0 => State::MaybeDone,
        (acted, _) if acted.succeeded || step.skipped => State::Done,
        (acted, _) if acted.may_have_happened => State::MaybeDone,
        (acted, _) if acted.tries > 0 => State::NoEffect,
        _ => State::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::read::parts::Tries;

    fn step(acted: &str, undone: &str, skipped: bool) -> Step {
        use pgsaga_plan::{Attempt, Outcome, Word as _};
        let tries = |words: &str| {
            let outcomes: Vec<Outcome> =
                words.split_whitespace().map(|word| Outcome::of(word).unwrap()).collect();
            let last =
                outcomes.iter().fold(Attempt::first(0, Op::Action), |now, &outcome| now.after(Some(outcome)));
            Tries {
                tries: outcomes.len() as i64,
                succeeded: outcomes.contains(&Outcome::Success),
                may_have_happened: last.may_have_taken_effect(),
                outcome: outcomes.last().copied(),
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
            settings: Vec::new(),
            acted: tries(acted),
            undone: tries(undone),
            skipped,
            state: State::Waiting,
        }
    }

    #[test]
    fn without_a_task_the_history_says_where_a_step_stands() {
        for (acted, undone, skipped, state) in [
            ("", "", false, State::Waiting),
            ("unknown success", "", false, State::Done),
            ("failure", "", false, State::NoEffect),
            ("unsent", "", false, State::NoEffect),
            ("unknown failure", "", false, State::MaybeDone),
            ("ongoing", "", false, State::MaybeDone),
            ("ongoing unsent", "", false, State::MaybeDone),
            ("ongoing failure", "", false, State::NoEffect),
            ("success", "unknown success", false, State::Undone),
            ("success", "unknown", false, State::MaybeDone),
            ("unknown", "", true, State::Done),
            ("success", "failure", true, State::Undone),
            ("unknown", "failure", true, State::Undone),
        ] {
            assert_eq!(at_rest(&step(acted, undone, skipped), None), state, "{acted}, {undone}, {skipped}");
        }
    }

    #[test]
    fn the_sagas_own_progress_counts_before_the_history() {
        let done = step("success", "", false);
        assert_eq!(at_rest(&done, Some(State::Undone)), State::Undone);
        // A person ended the saga: its progress is as it was.
        assert_eq!(at_rest(&done, Some(State::Acting)), State::Done);
    }
}
