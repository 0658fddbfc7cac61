//! A saga's definition, decoded from the claimed row.

mod decode;
mod step;

pub(crate) use step::Step;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgsaga_sql::contract::{JsonSize, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};

use crate::execute::task::references::{self, Answers};
use crate::flow::capacity::MemoryShare;
use pgsaga_plan::{Op, StepGraph};

/// Upper bound on the headers of a step, including those of the saga. The INSERT's limit is lower.
/// Far above this limit, inserting into a header map panics.
const HEADERS_MAX: usize = 1_000;
/// Levels of a result: those of a payload, and of an answer in it.
const RESULT_DEPTH_MAX: usize = 2 * PAYLOAD_DEPTH_MAX;

/// A saga's definition: the values of the INSERT, with defaults filled in.
#[derive(Debug)]
pub(crate) struct Definition {
    /// The saga's global transaction id.
    pub(crate) gid: String,
    /// The steps in the order of the INSERT; at least one.
    pub(crate) steps: Vec<Step>,
    /// The planner's view of the steps.
    pub(crate) graph: StepGraph,
    /// The saga's `timeout_to_fail`, if it has one.
    pub(crate) timeout: Option<Duration>,
    /// Template of the saga's result. `None`: the result is the last step's answer.
    pub(crate) result_mapping: Option<String>,
    /// Share of this definition in the worker's memory limit.
    pub(crate) _memory: MemoryShare,
}

/// Number of fresh idempotency keys that operators assigned to an op, by `<position>/<op>`.
#[derive(Debug, Clone, Default)]
pub(crate) struct FreshKeys(Option<Arc<BTreeMap<String, u32>>>);

impl FreshKeys {
    /// Decodes the column `fresh_keys`.
    ///
    /// # Errors
    /// The column is not an object of numbers.
    pub(crate) fn read(text: Option<&str>) -> Result<FreshKeys, serde_json::Error> {
        Ok(FreshKeys(text.map(serde_json::from_str).transpose()?.map(Arc::new)))
    }

    /// Returns the suffix of an op's key: empty, or `/1`, `/2`, …
    pub(crate) fn suffix(&self, step: usize, op: Op) -> String {
        let fresh = self.0.as_ref().and_then(|keys| keys.get(&format!("{}/{}", step + 1, op.as_str())));
        // control: fresh-key-suffix
        fresh.map(|nth| format!("/{nth}")).unwrap_or_default()
    }
}

impl Definition {
    /// Appends the idempotency key of an op of step `index`. All attempts share it unless an
    /// operator assigned a fresh key.
    pub(crate) fn push_key(&self, text: &mut String, index: usize, op: Op, fresh: &FreshKeys) {
        text.extend([&self.gid, "/", self.step_name(index), "/", op.as_str()]);
        text.push_str(&fresh.suffix(index, op));
    }

    /// Returns the name of step `index`.
    pub(crate) fn step_name(&self, index: usize) -> &str {
        self.steps.get(index).map_or("?", |step| step.name.as_str())
    }

    /// Returns the body of an op of step `index`, with its references resolved.
    ///
    /// # Errors
    /// A message for people: an action refers to a missing value, or the body is too long.
    pub(crate) fn body(&self, index: usize, op: Op, answers: &Answers) -> Result<Bytes, String> {
        let Some(step) = self.steps.get(index) else { return Err("no such step".to_owned()) };
        let raw = step.raw_body(op);
        if !step.refers || !references::any(raw) {
            return Ok(raw.clone());
        }
        let key = if op == Op::Compensate && step.compensate_payload.is_some() {
            "compensate_payload"
        } else {
            "payload"
        };
        let text = std::str::from_utf8(raw).map_err(|error| format!("{key}: {error}"))?;
        let find = |name: &str| answers.get(self.steps.iter().position(|step| step.name == name)?);
        let body = references::resolve(text, op == Op::Compensate, PAYLOAD_BYTES_MAX, find)
            .map_err(|missing| format!("not sent: {key}: {missing}"))?;
        if body.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "not sent: {key}: longer than {PAYLOAD_BYTES_MAX} bytes with the answers that it refers to"
            ));
        }
        Ok(body.into())
    }

    /// Returns the saga's result as JSON; `last` is the answer of the last step.
    pub(crate) fn result(&self, answers: &Answers, last: Option<&str>) -> Option<String> {
        let Some(mapping) = &self.result_mapping else { return last.map(str::to_owned) };
        let find = |name: &str| answers.get(self.steps.iter().position(|step| step.name == name)?);
        // A missing value becomes null. A result that exceeds the limits of a payload is dropped.
        let result = references::resolve(mapping, true, PAYLOAD_BYTES_MAX, find).ok()?;
        JsonSize::of_text(&result)?.is_within(PAYLOAD_BYTES_MAX, RESULT_DEPTH_MAX).then_some(result)
    }

    /// Whether the answer of step `index`'s action is used, including as the saga's result.
    pub(crate) fn uses_answer(&self, index: usize) -> bool {
        self.is_result(index) || self.steps.get(index).is_some_and(|step| step.keeps_answer)
    }

    /// Whether the answer of step `index`'s action is the saga's result.
    pub(crate) fn is_result(&self, index: usize) -> bool {
        self.result_mapping.is_none() && index + 1 == self.steps.len()
    }
}

/// The columns of a saga's row.
#[derive(Debug, Clone, Default)]
pub(crate) struct SagaColumns {
    /// The query parameter `gid`.
    pub(crate) gid: String,
    /// The column `steps`, as JSON text.
    pub(crate) steps: String,
    /// The column `headers`, as JSON text.
    pub(crate) headers: Option<String>,
    /// The column `retry_limit` of the saga.
    pub(crate) retry_limit: Option<i32>,
    /// The column `compensate_retry_limit` of the saga.
    pub(crate) compensate_retry_limit: Option<i32>,
    /// The column `timeout_to_fail`, in seconds.
    pub(crate) timeout: Option<f64>,
    /// The column `compensate_failed`.
    pub(crate) compensate_failed: bool,
    /// The row keeps its progress: the steps do not simply run one after the other, or some wait.
    pub(crate) parallel: bool,
    /// Bodies or the result may refer to answers.
    pub(crate) refers: bool,
    /// The column `result_mapping`, as JSON text.
    pub(crate) result_mapping: Option<String>,
    /// The column `retry_interval`, in seconds.
    pub(crate) retry_interval: f64,
    /// The column `request_timeout`, in seconds.
    pub(crate) request_timeout: f64,
}

/// The reason why a stored row cannot be run. The INSERT refuses all such rows, so a worker finds
/// one only after someone edited the row by hand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DecodeError {
    /// JSON that does not have the structure of the contract.
    #[error("steps cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A header that HTTP cannot transmit.
    #[error("header {0:?} cannot be sent")]
    Header(String),
    /// More than a request can hold.
    #[error("{0} headers; allowed: up to {HEADERS_MAX}")]
    Headers(usize),
    /// `after` contains a cycle or an unknown step.
    #[error("{0}")]
    Order(#[from] pgsaga_plan::Cyclic),
    /// A value outside the range of the INSERT, with the allowed range.
    #[error("{0}")]
    Range(String),
}

#[cfg(test)]
mod tests;
