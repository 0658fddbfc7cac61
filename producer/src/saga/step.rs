use std::collections::BTreeMap;
use std::time::Duration;

use pgsaga_sql::contract::default_step_name;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Json, not_json, to_json};
use crate::validate::Invalid;

/// A step: one participant's part in a saga.
#[derive(Debug, Clone, Default)]
pub struct Step {
    name: Option<String>,
    headers: BTreeMap<String, String>,
    /// All other keys of the step.
    keys: BTreeMap<&'static str, Json>,
}

impl Step {
    /// A step with a name that is unique in its saga: 1 to 64 of the characters
    /// `A-Z a-z 0-9 . _ : -`. The participant gets the name as `branch_id`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// A step named by its position: `01`, `02`, …
    pub fn unnamed() -> Self {
        Self::default()
    }

    /// Sets the URL that does the work, or `participant:NAME/PATH` for a participant whose address
    /// the workers know. `""` succeeds without a call.
    pub fn action(self, url: impl Into<String>) -> Self {
        self.set("action", &url.into())
    }

    /// Waits up to this time for a completion, up to 365 days, instead of calling somebody: for a
    /// person, or for a service that reports by itself ([`complete`](crate::complete)). Without a
    /// completion the step counts as possibly done, and the saga rolls back. Such a step has no
    /// action.
    pub fn wait(self, time: Duration) -> Self {
        self.set_seconds("wait_seconds", time)
    }

    /// Sets the URL that undoes the action. Without it there is nothing to undo.
    pub fn compensate(self, url: impl Into<String>) -> Self {
        self.set("compensate", &url.into())
    }

    /// Sets the body of the action's calls, and of the compensation's calls unless that has its
    /// own. Up to 1 MiB as Postgres prints it, nested up to 64 deep.
    ///
    /// In the payload, [`answer_of`](crate::answer_of) stands for what an earlier step answered,
    /// and [`literal`](crate::literal) for a value that is sent as it is. A [`RawValue`] keeps the
    /// digits of its numbers; floats are printed by serde_json.
    pub fn payload<T: Serialize + ?Sized>(self, payload: &T) -> Self {
        self.set("payload", payload)
    }

    /// Sets the body of the compensation's calls. [`answer_of`](crate::answer_of) in it may also
    /// name this step.
    pub fn compensate_payload<T: Serialize + ?Sized>(self, payload: &T) -> Self {
        self.set("compensate_payload", payload)
    }

    /// Names the steps that this step waits for, instead of the step added before it: up to 1,000
    /// other steps of the saga, each once, added before or after this one. Steps that do not wait
    /// for each other run at the same time.
    pub fn after<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.set("after", &names.into_iter().map(Into::into).collect::<Vec<String>>())
    }

    /// Starts the step with the saga, without waiting for another step.
    pub fn after_none(self) -> Self {
        self.after::<String>([])
    }

    /// Makes this step the point of no return; at most one a saga. Every other step is ordered
    /// before or after the pivot, and those after it have no compensation. Once the pivot was
    /// called, an abort or the deadline waits for its definite outcome. After its success the saga
    /// only goes forward.
    pub fn pivot(self) -> Self {
        self.set("pivot", &true)
    }

    /// Adds a header to this step's calls. A step has up to 64.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets [`Saga::retry_limit`](crate::Saga::retry_limit) for this step.
    pub fn retry_limit(self, limit: u32) -> Self {
        self.set("retry_limit", &limit)
    }

    /// Sets [`Saga::compensate_retry_limit`](crate::Saga::compensate_retry_limit) for this step.
    pub fn compensate_retry_limit(self, limit: u32) -> Self {
        self.set("compensate_retry_limit", &limit)
    }

    /// Sets [`Saga::retry_interval`](crate::Saga::retry_interval) for this step.
    pub fn retry_interval(self, interval: Duration) -> Self {
        self.set_seconds("retry_interval_seconds", interval)
    }

    /// Sets [`Saga::request_timeout`](crate::Saga::request_timeout) for this step.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.set_seconds("request_timeout_seconds", timeout)
    }

    fn set<T: Serialize + ?Sized>(mut self, key: &'static str, value: &T) -> Self {
        self.keys.insert(key, to_json(value));
        self
    }

    /// Exact: a float would turn some durations at a limit into ones beyond it.
    fn set_seconds(mut self, key: &'static str, duration: Duration) -> Self {
        let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
        let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
        self.keys.insert(key, RawValue::from_string(text).map_err(|error| error.to_string()));
        self
    }

    /// The step at `position`, counted from 1, as the column `steps` holds it.
    pub(super) fn to_json(&self, position: usize) -> Result<String, Invalid> {
        let mut entries = Vec::new();
        let mut add = |key: &str, value: &Json| {
            let value = value.as_ref().map_err(|error| {
                let name = self.name.clone().unwrap_or_else(|| default_step_name(position));
                not_json(&format!("step \"{name}\": {key}"), error)
            })?;
            entries.push(format!("\"{key}\":{value}"));
            Ok(())
        };
        if let Some(name) = &self.name {
            add("name", &to_json(name))?;
        }
        for (key, value) in &self.keys {
            add(key, value)?;
        }
        if !self.headers.is_empty() {
            add("headers", &to_json(&self.headers))?;
        }
        Ok(format!("{{{}}}", entries.join(",")))
    }
}
