use pgsaga_sql::contract::{GID, Number, PRIORITY, QUEUE, RETRY_LIMIT};
use serde_json::value::RawValue;
use sqlx::types::chrono::DateTime;

use crate::validate::json::{self, Kind, found, quoted};
use crate::validate::{self, Columns, Invalid};

const COLUMNS: &str = "the keys gid, steps, queue, priority, run_at, timeout_to_fail, retry_interval, retry_limit, compensate_retry_limit, compensate_failed, request_timeout, headers, labels, result_mapping";
const SECONDS: &str = "a number of seconds (an INSERT takes any interval)";
const BOOLEAN: &str = "true or false";
const TIME: &str = "a time like 2026-07-01T09:30:00Z (an INSERT takes any finite timestamptz)";

/// A saga that the INSERT accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub(crate) columns: Columns,
}

impl Definition {
    /// Checks a saga as its INSERT would. Of several errors, both report the same one.
    pub fn new(columns: Columns) -> Result<Self, Invalid> {
        validate::check(&columns)?;
        Ok(Self { columns })
    }

    /// Reads a saga from JSON: an array of steps, or an object of columns. `run_at` is an RFC 3339
    /// time; `timeout_to_fail`, `retry_interval` and `request_timeout` are numbers of seconds.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        let value = json::parse("steps", text)?;
        let Some(entries) = json::object(value) else {
            return Self::new(Columns { steps: value.get().to_owned(), ..Columns::default() });
        };
        let mut columns = Columns::default();
        for (key, value) in entries {
            columns.read(&key.0, value)?;
        }
        if columns.steps.is_empty() {
            return Err(Invalid::new("steps", found(None), validate::STEPS));
        }
        Self::new(columns)
    }

    /// What the INSERT is given.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The steps, as JSON.
    pub fn steps(&self) -> &str {
        &self.columns.steps
    }
}

impl Columns {
    /// Sets a column from its value in JSON.
    fn read(&mut self, column: &str, value: &RawValue) -> Result<(), Invalid> {
        let wrong = |allowed: &dyn ToString| Invalid::new(column, found(Some(value)), allowed.to_string());
        let json = || Some(value.get().to_owned());
        let text = |allowed: &dyn ToString| {
            json::string(value).map(|text| Some(text.into_owned())).ok_or_else(|| wrong(allowed))
        };
        let number = || (json::kind(value) == Kind::Number).then(|| Number::parse(value.get())).flatten();
        let whole = |allowed: &dyn ToString| {
            number().and_then(|number| number.whole()).map(Some).ok_or_else(|| wrong(allowed))
        };
        let micros = || number().and_then(|number| number.micros()).map(Some).ok_or_else(|| wrong(&SECONDS));
        match column {
            "gid" => self.gid = text(&GID)?,
            "steps" => value.get().clone_into(&mut self.steps),
            "queue" => self.queue = text(&QUEUE)?,
            "priority" => self.priority = whole(&PRIORITY)?,
            "run_at" => self.run_at_us = Some(micros_since_1970(value).ok_or_else(|| wrong(&TIME))?),
            "timeout_to_fail" => self.timeout_to_fail_us = micros()?,
            "retry_interval" => self.retry_interval_us = micros()?,
            "retry_limit" => self.retry_limit = whole(&RETRY_LIMIT)?,
            "compensate_retry_limit" => self.compensate_retry_limit = whole(&RETRY_LIMIT)?,
            "compensate_failed" => {
                self.compensate_failed = Some(boolean(value).ok_or_else(|| wrong(&BOOLEAN))?)
            }
            "request_timeout" => self.request_timeout_us = micros()?,
            "headers" => self.headers = json(),
            "labels" => self.labels = json(),
            "result_mapping" => self.result_mapping = json(),
            other => return Err(Invalid::new("saga", format!("key {}", quoted(other)), COLUMNS)),
        }
        Ok(())
    }
}

fn boolean(value: &RawValue) -> Option<bool> {
    serde_json::from_str(value.get()).ok()
}

fn micros_since_1970(value: &RawValue) -> Option<i128> {
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
        assert_eq!(
            definition.columns,
            Columns {
                gid: Some("g".to_owned()),
                steps: r#"[{"action":""}]"#.to_owned(),
                retry_interval_us: Some(1_500_000),
                request_timeout_us: Some(2_000_000),
                retry_limit: Some(3),
                ..Columns::default()
            }
        );
        let definition = Definition::from_json(
            r#"{"steps":[{"action":""}],"queue":"slow","priority":2.0,"run_at":"2026-07-01T09:30:00.000001-02:00","timeout_to_fail":90.5,"compensate_retry_limit":4,"compensate_failed":true,"result_mapping":null}"#,
        )
        .unwrap();
        assert_eq!(
            definition.columns,
            Columns {
                steps: r#"[{"action":""}]"#.to_owned(),
                queue: Some("slow".to_owned()),
                priority: Some(2),
                run_at_us: Some(1_782_905_400_000_001),
                timeout_to_fail_us: Some(90_500_000),
                compensate_retry_limit: Some(4),
                compensate_failed: Some(true),
                result_mapping: Some("null".to_owned()),
                ..Columns::default()
            }
        );
        for (bad, words) in [
            (r#"{"gid":"g"}"#, "steps: found nothing; allowed: an array of 1 to 1,000 steps"),
            (r#""x""#, "steps: found \"x\"; allowed: an array of 1 to 1,000 steps"),
            (
                r#"{"gid":5,"steps":[]}"#,
                "gid: found 5; allowed: 1 to 128 of the characters A-Z a-z 0-9 . _ : -",
            ),
            (
                r#"{"status":"x"}"#,
                "saga: found key \"status\"; allowed: the keys gid, steps, queue, priority, run_at, timeout_to_fail, retry_interval, retry_limit, compensate_retry_limit, compensate_failed, request_timeout, headers, labels, result_mapping",
            ),
            (
                r#"{"retry_interval":"1 h"}"#,
                "retry_interval: found \"1 h\"; allowed: a number of seconds (an INSERT takes any interval)",
            ),
            (
                r#"{"run_at":"tomorrow"}"#,
                "run_at: found \"tomorrow\"; allowed: a time like 2026-07-01T09:30:00Z (an INSERT takes any finite timestamptz)",
            ),
            (r#"{"compensate_failed":1}"#, "compensate_failed: found 1; allowed: true or false"),
            (r#"{"queue":5}"#, "queue: found 5; allowed: 1 to 64 of the characters A-Z a-z 0-9 . _ : -"),
            (r#"{"priority":"high"}"#, "priority: found \"high\"; allowed: a whole number from 0 to 3"),
            (r#"{"retry_limit":1.5}"#, "retry_limit: found 1.5; allowed: a whole number from 0 to 1,000,000"),
        ] {
            assert_eq!(Definition::from_json(bad).unwrap_err().to_string(), words);
        }
    }
}
