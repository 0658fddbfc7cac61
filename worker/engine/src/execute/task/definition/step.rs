//! A step: as its row has it, and as the worker runs it.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use pgsaga_plan::{ActionKind, Op, StepPolicy};
use pgsaga_sql::contract::{
    REQUEST_TIMEOUT, RETRY_INTERVAL, RETRY_LIMIT, Seconds, Target, WAIT, Whole, default_step_name,
    is_reserved_header,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DecodeError, HEADERS_MAX, SagaColumns};
use crate::execute::task::bounds::within;
use crate::execute::task::references;

#[derive(Deserialize)]
pub(super) struct StepRow<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    compensate: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) compensate_payload: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<Headers<'a>>,
    #[serde(borrow)]
    pub(super) after: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    pub(super) pivot: bool,
    retry_limit: Option<f64>,
    compensate_retry_limit: Option<f64>,
    retry_interval_seconds: Option<f64>,
    request_timeout_seconds: Option<f64>,
    wait_seconds: Option<f64>,
}

/// Distinguishes a payload of JSON null from a missing payload.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

type Headers<'a> = std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// One step of a saga.
#[derive(Debug)]
pub(crate) struct Step {
    /// The step's name. Its default is the position: `01`, `02`, …
    pub(crate) name: String,
    /// Whom the action calls. `None`: nobody, the action succeeds without a call, or waits.
    pub(crate) action: Option<Target>,
    /// How long the action waits for a completion, instead of calling.
    pub(crate) wait: Option<Duration>,
    /// Whom the compensation calls. `None`: nobody, or there is nothing to undo.
    pub(crate) compensate: Option<Target>,
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
    /// Returns whom `op` calls; `None` if there is no call.
    pub(crate) fn target(&self, op: Op) -> Option<&Target> {
        match op {
            Op::Action => self.action.as_ref(),
            Op::Compensate => self.compensate.as_ref(),
        }
    }

    /// Returns the participant that `op` calls; empty if there is no call.
    pub(crate) fn participant(&self, op: Op) -> &str {
        self.target(op).map_or("", Target::participant)
    }

    pub(super) fn raw_body(&self, op: Op) -> &Bytes {
        match (op, &self.compensate_payload) {
            (Op::Compensate, Some(own)) => own,
            _ => &self.payload,
        }
    }
}

/// What the saga's columns say for every step that does not say it itself.
pub(super) struct SagaDefaults {
    headers: HeaderMap,
    retry_interval: Duration,
    request_timeout: Duration,
    retry_limit: Option<u32>,
    compensate_retry_limit: Option<u32>,
    refers: bool,
}

impl SagaDefaults {
    pub(super) fn read(columns: &SagaColumns) -> Result<SagaDefaults, DecodeError> {
        let headers: Headers<'_> = match &columns.headers {
            Some(headers) => serde_json::from_str(headers)?,
            None => Headers::new(),
        };
        Ok(SagaDefaults {
            headers: header_map(&headers)?,
            retry_interval: seconds("retry_interval", columns.retry_interval, RETRY_INTERVAL)?,
            request_timeout: seconds("request_timeout", columns.request_timeout, REQUEST_TIMEOUT)?,
            retry_limit: whole("retry_limit", columns.retry_limit.map(f64::from), RETRY_LIMIT)?,
            compensate_retry_limit: whole(
                "compensate_retry_limit",
                columns.compensate_retry_limit.map(f64::from),
                RETRY_LIMIT,
            )?,
            refers: columns.refers,
        })
    }

    pub(super) fn policy(&self, row: &StepRow<'_>) -> Result<StepPolicy, DecodeError> {
        Ok(StepPolicy {
            action: if row.wait_seconds.is_some() { ActionKind::Wait } else { ActionKind::Call },
            has_compensation: row.compensate.is_some(),
            retry_limit: whole("retry_limit", row.retry_limit, RETRY_LIMIT)?.or(self.retry_limit),
            compensate_retry_limit: whole("compensate_retry_limit", row.compensate_retry_limit, RETRY_LIMIT)?
                .or(self.compensate_retry_limit),
        })
    }

    pub(super) fn step(&self, index: usize, row: &StepRow<'_>, text: &Bytes) -> Result<Step, DecodeError> {
        let mut headers = self.headers.clone();
        if let Some(own) = &row.headers {
            headers.extend(header_map(own)?);
        }
        let holds_reference =
            |raw: Option<&RawValue>| raw.is_some_and(|raw| references::any(raw.get().as_bytes()));
        let name = row.name.as_deref().map_or_else(|| default_step_name(index + 1), str::to_owned);
        if row.action.is_some() == row.wait_seconds.is_some() {
            let found = if row.action.is_some() { "both" } else { "neither" };
            let why = format!("step {name:?}: found {found}; allowed: an action, or wait_seconds");
            return Err(DecodeError::Range(why));
        }
        Ok(Step {
            name,
            action: row.action.as_deref().and_then(Target::read),
            wait: row.wait_seconds.map(|found| seconds("wait_seconds", found, WAIT)).transpose()?,
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

fn slice(text: &Bytes, raw: &RawValue) -> Bytes {
    text.slice_ref(raw.get().as_bytes())
}

pub(super) fn seconds(place: &str, found: f64, allowed: Seconds) -> Result<Duration, DecodeError> {
    let seconds =
        within(place, found, allowed.range()).map_err(|error| DecodeError::Range(error + " seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| DecodeError::Range(format!("{place}: {error}")))
}

fn whole(place: &str, found: Option<f64>, allowed: Whole) -> Result<Option<u32>, DecodeError> {
    let number = found.map(|found| within(place, found, allowed.range())).transpose();
    number.map(|number| number.map(|number| number as u32)).map_err(DecodeError::Range)
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
