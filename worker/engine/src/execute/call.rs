//! The seam between the worker and its executors: the call that an executor makes, and the result
//! that it returns. Both are the same for every kind of [`Target`](pgsaga_sql::contract::Target).

use std::time::{Duration, Instant};

use bytes::Bytes;
use pgsaga_plan::{Op, Outcome};
use pgsaga_sql::contract::{JsonSize, PAYLOAD_DEPTH_MAX};
use reqwest::header::HeaderMap;

use crate::db::OpenTransaction;
use crate::execute::task::Task;
use crate::execute::task::definition::Step;
use crate::flow::participants::Reach;
use crate::liveness::clock::DatabaseClock;

/// Upper bound on the bytes kept of a response's message.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// A call that an executor makes.
pub(crate) struct Call<'a> {
    pub(crate) task: &'a Task,
    pub(crate) step: &'a Step,
    /// The saga's and the step's headers, and the trace context.
    pub(crate) headers: HeaderMap,
    /// The payload, with the answers that it refers to.
    pub(crate) body: Bytes,
    pub(crate) started: Instant,
    /// The database's clock.
    pub(crate) clock: &'a DatabaseClock,
    /// Upper bound on the duration of the call.
    pub(crate) timeout: Duration,
    /// The saga uses the answer of a success.
    pub(crate) wants_answer: bool,
    /// Upper bound on the bytes of an answer that is read and kept.
    pub(crate) answer_bytes_max: usize,
}

impl<'a> Call<'a> {
    /// Makes the call of a task's op.
    ///
    /// # Errors
    /// The payload refers to what is not there, or is too long.
    pub(crate) fn new(
        task: &'a Task,
        step: &'a Step,
        started: Instant,
        clock: &'a DatabaseClock,
        answer_bytes_max: usize,
    ) -> Result<Call<'a>, NotSent> {
        let op = task.now.op;
        let mut headers = HeaderMap::with_capacity(step.headers.len() + 1);
        headers.extend(step.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(Call {
            task,
            step,
            headers,
            body: task.saga.body(task.now.step, op, &task.answers)?,
            started,
            clock,
            timeout: step.request_timeout,
            wants_answer: op == Op::Action && task.saga.uses_answer(task.now.step),
            answer_bytes_max,
        })
    }

    pub(crate) fn op(&self) -> Op {
        self.task.now.op
    }

    /// Appends the idempotency key of an op of the step.
    pub(crate) fn push_key(&self, text: &mut String, op: Op) {
        self.task.saga.push_key(text, self.task.now.step, op, &self.task.fresh_keys);
    }

    /// Ends the call without a response's status, answer and wait.
    pub(crate) fn ended(&self, outcome: Outcome, reached: Reach, message: Option<String>) -> CallResult {
        CallResult { duration: self.started.elapsed(), reached, ..CallResult::without_call(outcome, message) }
    }
}

/// What became of a call: an attempt with its outcome, or no attempt.
pub(crate) type Called = Result<CallResult, NotSent>;

/// A finished attempt, ready to be settled.
#[derive(Debug)]
pub(crate) struct CallResult {
    /// Outcome of the attempt.
    pub(crate) outcome: Outcome,
    /// HTTP status, if there was a response.
    pub(crate) status_code: Option<u16>,
    /// The participant's message or an error, for people. Clean text of at most
    /// [`MESSAGE_BYTES_MAX`] bytes.
    pub(crate) message: Option<String>,
    /// The wait that the participant asked for.
    pub(crate) retry_after: Option<Duration>,
    /// The participant has accepted the call, and reports its end within this time by a completion.
    pub(crate) reports_within: Option<Duration>,
    /// Time from sending to the end of the response, by a monotonic clock.
    pub(crate) duration: Duration,
    /// How far the call got.
    pub(crate) reached: Reach,
    /// How often the call was sent again because the participant did not process it.
    pub(crate) sent_again: u32,
    /// JSON of a successful response that the saga uses. jsonb can store the text.
    pub(crate) answer: Option<String>,
    /// The transaction of a transactional handler that has succeeded, in which the attempt is
    /// settled. Boxed, because few attempts have one.
    pub(crate) transaction: Option<Box<OpenTransaction>>,
}

impl CallResult {
    /// Creates an attempt that ended before anybody was called.
    pub(crate) fn without_call(outcome: Outcome, message: Option<String>) -> CallResult {
        CallResult {
            outcome,
            status_code: None,
            message,
            retry_after: None,
            reports_within: None,
            duration: Duration::ZERO,
            reached: Reach::Nobody,
            sent_again: 0,
            answer: None,
            transaction: None,
        }
    }
}

/// Why there was no attempt, for people.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// No worker can build this request.
    Unbuildable(String),
    /// The participant's connection takes no more calls than this many, if that is known. The call
    /// is made later.
    Busy(Option<usize>),
    /// This worker may not call the participant, or does not know its address. Another worker may.
    /// The reason names the flag that would allow the call.
    Denied(String),
    /// The worker has drained for as long as it may, and has dropped the handler.
    Dropped,
}

impl From<String> for NotSent {
    fn from(why: String) -> NotSent {
        NotSent::Unbuildable(why)
    }
}

/// Returns text that Postgres can store and a terminal can show: no control characters, at most
/// [`MESSAGE_BYTES_MAX`] bytes.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len().min(MESSAGE_BYTES_MAX));
    let is_blank = |character: char| character.is_whitespace() || character.is_control();
    for character in text.trim_matches(is_blank).chars() {
        // control: message-controls
        let character = if character.is_control() { ' ' } else { character };
        // control: message-length
        if cleaned.len() + character.len_utf8() > MESSAGE_BYTES_MAX {
            break;
        }
        cleaned.push(character);
    }
    cleaned.truncate(cleaned.trim_end().len());
    cleaned
}

/// Returns the body as JSON text that jsonb can store and print within `bytes_max`; `None`
/// otherwise. (`1e131071` has eight bytes, but jsonb prints 131,072.)
pub fn json(text: &[u8], bytes_max: usize) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?.trim();
    // A payload that held a deeper answer would be deeper than a payload may be.
    // control: answer-bounds
    JsonSize::of_text(text)?.is_within(bytes_max, PAYLOAD_DEPTH_MAX).then(|| text.to_owned())
}
