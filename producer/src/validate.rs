//! The rules of a saga, in the order and the words of `sql/functions/insert/check_saga.sql`; the table
//! `tests/cases/bad_input.json` holds both to it. Change them together.

use serde_json::value::RawValue;

use crate::entries::{headers, labels};
use crate::gid::{Gid, is_name};
use crate::invalid::Invalid;
use crate::json::{self, quoted};
use crate::steps;

const QUEUE_MAX: usize = 64;
const PRIORITY_MAX: i64 = 3;
const PAYLOAD_BYTES_MAX: usize = 1_048_576;
const PAYLOAD_DEPTH_MAX: usize = 64;
pub(crate) const RETRY_LIMIT_MAX: u64 = 1_000_000;
pub(crate) const RETRY_INTERVAL_SECONDS_MAX: u64 = 86_400;
pub(crate) const REQUEST_TIMEOUT_SECONDS_MAX: u64 = 3_600;
const TIMEOUT_TO_FAIL_SECONDS_MAX: u64 = 31_536_000;
const RUN_AFTER_SECONDS_MAX: u64 = 3_153_600_000;
/// 4713-01-01 BC, near the first instant of timestamptz, and 10000-01-01.
const RUN_AT_US_MIN: i128 = -210_866_803_200_000_000;
const RUN_AT_US_END: i128 = 253_402_300_800_000_000;

pub(crate) const QUEUE: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ : -";
pub(crate) const PRIORITY: &str = "a whole number from 0 to 3";
const RUN_AT: &str = "a finite time before the year 10000";
const RUN_AFTER: &str = "up to 3,153,600,000 seconds";
const TIMEOUT_TO_FAIL: &str = "from 0.001 to 31,536,000 seconds";
const PAYLOAD_BYTES: &str = "up to 1,048,576 bytes as Postgres prints the JSON";
const PAYLOAD_DEPTH: &str = "arrays and objects nested up to 64 deep";
pub(crate) const RETRY_LIMIT: &str = "a whole number from 0 to 1,000,000";
pub(crate) const RETRY_INTERVAL: &str = "from 0.001 to 86,400 seconds";
pub(crate) const REQUEST_TIMEOUT: &str = "from 0.001 to 3,600 seconds";

/// The columns of a saga as a producer may set them; `None` is a column left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Columns<'a> {
    /// The saga's name.
    pub gid: Option<&'a str>,
    /// A JSON array.
    pub steps: &'a str,
    /// Which workers serve it.
    pub queue: Option<&'a str>,
    /// Its class in the queue, 0 first.
    pub priority: Option<i64>,
    /// In microseconds since 1970-01-01 UTC.
    pub run_at_us: Option<i128>,
    /// In microseconds; added to the database's clock at the INSERT where there is no `run_at_us`.
    pub run_after_us: Option<i128>,
    /// In microseconds.
    pub timeout_to_fail_us: Option<i128>,
    /// In microseconds.
    pub retry_interval_us: Option<i128>,
    /// An action's retries after its first try.
    pub retry_limit: Option<i64>,
    /// A compensation's retries after its first try.
    pub compensate_retry_limit: Option<i64>,
    /// In microseconds.
    pub request_timeout_us: Option<i128>,
    /// A JSON object of strings.
    pub headers: Option<&'a str>,
    /// A JSON object of strings.
    pub labels: Option<&'a str>,
    /// Any JSON; may refer to the answers of steps.
    pub result_mapping: Option<&'a str>,
}

/// Checks the steps of a saga: a JSON array as the column `steps` takes it.
pub fn validate_steps(json: &str) -> Result<(), Invalid> {
    steps::check(json::parse("steps", json)?, None)
}

/// Checks a saga as its INSERT would; the first error in the same fixed order wins.
pub fn validate_saga(columns: &Columns<'_>) -> Result<(), Invalid> {
    // In the database, JSON is read before any rule of ours sees it.
    let steps_json = json::parse("steps", columns.steps)?;
    let headers_json = columns.headers.map(|text| json::parse("headers", text)).transpose()?;
    let labels_json = columns.labels.map(|text| json::parse("labels", text)).transpose()?;
    let mapping_json = columns.result_mapping.map(|text| json::parse("result_mapping", text)).transpose()?;

    if let Some(gid) = columns.gid {
        Gid::new(gid)?;
    }
    seconds("retry_interval", columns.retry_interval_us, RETRY_INTERVAL_SECONDS_MAX, RETRY_INTERVAL)?;
    retry_limit("retry_limit", columns.retry_limit)?;
    seconds("request_timeout", columns.request_timeout_us, REQUEST_TIMEOUT_SECONDS_MAX, REQUEST_TIMEOUT)?;
    if let Some(queue) = columns.queue
        && !is_name(queue, QUEUE_MAX)
    {
        return Err(Invalid::new("queue", quoted(queue), QUEUE));
    }
    if let Some(priority) = columns.priority
        && !(0..=PRIORITY_MAX).contains(&priority)
    {
        return Err(Invalid::new("priority", priority.to_string(), PRIORITY));
    }
    start(columns.run_at_us, columns.run_after_us)?;
    seconds("timeout_to_fail", columns.timeout_to_fail_us, TIMEOUT_TO_FAIL_SECONDS_MAX, TIMEOUT_TO_FAIL)?;
    retry_limit("compensate_retry_limit", columns.compensate_retry_limit)?;
    if let Some(value) = mapping_json {
        payload("result_mapping", value)?;
    }
    if let Some(value) = headers_json {
        headers("headers", value)?;
    }
    if let Some(value) = labels_json {
        labels(value)?;
    }
    steps::check(steps_json, mapping_json)
}

/// `run_after` is the crate's own: the database only sees the sum.
fn start(run_at_us: Option<i128>, run_after_us: Option<i128>) -> Result<(), Invalid> {
    if let Some(at) = run_at_us {
        if at >= RUN_AT_US_END {
            return Err(Invalid::new("run_at", "a time after the year 9999", RUN_AT));
        }
        if at < RUN_AT_US_MIN {
            return Err(Invalid::new("run_at", "a time before the year 4713 BC", RUN_AT));
        }
    }
    match run_after_us {
        Some(after) if !(0..=i128::from(RUN_AFTER_SECONDS_MAX) * 1_000_000).contains(&after) => {
            Err(Invalid::new("run_after", in_seconds(after), RUN_AFTER))
        }
        _ => Ok(()),
    }
}

fn retry_limit(place: &str, limit: Option<i64>) -> Result<(), Invalid> {
    match limit {
        Some(limit) if !u64::try_from(limit).is_ok_and(|limit| limit <= RETRY_LIMIT_MAX) => {
            Err(Invalid::new(place, limit.to_string(), RETRY_LIMIT))
        }
        _ => Ok(()),
    }
}

fn seconds(place: &str, micros: Option<i128>, seconds_max: u64, allowed: &str) -> Result<(), Invalid> {
    match micros {
        Some(micros) if !(1_000..=i128::from(seconds_max) * 1_000_000).contains(&micros) => {
            Err(Invalid::new(place, in_seconds(micros), allowed))
        }
        _ => Ok(()),
    }
}

fn in_seconds(micros: i128) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let text = format!("{}.{:06}", micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    format!("{sign}{} seconds", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The limits of a payload, and of what is made like one.
pub(crate) fn payload(place: &str, value: &RawValue) -> Result<(), Invalid> {
    let size =
        json::measure(value.get()).map_err(|found| Invalid::new(place, found, "JSON that jsonb can hold"))?;
    if size.bytes > PAYLOAD_BYTES_MAX {
        return Err(Invalid::new(place, format!("{} bytes", size.bytes), PAYLOAD_BYTES));
    }
    if size.depth > PAYLOAD_DEPTH_MAX {
        return Err(Invalid::new(place, format!("more than {PAYLOAD_DEPTH_MAX} levels"), PAYLOAD_DEPTH));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property::tried;

    /// Steps of which nearly every part may be anything.
    fn steps() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            "[0-9.eE+-]{1,12}",
            "\"[ -~]{0,20}\"",
            any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
            Just("[[[{\"$from\": \"01\"}]]]".to_owned()),
            Just("{\"a\": {\"$literal\": [], \"b\": null}}".to_owned()),
            Just("true".to_owned()),
            Just("[\"01\", \"02\"]".to_owned()),
        ];
        let key = prop::sample::select(vec![
            "name",
            "action",
            "compensate",
            "payload",
            "compensate_payload",
            "headers",
            "after",
            "pivot",
            "retry_limit",
            "compensate_retry_limit",
            "retry_interval_seconds",
            "request_timeout_seconds",
            "x",
        ]);
        let step = prop::collection::vec((key, value), 0..6).prop_map(|entries| {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!(", \"{key}\": {value}")).collect();
            format!("{{\"action\": \"\"{}}}", entries.concat())
        });
        prop::collection::vec(step, 0..5).prop_map(|steps| format!("[{}]", steps.join(",")))
    }

    proptest! {
        #![proptest_config(tried())]

        #[test]
        fn whatever_is_checked_the_answer_is_short_and_says_what_is_allowed(
            steps in prop_oneof![steps(), any::<String>()], extra in prop_oneof![steps(), any::<String>()],
            text in any::<String>(), number in any::<i64>(), micros in any::<i128>(),
        ) {
            let plain = Columns { steps: &steps, ..Columns::default() };
            let good = Columns { steps: r#"[{"action": ""}]"#, ..Columns::default() };
            for columns in [
                plain,
                Columns { headers: Some(&extra), ..plain },
                Columns { labels: Some(&extra), ..good },
                Columns { result_mapping: Some(&extra), ..plain },
                Columns { gid: Some(&text), ..good },
                Columns { queue: Some(&text), ..good },
                Columns { priority: Some(number), ..good },
                Columns { retry_limit: Some(number), ..good },
                Columns { compensate_retry_limit: Some(number), ..good },
                Columns { retry_interval_us: Some(micros), ..good },
                Columns { request_timeout_us: Some(micros), ..good },
                Columns { timeout_to_fail_us: Some(micros), ..good },
                Columns { run_at_us: Some(micros), run_after_us: Some(micros), ..good },
            ] {
                if let Err(invalid) = validate_saga(&columns) {
                    prop_assert!(!invalid.place().is_empty() && !invalid.found().is_empty() && !invalid.allowed().is_empty());
                    // Two names of 64 characters, each of which may need six in JSON, and the rest.
                    prop_assert!(invalid.to_string().chars().count() < 1_500, "{invalid}");
                }
            }
            prop_assert_eq!(validate_steps(&steps), validate_saga(&plain));
        }
    }
}
