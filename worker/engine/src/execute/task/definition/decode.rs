//! Decodes a claimed row. The INSERT has checked the row, but a person may have changed it by hand.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use pgsaga_plan::{StepGraph, StepPolicy};
use pgsaga_sql::contract::{
    REQUEST_TIMEOUT, RETRY_INTERVAL, RETRY_LIMIT, Seconds, TIMEOUT_TO_FAIL, Target, default_step_name,
    is_reserved_header,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DecodeError, Definition, HEADERS_MAX, SagaColumns, Step};
use crate::execute::task::bounds::within;
use crate::execute::task::references;
use crate::flow::capacity::MemoryShare;

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
        let saga = SagaDefaults {
            headers: header_map(&saga_headers)?,
            retry_interval: seconds("retry_interval", columns.retry_interval, RETRY_INTERVAL)?,
            request_timeout: seconds("request_timeout", columns.request_timeout, REQUEST_TIMEOUT)?,
            retry_limit: limit("retry_limit", columns.retry_limit.map(f64::from))?,
            compensate_retry_limit: limit(
                "compensate_retry_limit",
                columns.compensate_retry_limit.map(f64::from),
            )?,
            refers: columns.refers,
        };
        let timeout = columns.timeout.map(|found| seconds("timeout_to_fail", found, TIMEOUT_TO_FAIL));
        let mut policies = Vec::with_capacity(rows.len());
        let mut steps = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            policies.push(saga.policy(row)?);
            steps.push(saga.step(index, row, &text)?);
        }
        let pivot = rows.iter().position(|row| row.pivot);
        let graph = if columns.parallel {
            StepGraph::partial(policies, pivot, order(&rows, &steps)?)?
        } else {
            StepGraph::sequential(policies, pivot)
        };
        keep_answers(&columns.result_mapping, columns.refers, columns.parallel, &rows, &mut steps);
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

/// What the saga's columns say for every step that does not say it itself.
struct SagaDefaults {
    headers: HeaderMap,
    retry_interval: Duration,
    request_timeout: Duration,
    retry_limit: Option<u32>,
    compensate_retry_limit: Option<u32>,
    refers: bool,
}

impl SagaDefaults {
    fn policy(&self, row: &StepRow<'_>) -> Result<StepPolicy, DecodeError> {
        Ok(StepPolicy {
            has_compensation: row.compensate.is_some(),
            retry_limit: limit("retry_limit", row.retry_limit)?.or(self.retry_limit),
            compensate_retry_limit: limit("compensate_retry_limit", row.compensate_retry_limit)?
                .or(self.compensate_retry_limit),
        })
    }

    fn step(&self, index: usize, row: &StepRow<'_>, text: &Bytes) -> Result<Step, DecodeError> {
        let mut headers = self.headers.clone();
        if let Some(own) = &row.headers {
            headers.extend(header_map(own)?);
        }
        let holds_reference =
            |raw: Option<&RawValue>| raw.is_some_and(|raw| references::any(raw.get().as_bytes()));
        Ok(Step {
            name: row.name.as_deref().map_or_else(|| default_step_name(index + 1), str::to_owned),
            action: Target::read(&row.action),
            compensate: row.compensate.as_deref().and_then(Target::read),
            // control: payload-bytes
            payload: row.payload.map_or_else(Bytes::new, |raw| slice(text, raw)),
            compensate_payload: row.compensate_payload.map(|raw| slice(text, raw)),
            refers: self.refers && (holds_reference(row.payload) || holds_reference(row.compensate_payload)),
            keeps_answer: false,
            headers,
            retry_interval: match row.retry_interval_seconds {
                Some(found) => seconds("retry_interval_seconds", found, RETRY_INTERVAL)?,
                None => self.retry_interval,
            },
            request_timeout: match row.request_timeout_seconds {
                Some(found) => seconds("request_timeout_seconds", found, REQUEST_TIMEOUT)?,
                None => self.request_timeout,
            },
        })
    }
}

/// Marks the steps whose answer the history keeps, because a body or the result refers to it.
fn keep_answers(
    result_mapping: &Option<String>,
    refers: bool,
    parallel: bool,
    rows: &[StepRow<'_>],
    steps: &mut [Step],
) {
    if refers {
        let bodies = rows.iter().flat_map(|row| [row.payload, row.compensate_payload]);
        let texts = bodies.flatten().map(RawValue::get).chain(result_mapping.as_deref());
        let used: std::collections::BTreeSet<String> = texts.flat_map(references::names).collect();
        for step in &mut *steps {
            step.keeps_answer = used.contains(&step.name);
        }
    }
    if parallel
        && result_mapping.is_none()
        && let Some(last) = steps.last_mut()
    {
        // The last step of a parallel saga need not be the last one that ends, so its answer is
        // kept.
        last.keeps_answer = true;
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
