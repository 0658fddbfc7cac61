use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::invalid::Invalid;
use crate::payload::Payload;
use crate::step_name::StepName;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pivot: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compensate_retry_limit: Option<u32>,
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

    /// The URL that does the work, or `participant:NAME/PATH` for a participant that the workers are told of. `""` is a
    /// success without a call.
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
    /// prints it, nested up to 64 deep. A [`RawValue`] keeps its numbers digit by digit; Rust's floats are what serde_json
    /// makes of them. [`answer_of`] stands in it for what an earlier step answered, [`literal`] for a value that is sent as it is.
    ///
    /// [`RawValue`]: serde_json::value::RawValue
    /// [`answer_of`]: crate::answer_of
    /// [`literal`]: crate::literal
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        self.payload = Payload::of(payload);
        self
    }

    /// The body of the compensation's calls. [`answer_of`](crate::answer_of) in it may also name this step.
    pub fn compensate_payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        self.compensate_payload = Payload::of(payload);
        self
    }

    /// The steps that this one waits for; without it, the one added before it. Up to 1,000 names of other steps of the
    /// saga, each once, added before or after this one. Steps that do not wait for each other run at the same time.
    pub fn after<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.after = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Waits for no step: starts with the saga.
    pub fn after_none(self) -> Self {
        self.after::<String>([])
    }

    /// Makes this step the point of no return; at most one a saga. Every other step is ordered before or after it, and
    /// those after it have no compensation. Once it was called, an abort or the deadline waits for its definite outcome;
    /// after its success the saga only goes forward.
    pub fn pivot(mut self) -> Self {
        self.pivot = true;
        self
    }

    /// A header of this step's calls. Up to 64.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// As [`Saga::retry_limit`](crate::Saga::retry_limit), for this step.
    pub fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = Some(limit);
        self
    }

    /// As [`Saga::compensate_retry_limit`](crate::Saga::compensate_retry_limit), for this step.
    pub fn compensate_retry_limit(mut self, limit: u32) -> Self {
        self.compensate_retry_limit = Some(limit);
        self
    }

    /// As [`Saga::retry_interval`](crate::Saga::retry_interval), for this step.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval_seconds = Some(Seconds(interval));
        self
    }

    /// As [`Saga::request_timeout`](crate::Saga::request_timeout), for this step.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout_seconds = Some(Seconds(timeout));
        self
    }

    pub(crate) fn check_payloads(&self, position: usize) -> Result<(), Invalid> {
        let place = |key: &str| {
            let name = self.name.clone().unwrap_or_else(|| StepName::of_position(position).to_string());
            format!("step \"{name}\": {key}")
        };
        self.payload.check(|| place("payload"))?;
        self.compensate_payload.check(|| place("compensate_payload"))
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
