use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::types::chrono::{DateTime, Utc};

use crate::gid::Gid;
use crate::invalid::Invalid;
use crate::json::{self, Kind, found, quoted};
use crate::number::Number;
use crate::validate::{Columns, PRIORITY, QUEUE, RETRY_LIMIT, validate_saga};

const COLUMNS: &str = "the keys gid, steps, queue, priority, run_at, timeout_to_fail, retry_interval, retry_limit, compensate_retry_limit, request_timeout, headers, labels, result_mapping";
const GID: &str = "1 to 128 of the characters A-Z a-z 0-9 . _ : -";
const SECONDS: &str = "a number of seconds (an INSERT takes any interval)";
const TIME: &str = "a time like 2026-07-01T09:30:00Z (an INSERT takes any finite timestamptz)";

/// A saga that passed every check, as its row will hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub(crate) gid: Option<Gid>,
    pub(crate) steps: String,
    pub(crate) queue: Option<String>,
    pub(crate) priority: Option<i16>,
    pub(crate) run_at: Option<DateTime<Utc>>,
    pub(crate) run_after: Option<Duration>,
    pub(crate) timeout_to_fail: Option<Duration>,
    pub(crate) retry_interval: Option<Duration>,
    pub(crate) retry_limit: Option<i32>,
    pub(crate) compensate_retry_limit: Option<i32>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) headers: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) result_mapping: Option<String>,
}

impl Definition {
    /// Reads a saga from JSON: an array of steps, or an object of the columns `gid`, `steps`, `queue`, `priority`, `run_at`
    /// (an RFC 3339 time as a string), `timeout_to_fail`, `retry_interval` and `request_timeout` (numbers of seconds),
    /// `retry_limit`, `compensate_retry_limit`, `headers`, `labels` and `result_mapping`.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        let value = json::parse("steps", text)?;
        let Some(columns) = json::object(value).filter(|_| json::kind(value) == Kind::Object) else {
            return Self::new(&Columns { steps: value.get(), ..Columns::default() });
        };
        let (mut gid, mut queue) = (None, None);
        let mut read = Columns::default();
        for (key, value) in columns {
            let wrong = |allowed: &str| Invalid::new(key.0.as_str(), found(Some(value)), allowed);
            let micros = || micros(value).map(Some).ok_or_else(|| wrong(SECONDS));
            let whole = |allowed| whole(value).map(Some).ok_or_else(|| wrong(allowed));
            match key.0.as_str() {
                "gid" => gid = Some(json::string(value).ok_or_else(|| wrong(GID))?),
                "steps" => read.steps = value.get(),
                "queue" => queue = Some(json::string(value).ok_or_else(|| wrong(QUEUE))?),
                "priority" => read.priority = whole(PRIORITY)?,
                "run_at" => read.run_at_us = Some(time(value).ok_or_else(|| wrong(TIME))?),
                "timeout_to_fail" => read.timeout_to_fail_us = micros()?,
                "retry_interval" => read.retry_interval_us = micros()?,
                "retry_limit" => read.retry_limit = whole(RETRY_LIMIT)?,
                "compensate_retry_limit" => read.compensate_retry_limit = whole(RETRY_LIMIT)?,
                "request_timeout" => read.request_timeout_us = micros()?,
                "headers" => read.headers = Some(value.get()),
                "labels" => read.labels = Some(value.get()),
                "result_mapping" => read.result_mapping = Some(value.get()),
                other => return Err(Invalid::new("saga", format!("key {}", quoted(other)), COLUMNS)),
            }
        }
        if read.steps.is_empty() {
            return Err(Invalid::new("steps", found(None), "an array of 1 to 1,000 steps"));
        }
        read.gid = gid.as_deref();
        read.queue = queue.as_deref();
        Self::new(&read)
    }

    /// Checks the columns and keeps them.
    pub fn new(columns: &Columns<'_>) -> Result<Self, Invalid> {
        validate_saga(columns)?;
        let duration =
            |micros: Option<i128>| micros.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros);
        let limit = |limit: Option<i64>| limit.and_then(|limit| i32::try_from(limit).ok());
        Ok(Self {
            gid: columns.gid.map(Gid::new).transpose()?,
            steps: columns.steps.to_owned(),
            queue: columns.queue.map(str::to_owned),
            priority: columns.priority.and_then(|priority| i16::try_from(priority).ok()),
            run_at: columns.run_at_us.and_then(|us| DateTime::from_timestamp_micros(i64::try_from(us).ok()?)),
            run_after: duration(columns.run_after_us),
            timeout_to_fail: duration(columns.timeout_to_fail_us),
            retry_interval: duration(columns.retry_interval_us),
            retry_limit: limit(columns.retry_limit),
            compensate_retry_limit: limit(columns.compensate_retry_limit),
            request_timeout: duration(columns.request_timeout_us),
            headers: columns.headers.map(str::to_owned),
            labels: columns.labels.map(str::to_owned),
            result_mapping: columns.result_mapping.map(str::to_owned),
        })
    }

    /// The saga's name; `None` when the database is to make one.
    pub fn gid(&self) -> Option<&Gid> {
        self.gid.as_ref()
    }

    /// The steps, as JSON.
    pub fn steps(&self) -> &str {
        &self.steps
    }
}

/// Checks a file for `pgsaga check`, as [`Definition::from_json`] reads it.
pub fn check_file(text: &str) -> Result<(), Invalid> {
    Definition::from_json(text).map(drop)
}

fn micros(value: &RawValue) -> Option<i128> {
    (json::kind(value) == Kind::Number).then(|| Number::parse(value.get())?.micros()).flatten()
}

fn whole(value: &RawValue) -> Option<i64> {
    (json::kind(value) == Kind::Number).then(|| Number::parse(value.get())?.whole()).flatten()
}

fn time(value: &RawValue) -> Option<i128> {
    let time = DateTime::parse_from_rfc3339(&json::string(value)?).ok()?;
    Some(i128::from(time.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_steps_or_columns() {
        let steps = r#"[{"action":"https://a/b"}]"#;
        assert_eq!(Definition::from_json(steps).unwrap().steps(), steps);
        let definition = Definition::from_json(
            r#"{"gid":"g","steps":[{"action":""}],"retry_interval":1.5,"request_timeout":2e0,"retry_limit":3.0}"#,
        )
        .unwrap();
        assert_eq!(definition.gid.unwrap().as_str(), "g");
        assert_eq!(definition.retry_interval, Some(Duration::from_millis(1500)));
        assert_eq!(definition.request_timeout, Some(Duration::from_secs(2)));
        assert_eq!(definition.retry_limit, Some(3));
        let definition = Definition::from_json(
            r#"{"steps":[{"action":""}],"queue":"slow","priority":2.0,"run_at":"2026-07-01T09:30:00.000001-02:00","timeout_to_fail":90.5,"compensate_retry_limit":4,"result_mapping":null}"#,
        )
        .unwrap();
        assert_eq!((definition.queue.as_deref(), definition.priority), (Some("slow"), Some(2)));
        assert_eq!(definition.run_at.unwrap().timestamp_micros(), 1_782_905_400_000_001);
        assert_eq!(definition.timeout_to_fail, Some(Duration::from_millis(90_500)));
        assert_eq!(definition.compensate_retry_limit, Some(4));
        assert_eq!(definition.result_mapping.as_deref(), Some("null"), "a result of null");
        for (bad, words) in [
            (r#"{"gid":"g"}"#, "steps: found nothing; allowed: an array of 1 to 1,000 steps"),
            (r#""x""#, "steps: found \"x\"; allowed: an array of 1 to 1,000 steps"),
            (
                r#"{"gid":5,"steps":[]}"#,
                "gid: found 5; allowed: 1 to 128 of the characters A-Z a-z 0-9 . _ : -",
            ),
            (
                r#"{"status":"x"}"#,
                "saga: found key \"status\"; allowed: the keys gid, steps, queue, priority, run_at, timeout_to_fail, retry_interval, retry_limit, compensate_retry_limit, request_timeout, headers, labels, result_mapping",
            ),
            (
                r#"{"retry_interval":"1 h"}"#,
                "retry_interval: found \"1 h\"; allowed: a number of seconds (an INSERT takes any interval)",
            ),
            (
                r#"{"run_at":"tomorrow"}"#,
                "run_at: found \"tomorrow\"; allowed: a time like 2026-07-01T09:30:00Z (an INSERT takes any finite timestamptz)",
            ),
            (r#"{"queue":5}"#, "queue: found 5; allowed: 1 to 64 of the characters A-Z a-z 0-9 . _ : -"),
            (r#"{"priority":"high"}"#, "priority: found \"high\"; allowed: a whole number from 0 to 3"),
            (r#"{"retry_limit":1.5}"#, "retry_limit: found 1.5; allowed: a whole number from 0 to 1,000,000"),
        ] {
            assert_eq!(check_file(bad).unwrap_err().to_string(), words);
        }
    }
}
