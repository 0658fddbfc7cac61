//! A saga as a worker holds it, decoded from the claimed row.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgsaga_producer::is_reserved_header;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::flow::participants::participant;
use crate::task::Weight;
use crate::task::bounds::within;
use crate::task::references::{self, Answers};
use pgsaga_plan::Op;
use pgsaga_plan::{StepGraph, StepPolicy};

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Its name, or its position: `01`, `02`, …
    pub name: String,
    /// The forward URL; empty is success without a call.
    pub action: String,
    /// The backward URL; `None` has nothing to undo, empty is success without a call.
    pub compensate: Option<String>,
    /// The body of both ops, exactly as Postgres prints the jsonb.
    pub payload: Bytes,
    /// The body of the backward op, if it has its own.
    pub compensate_payload: Option<Bytes>,
    /// Some reference stands in one of the bodies.
    pub refers: bool,
    /// Something in the saga refers to the answer of its action.
    pub keeps_answer: bool,
    /// The saga's headers with the step's own over them.
    pub headers: HeaderMap,
    /// First wait between tries.
    pub retry_interval: Duration,
    /// How long a call may take.
    pub request_timeout: Duration,
}

impl Step {
    /// The URL of `op`; `None` where there is nothing to call.
    pub fn url(&self, op: Op) -> Option<&str> {
        let url = match op {
            Op::Action => Some(self.action.as_str()),
            Op::Compensate => self.compensate.as_deref(),
        };
        url.filter(|url| !url.is_empty())
    }

    /// Whom `op` calls; nothing where nobody is called.
    pub fn participant(&self, op: Op) -> &str {
        self.url(op).map_or("", participant)
    }

    fn raw_body(&self, op: Op) -> &Bytes {
        match (op, &self.compensate_payload) {
            (Op::Compensate, Some(own)) => own,
            _ => &self.payload,
        }
    }
}

/// The longest body: a payload's limit holds for what its references make of it, too.
const BODY_BYTES_MAX: usize = 1_048_576;
/// More headers of one step than any INSERT takes, the saga's own included: a map of headers has an end, and panics there.
const HEADERS_MAX: usize = 1_000;
/// Seconds that the INSERT takes for a retry interval.
const RETRY_INTERVAL_SECONDS: RangeInclusive<f64> = 0.001..=86_400.0;
/// Seconds that the INSERT takes for a request timeout.
const REQUEST_TIMEOUT_SECONDS: RangeInclusive<f64> = 0.001..=3_600.0;
/// Seconds that the INSERT takes for `timeout_to_fail`.
const TIMEOUT_SECONDS: RangeInclusive<f64> = 0.001..=31_536_000.0;
/// What the INSERT takes of a limit of tries.
const RETRY_LIMIT: RangeInclusive<f64> = 0.0..=1_000_000.0;
/// Levels of a result: a payload's and an answer's.
const RESULT_DEPTH_MAX: usize = 128;

/// A saga's definition: what the INSERT said, with defaults filled in.
#[derive(Debug)]
pub struct Definition {
    /// The global transaction id.
    pub gid: String,
    /// Its steps, as they are listed; at least one.
    pub steps: Vec<Step>,
    /// The planner's view.
    pub shape: StepGraph,
    /// `timeout_to_fail`.
    pub timeout: Option<Duration>,
    /// What the saga's result is made of; `None` is the last step's answer.
    pub result_mapping: Option<String>,
    /// Its share of what this worker's definitions may take in memory.
    pub weight: Weight,
}

/// How often a person gave ops a fresh idempotency key, by `<position>/<op>`.
#[derive(Debug, Clone, Default)]
pub struct FreshKeys(Option<Arc<BTreeMap<String, u32>>>);

impl FreshKeys {
    /// Reads the column.
    ///
    /// # Errors
    /// Where it is not an object of numbers.
    pub fn read(text: Option<&str>) -> Result<FreshKeys, serde_json::Error> {
        Ok(FreshKeys(text.map(serde_json::from_str).transpose()?.map(Arc::new)))
    }

    /// What is added to the key of an op: nothing, or `/1`, `/2`, …
    pub fn suffix(&self, step: usize, op: Op) -> String {
        let fresh = self.0.as_ref().and_then(|keys| keys.get(&format!("{}/{}", step + 1, op.as_str())));
        fresh.map(|nth| format!("/{nth}")).unwrap_or_default()
    }
}

impl Definition {
    /// The body of an op of step `index`, with answers in the place of references.
    ///
    /// # Errors
    /// In words, what an action refers to and is not there; or that the body became too long.
    pub fn body(&self, index: usize, op: Op, answers: &Answers) -> Result<Bytes, String> {
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
        let body = references::resolve(text, op == Op::Compensate, BODY_BYTES_MAX, find)
            .map_err(|missing| format!("not sent: {key}: {missing}"))?;
        if body.len() > BODY_BYTES_MAX {
            return Err(format!(
                "not sent: {key}: longer than {BODY_BYTES_MAX} bytes with the answers that it refers to"
            ));
        }
        Ok(body.into())
    }

    /// The saga's result, as JSON, once the last step has answered `last`.
    pub fn result(&self, answers: &Answers, last: Option<&str>) -> Option<String> {
        let Some(mapping) = &self.result_mapping else { return last.map(str::to_owned) };
        let find = |name: &str| answers.get(self.steps.iter().position(|step| step.name == name)?);
        // Null for what is missing. What would be longer or deeper than a payload may be is no result.
        let result = references::resolve(mapping, true, BODY_BYTES_MAX, find).ok()?;
        let size = pgsaga_producer::measure_json(&result)?;
        (size.bytes <= BODY_BYTES_MAX && size.depth <= RESULT_DEPTH_MAX).then_some(result)
    }

    /// Whether the answer of step `index`'s action is used by anything, the saga's result included.
    pub fn uses_answer(&self, index: usize) -> bool {
        self.is_result(index) || self.steps.get(index).is_some_and(|step| step.keeps_answer)
    }

    /// Whether that answer is the saga's result.
    pub fn is_result(&self, index: usize) -> bool {
        self.result_mapping.is_none() && index + 1 == self.steps.len()
    }
}

/// The saga's own columns that steps inherit.
#[derive(Debug, Clone)]
pub struct SagaColumns {
    /// `gid`.
    pub gid: String,
    /// `steps`, as text.
    pub steps: String,
    /// `headers`, as text.
    pub headers: Option<String>,
    /// `retry_limit`.
    pub retry_limit: Option<i32>,
    /// `compensate_retry_limit`.
    pub compensate_retry_limit: Option<i32>,
    /// `timeout_to_fail` of the saga, in seconds.
    pub timeout: Option<f64>,
    /// Its steps are not simply one after the other.
    pub parallel: bool,
    /// Bodies or the result may refer to answers.
    pub refers: bool,
    /// `result_mapping`, as text.
    pub result_mapping: Option<String>,
    /// `retry_interval` of the saga, in seconds.
    pub retry_interval: f64,
    /// `request_timeout` of the saga, in seconds.
    pub request_timeout: f64,
}

/// Why a stored row cannot be run. The INSERT refuses all of these, so a worker meets one only where someone changed
/// the row by hand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the JSON that the contract says.
    #[error("steps cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A header that HTTP cannot carry.
    #[error("header {0:?} cannot be sent")]
    Header(String),
    /// More than a request can hold.
    #[error("{0} headers, allowed are up to {HEADERS_MAX}")]
    Headers(usize),
    /// `after` names no order.
    #[error("{0}")]
    Order(#[from] pgsaga_plan::Cyclic),
    /// A value that no INSERT takes: what was found where, and what is allowed.
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

/// A key that is there is a payload, also when its value is JSON's null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

type Headers<'a> = std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>;

impl Definition {
    /// Decodes a claimed row. The payloads are slices of the text that Postgres printed: the same bytes on every try,
    /// and numbers keep their digits (RACES 17).
    ///
    /// # Errors
    /// [`DecodeError`] where the row is not what the INSERT lets through.
    pub fn decode(columns: SagaColumns, weight: Weight) -> Result<Definition, DecodeError> {
        let text = Bytes::from(columns.steps.into_bytes());
        let rows: Vec<StepRow<'_>> = serde_json::from_slice(&text)?;
        let saga_headers: Headers<'_> = match &columns.headers {
            Some(headers) => serde_json::from_str(headers)?,
            None => Headers::new(),
        };
        let common = header_map(&saga_headers)?;
        let saga_interval = seconds("retry_interval", columns.retry_interval, RETRY_INTERVAL_SECONDS)?;
        let saga_timeout = seconds("request_timeout", columns.request_timeout, REQUEST_TIMEOUT_SECONDS)?;
        let timeout = columns.timeout.map(|found| seconds("timeout_to_fail", found, TIMEOUT_SECONDS));
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
                name: row.name.as_deref().map_or_else(|| default_step_name(index), str::to_owned),
                action: row.action.clone().into_owned(),
                compensate: row.compensate.as_deref().map(str::to_owned),
                payload: row.payload.map_or_else(Bytes::new, |raw| slice(&text, raw)),
                compensate_payload: row.compensate_payload.map(|raw| slice(&text, raw)),
                refers: columns.refers
                    && (holds_reference(row.payload) || holds_reference(row.compensate_payload)),
                keeps_answer: false,
                headers,
                retry_interval: match row.retry_interval_seconds {
                    Some(found) => seconds("retry_interval_seconds", found, RETRY_INTERVAL_SECONDS)?,
                    None => saga_interval,
                },
                request_timeout: match row.request_timeout_seconds {
                    Some(found) => seconds("request_timeout_seconds", found, REQUEST_TIMEOUT_SECONDS)?,
                    None => saga_timeout,
                },
            });
        }
        let pivot = rows.iter().position(|row| row.pivot);
        let shape = if columns.parallel {
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
            // The last that is listed need not be the last that ends.
            last.keeps_answer = true;
        }
        Ok(Definition {
            gid: columns.gid,
            steps,
            shape,
            timeout: timeout.transpose()?,
            result_mapping: columns.result_mapping,
            weight,
        })
    }
}

/// Which steps each step waits for.
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

/// The name of a step that has none of its own: its position, from 1, two digits wide at least.
pub fn default_step_name(index: usize) -> String {
    format!("{:02}", index + 1)
}

fn slice(text: &Bytes, raw: &RawValue) -> Bytes {
    text.slice_ref(raw.get().as_bytes())
}

fn seconds(place: &str, found: f64, allowed: RangeInclusive<f64>) -> Result<Duration, DecodeError> {
    let seconds = within(place, found, allowed).map_err(|error| DecodeError::Range(error + " seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| DecodeError::Range(format!("{place}: {error}")))
}

fn limit(place: &str, found: Option<f64>) -> Result<Option<u32>, DecodeError> {
    let limit = found.map(|found| within(place, found, RETRY_LIMIT)).transpose();
    limit.map(|limit| limit.map(|limit| limit as u32)).map_err(DecodeError::Range)
}

/// The headers that a row may set. A reserved one is in a row that was changed by hand, and would
/// contradict the body.
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
