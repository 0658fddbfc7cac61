use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{Executor, Postgres};

use crate::definition::Definition;
use crate::error::Error;
use crate::gid::Gid;
use crate::invalid::Invalid;
use crate::step_name::StepName;
use crate::submit::{Producer, Submitted};
use crate::validate::Columns;

/// A saga to submit: its steps run in order; when one refuses, those that may have taken effect are compensated in reverse.
#[derive(Debug, Clone, Default)]
pub struct Saga {
    gid: Option<Gid>,
    steps: Vec<Step>,
    retry_interval: Option<Duration>,
    retry_limit: Option<u32>,
    request_timeout: Option<Duration>,
    headers: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl Saga {
    /// A saga without steps. Without a gid, the database makes a time-ordered one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the saga, which makes submitting it idempotent: 1 to 128 of the characters `A-Z a-z 0-9 . _ : -`, unique
    /// over all databases that share participants, and never used again.
    pub fn gid(mut self, gid: impl Into<String>) -> Result<Self, Invalid> {
        self.gid = Some(Gid::new(gid)?);
        Ok(self)
    }

    /// Adds a step, to run after those before it. 1 to 1,000 of them.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The wait before the first retry of an op, doubled for each further one: 1 ms to a day, 10 s by default.
    /// The database keeps microseconds.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval = Some(interval);
        self
    }

    /// Retries of a step's action after its first try, up to 1,000,000; without limit by default.
    pub fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = Some(limit);
        self
    }

    /// How long one call may take: 1 ms to an hour, 3 s by default. The database keeps microseconds.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// A header of every call, such as `traceparent`. Up to 64.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// A label, for people who look for the saga. Up to 64.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Checks the saga, in the words that the INSERT would use.
    pub fn definition(&self) -> Result<Definition, Invalid> {
        for (position, step) in (1..).zip(&self.steps) {
            step.check_payloads(position)?;
        }
        let micros = |duration: Duration| i128::try_from(duration.as_micros()).unwrap_or(i128::MAX);
        Definition::new(&Columns {
            gid: self.gid.as_ref().map(Gid::as_str),
            steps: &text(&self.steps, "steps")?,
            retry_interval_us: self.retry_interval.map(micros),
            retry_limit: self.retry_limit.map(i64::from),
            request_timeout_us: self.request_timeout.map(micros),
            headers: strings(&self.headers, "headers")?.as_deref(),
            labels: strings(&self.labels, "labels")?.as_deref(),
        })
    }

    /// Checks the saga and inserts it: in your transaction when `executor` is one, so that it exists exactly when your
    /// own rows do. A gid that exists already is left as it is, and `created` is false.
    pub async fn submit<'e, E>(&self, executor: E) -> Result<Submitted, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        Producer::default().submit(executor, self).await
    }
}

/// A step: one participant's part in a saga.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compensate: Option<String>,
    #[serde(skip_serializing_if = "Payload::is_absent")]
    payload: Payload,
    #[serde(skip_serializing_if = "Payload::is_absent")]
    compensate_payload: Payload,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_interval_seconds: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout_seconds: Option<Seconds>,
}

impl Step {
    /// A step with a name, unique in its saga: 1 to 64 of the characters `A-Z a-z 0-9 . _ : -`. Participants get it as `branch_id`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// A step named by its position: `01`, `02`, …
    pub fn unnamed() -> Self {
        Self::default()
    }

    /// The URL that does the work. `""` is a success without a call.
    pub fn action(mut self, url: impl Into<String>) -> Self {
        self.action = Some(url.into());
        self
    }

    /// The URL that undoes the action. Left out, there is nothing to undo.
    pub fn compensate(mut self, url: impl Into<String>) -> Self {
        self.compensate = Some(url.into());
        self
    }

    /// The body of the action's calls, and of the compensation's unless that has its own. Up to 1 MiB as Postgres
    /// prints it. A [`RawValue`] keeps its numbers digit by digit; Rust's floats are what serde_json makes of them.
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        self.payload = Payload::of(payload);
        self
    }

    /// The body of the compensation's calls.
    pub fn compensate_payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        self.compensate_payload = Payload::of(payload);
        self
    }

    /// A header of this step's calls. Up to 64.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// As [`Saga::retry_limit`], for this step.
    pub fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = Some(limit);
        self
    }

    /// As [`Saga::retry_interval`], for this step.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval_seconds = Some(Seconds(interval));
        self
    }

    /// As [`Saga::request_timeout`], for this step.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout_seconds = Some(Seconds(timeout));
        self
    }

    fn check_payloads(&self, position: usize) -> Result<(), Invalid> {
        for (key, payload) in [("payload", &self.payload), ("compensate_payload", &self.compensate_payload)] {
            if let Payload::Failed(error) = payload {
                let name = self.name.clone().unwrap_or_else(|| StepName::of_position(position).to_string());
                let found = format!("a value that does not become JSON ({error})");
                return Err(Invalid::new(format!("step \"{name}\": {key}"), found, "any JSON"));
            }
        }
        Ok(())
    }
}

/// Failing is put off until the saga is checked, so that building stays one chain.
#[derive(Debug, Clone, Default)]
enum Payload {
    #[default]
    Absent,
    Json(Box<RawValue>),
    Failed(String),
}

impl Payload {
    fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        to_raw_value(value).map_or_else(|error| Self::Failed(error.to_string()), Self::Json)
    }

    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => json.serialize(serializer),
            Self::Absent => serializer.serialize_none(),
            Self::Failed(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

/// Exact: a float would turn some durations at a limit into ones beyond it.
#[derive(Debug, Clone, Copy)]
struct Seconds(Duration);

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format!("{}.{:09}", self.0.as_secs(), self.0.subsec_nanos());
        let text = text.trim_end_matches('0').trim_end_matches('.');
        RawValue::from_string(text.to_owned()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

fn strings(entries: &BTreeMap<String, String>, place: &str) -> Result<Option<String>, Invalid> {
    (!entries.is_empty()).then(|| text(entries, place)).transpose()
}

fn text<T: Serialize + ?Sized>(value: &T, place: &str) -> Result<String, Invalid> {
    serde_json::to_string(value).map_err(|error| {
        Invalid::new(place, format!("a value that does not become JSON ({error})"), "any JSON")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_saga_is_the_json_one_would_write() {
        let exact: &RawValue = serde_json::from_str(r#"{"cents":12345678901234567890.1230}"#).unwrap();
        let saga = Saga::new()
            .gid("order-42")
            .unwrap()
            .step(
                Step::new("pay").action("https://pay/charge").compensate("https://pay/refund").payload(exact),
            )
            .step(
                Step::unnamed()
                    .action("")
                    .payload("x")
                    .compensate_payload(&None::<()>)
                    .header("X-A", "b")
                    .retry_limit(0)
                    .retry_interval(Duration::from_millis(1500))
                    .request_timeout(Duration::from_secs(3600)),
            );
        assert_eq!(
            saga.definition().unwrap().steps(),
            concat!(
                r#"[{"name":"pay","action":"https://pay/charge","compensate":"https://pay/refund","payload":{"cents":12345678901234567890.1230}},"#,
                r#"{"action":"","payload":"x","compensate_payload":null,"headers":{"X-A":"b"},"retry_limit":0,"retry_interval_seconds":1.5,"request_timeout_seconds":3600}]"#
            )
        );
    }

    #[test]
    fn building_refuses_in_the_words_of_the_insert() {
        let words = |saga: Saga| saga.definition().unwrap_err().to_string();
        assert_eq!(words(Saga::new()), "steps: found 0 steps; allowed: an array of 1 to 1,000 steps");
        let saga = Saga::new().step(Step::new("a").action("http://a"));
        assert_eq!(
            words(saga.clone().retry_interval(Duration::ZERO)),
            "retry_interval: found 0 seconds; allowed: from 0.001 to 86,400 seconds"
        );
        assert_eq!(
            words(saga.clone().request_timeout(Duration::MAX)),
            "request_timeout: found 18446744073709551615.999999 seconds; allowed: from 0.001 to 3,600 seconds"
        );
        assert_eq!(
            words(saga.clone().retry_limit(u32::MAX)),
            "retry_limit: found 4294967295; allowed: a whole number from 0 to 1,000,000"
        );
        assert_eq!(
            words(saga.clone().header("Host", "x")),
            r#"headers "Host": found a header that pgsaga or the transport sets; allowed: any other"#
        );
        assert_eq!(
            words(saga.clone().label("a", "\0")),
            "labels: found a string with \\u0000; allowed: JSON that jsonb can hold"
        );
        let keys_are_not_strings: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        assert!(
            words(saga.step(Step::unnamed().payload(&keys_are_not_strings)))
                .starts_with(r#"step "02": payload: found a value that does not become JSON"#)
        );
    }
}
