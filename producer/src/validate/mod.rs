//! The rules of a saga, in the order and the words of the INSERT. The table
//! `tests/cases/bad_input.json` holds both to the same words: change them together.

mod entries;
mod invalid;
pub(crate) mod json;
mod order;
mod reference;
mod step;

use std::collections::HashSet;

use pgsaga_sql::contract::{
    GID, Name, PRIORITY, QUEUE, REQUEST_TIMEOUT, RETRY_INTERVAL, RETRY_LIMIT, STEPS_MAX, Seconds,
    TIMEOUT_TO_FAIL, Whole,
};
use serde_json::value::RawValue;

use entries::{headers, labels};
pub use invalid::Invalid;
use json::{found, quoted};
use order::Order;
use step::Step;

const RUN_AFTER_SECONDS_MAX: i128 = 3_153_600_000;
/// 4713-01-01 BC, near the first instant of timestamptz, and 10000-01-01.
const RUN_AT_US_MIN: i128 = -210_866_803_200_000_000;
const RUN_AT_US_END: i128 = 253_402_300_800_000_000;

pub(crate) const STEPS: &str = "an array of 1 to 1,000 steps";
const RUN_AT: &str = "a finite time before the year 10000";
const RUN_AFTER: &str = "up to 3,153,600,000 seconds";

/// The columns of a saga that a producer may set. `None` leaves a column out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    /// The saga's name, `gid`.
    pub gid: Option<String>,
    /// A JSON array.
    pub steps: String,
    /// The queue, for workers that serve chosen queues.
    pub queue: Option<String>,
    /// The class in the queue; 0 comes first.
    pub priority: Option<i64>,
    /// The earliest start, in microseconds since 1970-01-01 UTC.
    pub run_at_us: Option<i128>,
    /// Without `run_at_us`: the earliest start, in microseconds after the INSERT.
    pub run_after_us: Option<i128>,
    /// In microseconds.
    pub timeout_to_fail_us: Option<i128>,
    /// In microseconds.
    pub retry_interval_us: Option<i128>,
    /// Retries of an action after its first try.
    pub retry_limit: Option<i64>,
    /// Retries of a compensation after its first try.
    pub compensate_retry_limit: Option<i64>,
    /// Whether a step whose action was refused is compensated as well.
    pub compensate_failed: Option<bool>,
    /// In microseconds.
    pub request_timeout_us: Option<i128>,
    /// A JSON object of strings.
    pub headers: Option<String>,
    /// A JSON object of strings.
    pub labels: Option<String>,
    /// Any JSON, which may refer to answers of steps.
    pub result_mapping: Option<String>,
}

/// Checks a saga as its INSERT would. Of several errors, both report the same one.
pub(crate) fn check(columns: &Columns) -> Result<(), Invalid> {
    // The database parses JSON before any of our rules sees it.
    let steps = json::parse("steps", &columns.steps)?;
    let saga_headers = parse("headers", &columns.headers)?;
    let saga_labels = parse("labels", &columns.labels)?;
    let result_mapping = parse("result_mapping", &columns.result_mapping)?;

    name("gid", columns.gid.as_deref(), GID)?;
    seconds("retry_interval", columns.retry_interval_us, RETRY_INTERVAL)?;
    whole("retry_limit", columns.retry_limit, RETRY_LIMIT)?;
    seconds("request_timeout", columns.request_timeout_us, REQUEST_TIMEOUT)?;
    name("queue", columns.queue.as_deref(), QUEUE)?;
    whole("priority", columns.priority, PRIORITY)?;
    start(columns.run_at_us, columns.run_after_us)?;
    seconds("timeout_to_fail", columns.timeout_to_fail_us, TIMEOUT_TO_FAIL)?;
    whole("compensate_retry_limit", columns.compensate_retry_limit, RETRY_LIMIT)?;
    result_mapping.map_or(Ok(()), |value| json::payload("result_mapping", value))?;
    saga_headers.map_or(Ok(()), |value| headers("headers", value))?;
    saga_labels.map_or(Ok(()), labels)?;
    check_steps(steps, result_mapping)
}

fn parse<'a>(place: &str, text: &'a Option<String>) -> Result<Option<&'a RawValue>, Invalid> {
    text.as_deref().map(|text| json::parse(place, text)).transpose()
}

/// Checks the steps one by one, then what concerns all of them: the order, and what payloads and
/// the result refer to.
fn check_steps(value: &RawValue, result_mapping: Option<&RawValue>) -> Result<(), Invalid> {
    let Some(values) = json::array(value) else {
        return Err(Invalid::new("steps", found(Some(value)), STEPS));
    };
    if !(1..=STEPS_MAX).contains(&values.len()) {
        return Err(Invalid::new("steps", format!("{} steps", values.len()), STEPS));
    }
    let mut names = HashSet::new();
    let mut steps: Vec<Step<'_>> = Vec::with_capacity(values.len());
    for (position, value) in (1..).zip(values) {
        let step = Step::read(position, value, &mut names)?;
        if let Some(first) = steps.iter().find(|first| first.pivot && step.pivot) {
            let allowed = format!("one pivot a saga, and \"{}\" is it", first.name);
            return Err(Invalid::new(format!("step \"{}\": pivot", step.name), "true again", allowed));
        }
        steps.push(step);
    }
    let order = Order::of(&steps)?;
    order.check_pivot(&steps)?;
    reference::check(&order, &steps, result_mapping)
}

/// Checks a gid, or the name of a queue.
pub(crate) fn name(place: &str, text: Option<&str>, limit: Name) -> Result<(), Invalid> {
    match text {
        Some(text) if !limit.allows(text) => Err(Invalid::new(place, quoted(text), limit)),
        _ => Ok(()),
    }
}

fn whole(place: &str, number: Option<i64>, limit: Whole) -> Result<(), Invalid> {
    match number {
        Some(number) if !limit.contains(number) => Err(Invalid::new(place, number, limit)),
        _ => Ok(()),
    }
}

fn seconds(place: &str, micros: Option<i128>, limit: Seconds) -> Result<(), Invalid> {
    match micros {
        Some(micros) if !limit.contains_us(micros) => Err(Invalid::new(place, in_seconds(micros), limit)),
        _ => Ok(()),
    }
}

/// `run_after` exists in this crate only: the database sees the sum of it and its clock.
fn start(run_at_us: Option<i128>, run_after_us: Option<i128>) -> Result<(), Invalid> {
    match (run_at_us, run_after_us) {
        (Some(at), _) if at >= RUN_AT_US_END => {
            Err(Invalid::new("run_at", "a time after the year 9999", RUN_AT))
        }
        (Some(at), _) if at < RUN_AT_US_MIN => {
            Err(Invalid::new("run_at", "a time before the year 4713 BC", RUN_AT))
        }
        (_, Some(after)) if !(0..=RUN_AFTER_SECONDS_MAX * 1_000_000).contains(&after) => {
            Err(Invalid::new("run_after", in_seconds(after), RUN_AFTER))
        }
        _ => Ok(()),
    }
}

fn in_seconds(micros: i128) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let text = format!("{}.{:06}", micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    format!("{sign}{} seconds", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use pgsaga_sql::contract::STEP_KEYS;
    use proptest::prelude::*;

    use super::*;

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
        let keys = STEP_KEYS.iter().map(|key| key.name).chain(["x"]).collect::<Vec<_>>();
        let key = prop::sample::select(keys);
        let step = prop::collection::vec((key, value), 0..6).prop_map(|entries| {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!(", \"{key}\": {value}")).collect();
            format!("{{\"action\": \"\"{}}}", entries.concat())
        });
        prop::collection::vec(step, 0..5).prop_map(|steps| format!("[{}]", steps.join(",")))
    }

    proptest! {
        #[test]
        fn whatever_is_checked_the_answer_is_short_and_says_what_is_allowed(
            steps in prop_oneof![steps(), any::<String>()], extra in prop_oneof![steps(), any::<String>()],
            text in any::<String>(), number in any::<i64>(), micros in any::<i128>(),
        ) {
            let plain = Columns { steps, ..Columns::default() };
            let good = Columns { steps: r#"[{"action": ""}]"#.to_owned(), ..Columns::default() };
            let (extra, text) = (Some(extra), Some(text));
            for columns in [
                plain.clone(),
                Columns { headers: extra.clone(), ..plain.clone() },
                Columns { labels: extra.clone(), ..good.clone() },
                Columns { result_mapping: extra, ..plain },
                Columns { gid: text.clone(), ..good.clone() },
                Columns { queue: text, ..good.clone() },
                Columns { priority: Some(number), ..good.clone() },
                Columns { retry_limit: Some(number), ..good.clone() },
                Columns { compensate_retry_limit: Some(number), ..good.clone() },
                Columns { retry_interval_us: Some(micros), ..good.clone() },
                Columns { request_timeout_us: Some(micros), ..good.clone() },
                Columns { timeout_to_fail_us: Some(micros), ..good.clone() },
                Columns { run_at_us: Some(micros), run_after_us: Some(micros), ..good },
            ] {
                if let Err(invalid) = check(&columns) {
                    prop_assert!(!invalid.place().is_empty() && !invalid.found().is_empty() && !invalid.allowed().is_empty());
                    // Two names of 64 characters, each of which may need six in JSON, and the rest.
                    prop_assert!(invalid.to_string().chars().count() < 1_500, "{invalid}");
                }
            }
        }
    }
}
