//! A saga's definition, decoded from the claimed row.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgsaga_sql::contract::{
    JsonSize, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, REQUEST_TIMEOUT, RETRY_INTERVAL, RETRY_LIMIT, Seconds,
    TIMEOUT_TO_FAIL, default_step_name, is_reserved_header, participant,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::execute::task::bounds::within;
use crate::execute::task::references::{self, Answers};
use crate::flow::capacity::MemoryShare;
use pgsaga_plan::Op;
use pgsaga_plan::{StepGraph, StepPolicy};

/// One step of a saga.
#[derive(Debug)]
pub(crate) struct Step {
    /// The step's name. Its default is the position: `01`, `02`, …
    pub(crate) name: String,
    /// URL of the action. Empty: success without a call.
    pub(crate) action: String,
    /// URL of the compensation. `None`: nothing to undo. Empty: success without a call.
    pub(crate) compensate: Option<String>,
    /// Body of both ops, exactly as Postgres prints the jsonb.
    pub(crate) payload: Bytes,
    /// Body of the compensation, if it differs from `payload`.
    pub(crate) compensate_payload: Option<Bytes>,
    /// One of the bodies contains a reference.
    pub(crate) refers: bool,
    /// The saga refers to the answer of this step's action.
    pub(crate) keeps_answer: bool,
    /// Headers of the saga, overridden by those of the step.
    pub(crate) headers: HeaderMap,
    /// Wait before the first retry.
    pub(crate) retry_interval: Duration,
    /// Upper bound on the duration of a call.
    pub(crate) request_timeout: Duration,
}

impl Step {
    /// Returns the URL of `op`; `None` if there is no call.
    pub(crate) fn url(&self, op: Op) -> Option<&str> {
        let url = match op {
            Op::Action => Some(self.action.as_str()),
            Op::Compensate => self.compensate.as_deref(),
        };
        url.filter(|url| !url.is_empty())
    }

    /// Returns the participant that `op` calls; empty if there is no call.
    pub(crate) fn participant(&self, op: Op) -> &str {
        self.url(op).map_or("", participant)
    }

    fn raw_body(&self, op: Op) -> &Bytes {
        match (op, &self.compensate_payload) {
            (Op::Compensate, Some(own)) => own,
            _ => &self.payload,
        }
    }
}

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
#[derive(Debug, Clone)]
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
    /// The steps do not simply run one after the other.
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

#[derive(Deserialize)]
struct StepRow<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    compensate: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    compensate_payload: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<Headers<'a>>,
    #[serde(borrow)]
    after: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    pivot: bool,
    retry_limit: Option<f64>,
    compensate_retry_limit: Option<f64>,
    retry_interval_seconds: Option<f64>,
    request_timeout_seconds: Option<f64>,
}

/// Distinguishes a payload of JSON null from a missing payload.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

type Headers<'a> = std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>;

impl Definition {
    /// Decodes a claimed row. Payloads are slices of the text that Postgres printed. All attempts
    /// therefore send the same bytes, and numbers keep their digits (docs/races.md, R17).
    ///
    /// # Errors
    /// [`DecodeError`] if the INSERT would have refused the row.
    pub(crate) fn decode(columns: SagaColumns, memory: MemoryShare) -> Result<Definition, DecodeError> {
        let text = Bytes::from(columns.steps.into_bytes());
        let rows: Vec<StepRow<'_>> = serde_json::from_slice(&text)?;
        let saga_headers: Headers<'_> = match &columns.headers {
            Some(headers) => serde_json::from_str(headers)?,
            None => Headers::new(),
        };
        let common = header_map(&saga_headers)?;
        let saga_interval = seconds("retry_interval", columns.retry_interval, RETRY_INTERVAL)?;
        let saga_timeout = seconds("request_timeout", columns.request_timeout, REQUEST_TIMEOUT)?;
        let timeout = columns.timeout.map(|found| seconds("timeout_to_fail", found, TIMEOUT_TO_FAIL));
        let saga_limit = limit("retry_limit", columns.retry_limit.map(f64::from))?;
        let saga_compensate_limit =
            limit("compensate_retry_limit", columns.compensate_retry_limit.map(f64::from))?;
        let mut rules = Vec::with_capacity(rows.len());
        let mut steps = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let mut headers = common.clone();
            if let Some(own) = &row.headers {
                headers.extend(header_map(own)?);
            }
            rules.push(StepPolicy {
                has_compensation: row.compensate.is_some(),
                retry_limit: limit("retry_limit", row.retry_limit)?.or(saga_limit),
                compensate_retry_limit: limit("compensate_retry_limit", row.compensate_retry_limit)?
                    .or(saga_compensate_limit),
            });
            let holds_reference =
                |raw: Option<&RawValue>| raw.is_some_and(|raw| references::any(raw.get().as_bytes()));
            steps.push(Step {
                name: row.name.as_deref().map_or_else(|| default_step_name(index + 1), str::to_owned),
                action: row.action.clone().into_owned(),
                compensate: row.compensate.as_deref().map(str::to_owned),
                // control: payload-bytes
                payload: row.payload.map_or_else(Bytes::new, |raw| slice(&text, raw)),
                compensate_payload: row.compensate_payload.map(|raw| slice(&text, raw)),
                refers: columns.refers
                    && (holds_reference(row.payload) || holds_reference(row.compensate_payload)),
                keeps_answer: false,
                headers,
                retry_interval: match row.retry_interval_seconds {
                    Some(found) => seconds("retry_interval_seconds", found, RETRY_INTERVAL)?,
                    None => saga_interval,
                },
                request_timeout: match row.request_timeout_seconds {
                    Some(found) => seconds("request_timeout_seconds", found, REQUEST_TIMEOUT)?,
                    None => saga_timeout,
                },
            });
        }
        let pivot = rows.iter().position(|row| row.pivot);
        let graph = if columns.parallel {
            StepGraph::partial(rules, pivot, order(&rows, &steps)?)?
        } else {
            StepGraph::sequential(rules, pivot)
        };
        if columns.refers {
            let bodies = rows.iter().flat_map(|row| [row.payload, row.compensate_payload]);
            let texts = bodies.flatten().map(RawValue::get).chain(columns.result_mapping.as_deref());
            let used: std::collections::BTreeSet<String> = texts.flat_map(references::names).collect();
            for step in &mut steps {
                step.keeps_answer = used.contains(&step.name);
            }
        }
        if columns.parallel
            && columns.result_mapping.is_none()
            && let Some(last) = steps.last_mut()
        {
            // The last step of a parallel saga need not be the last one that ends, so its answer is
            // kept.
            last.keeps_answer = true;
        }
        Ok(Definition {
            gid: columns.gid,
            steps,
            graph,
            timeout: timeout.transpose()?,
            result_mapping: columns.result_mapping,
            _memory: memory,
        })
    }
}

/// Returns, for each step, the steps that it waits for.
fn order(rows: &[StepRow<'_>], steps: &[Step]) -> Result<Vec<Vec<usize>>, pgsaga_plan::Cyclic> {
    let positions: std::collections::HashMap<&str, usize> =
        steps.iter().enumerate().map(|(index, step)| (step.name.as_str(), index)).collect();
    let waits_for = |(index, row): (usize, &StepRow<'_>)| match &row.after {
        None => Ok(index.checked_sub(1).into_iter().collect()),
        Some(names) => {
            names.iter().map(|name| positions.get(&**name).copied().ok_or(pgsaga_plan::Cyclic)).collect()
        }
    };
    rows.iter().enumerate().map(waits_for).collect()
}

fn slice(text: &Bytes, raw: &RawValue) -> Bytes {
    text.slice_ref(raw.get().as_bytes())
}

fn seconds(place: &str, found: f64, allowed: Seconds) -> Result<Duration, DecodeError> {
    let seconds =
        within(place, found, allowed.range()).map_err(|error| DecodeError::Range(error + " seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| DecodeError::Range(format!("{place}: {error}")))
}

fn limit(place: &str, found: Option<f64>) -> Result<Option<u32>, DecodeError> {
    let limit = found.map(|found| within(place, found, RETRY_LIMIT.range())).transpose();
    limit.map(|limit| limit.map(|limit| limit as u32)).map_err(DecodeError::Range)
}

/// Converts the headers of a row. Skips reserved headers, which only a row edited by hand contains
/// and which would contradict the body.
fn header_map(headers: &Headers<'_>) -> Result<HeaderMap, DecodeError> {
    if headers.len() > HEADERS_MAX {
        return Err(DecodeError::Headers(headers.len()));
    }
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !is_reserved_header(name)) {
        let unsendable = || DecodeError::Header(name.to_string());
        map.insert(
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?,
            HeaderValue::from_str(value).map_err(|_| unsendable())?,
        );
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
