//! A task that came back from its call, and the words and times that follow from the result.

use std::time::Duration;

use pgsaga_plan::{AbortCause, Fault, Outcome, Wait};

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
            AbortCause::Refused => self.message().unwrap_or("refused").to_owned(),
            AbortCause::RetryLimit(limit) => format!("retry limit {limit} reached"),
            AbortCause::Timeout => {
                format!("timeout after {} seconds", seconds(self.task.saga.timeout.unwrap_or_default()))
            }
            AbortCause::Fault(Fault::Poison) => {
                format!("killed {STUCK_AFTER_LOST_ISOLATED} workers while it ran isolated")
            }
            AbortCause::NoCompletion => "no completion before the end of the wait".to_owned(),
            AbortCause::Contradicted => "the call succeeded, and its completion is a failure".to_owned(),
            AbortCause::Fault(Fault::Unbuildable) => self.task.unbuildable.clone().unwrap_or_default(),
        };
        format!("{}: {words}", self.task.step_name())
    }

    /// The wait before the next attempt, in microseconds.
    pub(crate) fn delay_us(&self, wait: Wait) -> i64 {
        let interval = self.task.step().map_or(Duration::ZERO, |step| step.retry_interval);
        let asked = self.result.as_ref().and_then(|result| result.retry_after);
        retry_delay(wait, interval, asked).as_micros() as i64
    }

    pub(crate) fn answer(&self) -> Option<&str> {
        self.result.as_ref()?.answer.as_deref()
    }

    /// The participant's answer, where the history keeps it for later steps.
    pub(crate) fn kept_answer(&self) -> Option<&str> {
        self.answer().filter(|_| self.task.step().is_some_and(|step| step.keeps_answer))
    }
}

/// Formats a duration as DTM does: `5`, `0.5`.
fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:06}", duration.as_secs(), duration.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
