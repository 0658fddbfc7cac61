//! A saga as a worker holds it, decoded from the claimed row.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::plan::{Op, Steps};

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
    /// The saga's headers with the step's own over them.
    pub headers: HeaderMap,
    /// Counted retries of the action.
    pub retry_limit: Option<u32>,
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

    /// The body of `op`.
    pub fn body(&self, op: Op) -> Bytes {
        match (op, &self.compensate_payload) {
            (Op::Compensate, Some(own)) => own.clone(),
            _ => self.payload.clone(),
        }
    }
}

/// A saga's definition: what the INSERT said, with defaults filled in.
#[derive(Debug)]
pub struct Definition {
    /// The global transaction id.
    pub gid: String,
    /// Its steps, in order; at least one.
    pub steps: Vec<Step>,
}

impl Steps for Definition {
    fn count(&self) -> usize {
        self.steps.len()
    }

    fn has_compensation(&self, index: usize) -> bool {
        self.steps.get(index).is_some_and(|step| step.compensate.is_some())
    }

    fn retry_limit(&self, index: usize) -> Option<u32> {
        self.steps.get(index).and_then(|step| step.retry_limit)
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
    /// `retry_interval` in microseconds.
    pub retry_interval_us: i64,
    /// `request_timeout` in microseconds.
    pub request_timeout_us: i64,
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
    retry_limit: Option<f64>,
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
    pub fn decode(columns: SagaColumns) -> Result<Definition, DecodeError> {
        let text = Bytes::from(columns.steps.into_bytes());
        let rows: Vec<StepRow<'_>> = serde_json::from_slice(&text)?;
        let saga_headers: Headers<'_> = match &columns.headers {
            Some(headers) => serde_json::from_str(headers)?,
            None => Headers::new(),
        };
        let common = header_map(&saga_headers)?;
        let saga_interval = Duration::from_micros(columns.retry_interval_us.try_into().unwrap_or(0));
        let saga_timeout = Duration::from_micros(columns.request_timeout_us.try_into().unwrap_or(0));
        let saga_limit = columns.retry_limit.and_then(|limit| u32::try_from(limit).ok());
        let mut steps = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let mut headers = common.clone();
            if let Some(own) = &row.headers {
                headers.extend(header_map(own)?);
            }
            steps.push(Step {
                name: row.name.as_deref().map_or_else(|| default_step_name(index), str::to_owned),
                action: row.action.clone().into_owned(),
                compensate: row.compensate.as_deref().map(str::to_owned),
                payload: row.payload.map_or_else(Bytes::new, |raw| slice(&text, raw)),
                compensate_payload: row.compensate_payload.map(|raw| slice(&text, raw)),
                headers,
                retry_limit: row.retry_limit.map(|limit| limit as u32).or(saga_limit),
                retry_interval: seconds(row.retry_interval_seconds).unwrap_or(saga_interval),
                request_timeout: seconds(row.request_timeout_seconds).unwrap_or(saga_timeout),
            });
        }
        Ok(Definition { gid: columns.gid, steps })
    }
}

/// The name of a step that has none of its own: its position, from 1, two digits wide at least.
pub fn default_step_name(index: usize) -> String {
    format!("{:02}", index + 1)
}

fn slice(text: &Bytes, raw: &RawValue) -> Bytes {
    text.slice_ref(raw.get().as_bytes())
}

fn seconds(value: Option<f64>) -> Option<Duration> {
    value.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn header_map(headers: &Headers<'_>) -> Result<HeaderMap, DecodeError> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let unsendable = || DecodeError::Header(name.to_string());
        map.insert(
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?,
            HeaderValue::from_str(value).map_err(|_| unsendable())?,
        );
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(steps: &str) -> SagaColumns {
        SagaColumns {
            gid: "g".into(),
            steps: steps.into(),
            headers: Some(r#"{"X-A": "saga", "X-B": "saga"}"#.into()),
            retry_limit: Some(4),
            retry_interval_us: 10_000_000,
            request_timeout_us: 3_000_000,
        }
    }

    #[test]
    fn a_payload_keeps_every_byte_that_postgres_printed() {
        let steps = r#"[{"action": "", "payload": {"a": 1.10, "b": 12345678901234567890.123, "c": 1e5}}]"#;
        let definition = Definition::decode(columns(steps)).unwrap();
        // The control (RACES 17): decoded and encoded again, the bytes change.
        let again: serde_json::Value = serde_json::from_slice(&definition.steps[0].payload).unwrap();
        assert_ne!(again.to_string().into_bytes(), definition.steps[0].payload);
        assert_eq!(
            &definition.steps[0].payload[..],
            br#"{"a": 1.10, "b": 12345678901234567890.123, "c": 1e5}"#
        );
    }

    #[test]
    fn a_payload_of_null_is_a_payload() {
        let steps = r#"[{"action": "", "payload": {"a": 1}, "compensate_payload": null}, {"action": "", "payload": null}, {"action": ""}]"#;
        let definition = Definition::decode(columns(steps)).unwrap();
        let body = |step: usize, op| String::from_utf8(definition.steps[step].body(op).to_vec()).unwrap();
        assert_eq!((body(0, Op::Action).as_str(), body(0, Op::Compensate).as_str()), (r#"{"a": 1}"#, "null"));
        assert_eq!((body(1, Op::Action).as_str(), body(2, Op::Action).as_str()), ("null", ""));
    }

    #[test]
    fn a_step_inherits_from_its_saga_and_overrides_it() {
        let steps = r#"[{"action": ""}, {"name": "pay", "action": "", "headers": {"x-b": "step"}, "retry_limit": 0, "retry_interval_seconds": 0.5}]"#;
        let definition = Definition::decode(columns(steps)).unwrap();
        let [first, second] = &definition.steps[..] else { panic!() };
        assert_eq!((first.name.as_str(), first.retry_limit), ("01", Some(4)));
        assert_eq!(first.retry_interval, Duration::from_secs(10));
        assert_eq!((second.name.as_str(), second.retry_limit), ("pay", Some(0)));
        assert_eq!(second.retry_interval, Duration::from_millis(500));
        assert_eq!(
            (&second.headers["x-a"], &second.headers["x-b"]),
            (&"saga".parse().unwrap(), &"step".parse().unwrap())
        );
    }

    #[test]
    fn a_row_changed_by_hand_is_an_error() {
        assert!(Definition::decode(columns("{}")).is_err());
        assert!(Definition::decode(columns(r#"[{"action": 7}]"#)).is_err());
    }
}
