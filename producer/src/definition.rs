use std::time::Duration;

use serde_json::value::RawValue;

use crate::gid::Gid;
use crate::invalid::Invalid;
use crate::json::{self, Kind, Number, found, quoted};
use crate::validate::{Columns, RETRY_LIMIT, validate_saga};

const COLUMNS: &str = "the keys gid, steps, retry_interval, retry_limit, request_timeout, headers, labels";
const SECONDS: &str = "a number of seconds (an INSERT takes any interval)";

/// A saga that passed every check, as its row will hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub(crate) gid: Option<Gid>,
    pub(crate) steps: String,
    pub(crate) retry_interval: Option<Duration>,
    pub(crate) retry_limit: Option<i32>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) headers: Option<String>,
    pub(crate) labels: Option<String>,
}

impl Definition {
    /// Reads a saga from JSON: an array of steps, or an object of the columns `gid`, `steps`, `retry_interval` and
    /// `request_timeout` (numbers of seconds), `retry_limit`, `headers` and `labels`.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        let value = json::parse("steps", text)?;
        let Some(columns) = json::object(value).filter(|_| json::kind(value) == Kind::Object) else {
            return Self::new(&Columns { steps: value.get(), ..Columns::default() });
        };
        let mut gid = None;
        let mut read = Columns::default();
        for (key, value) in columns {
            let wrong = |allowed: &str| Invalid::new(key.0.as_str(), found(Some(value)), allowed);
            match key.0.as_str() {
                "gid" => {
                    gid = Some(
                        json::string(value)
                            .ok_or_else(|| wrong("1 to 128 of the characters A-Z a-z 0-9 . _ : -"))?,
                    );
                }
                "steps" => read.steps = value.get(),
                "retry_interval" => {
                    read.retry_interval_us = Some(micros(value).ok_or_else(|| wrong(SECONDS))?)
                }
                "request_timeout" => {
                    read.request_timeout_us = Some(micros(value).ok_or_else(|| wrong(SECONDS))?)
                }
                "retry_limit" => read.retry_limit = Some(whole(value).ok_or_else(|| wrong(RETRY_LIMIT))?),
                "headers" => read.headers = Some(value.get()),
                "labels" => read.labels = Some(value.get()),
                other => return Err(Invalid::new("saga", format!("key {}", quoted(other)), COLUMNS)),
            }
        }
        if read.steps.is_empty() {
            return Err(Invalid::new("steps", found(None), "an array of 1 to 1,000 steps"));
        }
        read.gid = gid.as_deref();
        Self::new(&read)
    }

    /// Checks the columns and keeps them.
    pub fn new(columns: &Columns<'_>) -> Result<Self, Invalid> {
        validate_saga(columns)?;
        let duration =
            |micros: Option<i128>| micros.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros);
        Ok(Self {
            gid: columns.gid.map(Gid::new).transpose()?,
            steps: columns.steps.to_owned(),
            retry_interval: duration(columns.retry_interval_us),
            retry_limit: columns.retry_limit.and_then(|limit| i32::try_from(limit).ok()),
            request_timeout: duration(columns.request_timeout_us),
            headers: columns.headers.map(str::to_owned),
            labels: columns.labels.map(str::to_owned),
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
        for (bad, words) in [
            (r#"{"gid":"g"}"#, "steps: found nothing; allowed: an array of 1 to 1,000 steps"),
            (r#""x""#, "steps: found \"x\"; allowed: an array of 1 to 1,000 steps"),
            (
                r#"{"gid":5,"steps":[]}"#,
                "gid: found 5; allowed: 1 to 128 of the characters A-Z a-z 0-9 . _ : -",
            ),
            (
                r#"{"status":"x"}"#,
                "saga: found key \"status\"; allowed: the keys gid, steps, retry_interval, retry_limit, request_timeout, headers, labels",
            ),
            (
                r#"{"retry_interval":"1 h"}"#,
                "retry_interval: found \"1 h\"; allowed: a number of seconds (an INSERT takes any interval)",
            ),
            (r#"{"retry_limit":1.5}"#, "retry_limit: found 1.5; allowed: a whole number from 0 to 1,000,000"),
        ] {
            assert_eq!(check_file(bad).unwrap_err().to_string(), words);
        }
    }
}
