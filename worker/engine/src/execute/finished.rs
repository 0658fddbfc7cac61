//! A task that came back from its call, and the words and times that follow from the result.

use std::time::Duration;

use pgsaga_plan::{AbortCause, Completion, Event, Fault, Outcome, Wait};

use crate::db::OpenTransaction;
use crate::execute::call::CallResult;
use crate::execute::task::{STUCK_AFTER_LOST_ISOLATED, Task};
use crate::flow::backoff::retry_delay;

/// A task that came back from its call.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Boxed, because the task moves from loop to loop.
    pub(crate) task: Box<Task>,
    /// How the call ended. `None` for a task that was not called: it met an interrupt or its
    /// deadline, or has a fault.
    pub(crate) result: Option<CallResult>,
}

impl Finished {
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.result.as_ref().map(|result| result.outcome)
    }

    /// The planner's event.
    pub(crate) fn event(&self) -> Event {
        self.task.event(self.outcome())
    }

    /// What the settle knew to be reported of the op.
    pub(crate) fn completion(&self) -> Option<Completion> {
        self.task.report.as_ref().map(|report| report.completion)
    }

    /// The transaction in which the attempt is settled, if its handler had one.
    pub(crate) fn take_transaction(&mut self) -> Option<OpenTransaction> {
        self.result.as_mut()?.transaction.take().map(|transaction| *transaction)
    }

    pub(crate) fn status_code(&self) -> Option<i16> {
        self.result.as_ref()?.status_code.map(|code| code as i16)
    }

    pub(crate) fn duration_us(&self) -> Option<i32> {
        let duration = self.result.as_ref()?.duration;
        Some(i32::try_from(duration.as_micros()).unwrap_or(i32::MAX))
    }

    /// What the participant said, or what went wrong.
    pub(crate) fn message(&self) -> Option<&str> {
        self.result.as_ref()?.message.as_deref()
    }

    /// The reason for an abort or a stuck saga: the step's name, and the cause.
    pub(crate) fn reason(&self, cause: AbortCause) -> String {
        let words = match cause {
            AbortCause::Refused => self.refusal().unwrap_or("refused").to_owned(),
            AbortCause::RetryLimit(limit) => format!("retry limit {limit} reached"),
            AbortCause::Timeout => {
                format!("timeout after {} seconds", seconds(self.task.saga.timeout.unwrap_or_default()))
            }
            AbortCause::Fault(Fault::Poison) => {
                format!("killed {STUCK_AFTER_LOST_ISOLATED} workers while it ran isolated")
            }
            AbortCause::NoCompletion => self.no_completion(),
            AbortCause::Contradicted => {
                let why = self.refusal().unwrap_or("refused");
                format!("the call succeeded, and its completion is a failure: {why}")
            }
            AbortCause::Fault(Fault::Unbuildable) => self.task.unbuildable.clone().unwrap_or_default(),
        };
        format!("{}: {words}", self.task.step_name())
    }

    /// Why the op was refused: the comment of its completion, else the participant's words.
    fn refusal(&self) -> Option<&str> {
        self.task.report.as_ref().map_or(self.message(), |report| report.message.as_deref())
    }

    /// A wait ended without a completion.
    pub(crate) fn no_completion(&self) -> String {
        let wait = self.task.step().and_then(|step| step.wait).unwrap_or_default();
        format!("no completion within {} seconds", seconds(wait))
    }

    /// The wait for a completion that the participant has asked for, in microseconds.
    pub(crate) fn reports_within_us(&self) -> Option<i64> {
        let wait = self.result.as_ref()?.reports_within?;
        Some(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
    }

    /// The wait before the next attempt, in microseconds.
    pub(crate) fn delay_us(&self, wait: Wait) -> i64 {
        let interval = self.task.step().map_or(Duration::ZERO, |step| step.retry_interval);
        let asked = self.result.as_ref().and_then(|result| result.retry_after);
        retry_delay(wait, interval, asked).as_micros() as i64
    }

    /// The answer of the completion, else the participant's.
    pub(crate) fn answer(&self) -> Option<&str> {
        self.reported_answer().or_else(|| self.result.as_ref()?.answer.as_deref())
    }

    /// The answer of the completion. It is in the history since `complete` wrote it.
    pub(crate) fn reported_answer(&self) -> Option<&str> {
        self.task.report.as_ref()?.answer.as_deref()
    }

    /// The participant's answer, where the history keeps it for later steps.
    pub(crate) fn kept_answer(&self) -> Option<&str> {
        let is_kept = self.task.step().is_some_and(|step| step.keeps_answer);
        self.answer().filter(|_| is_kept && self.reported_answer().is_none())
    }
}

/// Formats a duration as DTM does: `5`, `0.5`.
fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:06}", duration.as_secs(), duration.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
