//! The rules of a saga, in the order and the words of `sql/migrations/0002_validation.sql`; the table
//! `tests/cases/bad_input.json` holds both to it. Change them together.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::gid::Gid;
use crate::invalid::Invalid;
use crate::json::{self, Kind, Number, found, quoted};
use crate::step_name::StepName;
use crate::url::is_url;

const STEPS_MAX: usize = 1_000;
const ENTRIES_MAX: usize = 64;
const PAYLOAD_BYTES_MAX: usize = 1_048_576;
const PAYLOAD_DEPTH_MAX: usize = 64;
const HEADER_NAME_MAX: usize = 128;
const HEADER_VALUE_MAX: usize = 4_096;
const LABEL_KEY_MAX: usize = 64;
const LABEL_VALUE_MAX: usize = 256;
const RETRY_LIMIT_MAX: u64 = 1_000_000;
const RETRY_INTERVAL_SECONDS_MAX: u64 = 86_400;
const REQUEST_TIMEOUT_SECONDS_MAX: u64 = 3_600;

const STEP_KEYS: [&str; 9] = [
    "name",
    "action",
    "compensate",
    "payload",
    "compensate_payload",
    "headers",
    "retry_limit",
    "retry_interval_seconds",
    "request_timeout_seconds",
];
/// Headers that are ours or the transport's.
const FORBIDDEN_HEADERS: [&str; 16] = [
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "idempotency-key",
    "saga-attempt",
    "saga-timeout-ms",
    "saga-action-key",
];

const STEPS: &str = "an array of 1 to 1,000 steps";
const STEP_NAME: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ : -";
const UNUSED_STEP_NAME: &str =
    "a name that no earlier step has (without one, a step is named by its position: 01, 02, …)";
const KNOWN_KEYS: &str = "the keys name, action, compensate, payload, compensate_payload, headers, retry_limit, retry_interval_seconds, request_timeout_seconds";
const URL: &str = "\"\" or a URL like https://host:port/path?query: up to 2,048 visible ASCII characters, without user, fragment or backslash";
const PAYLOAD_BYTES: &str = "up to 1,048,576 bytes as Postgres prints the JSON";
const PAYLOAD_DEPTH: &str = "arrays and objects nested up to 64 deep";
const STRINGS: &str = "an object of strings";
const ENTRIES: &str = "up to 64";
const HEADER_NAME: &str = "1 to 128 of the characters A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~";
const HEADER_VALUE: &str = "a string of up to 4,096 visible ASCII characters, spaces and tabs";
const LABEL_KEY: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ : / -";
const LABEL_VALUE: &str = "a string of up to 256 characters";
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
    /// In microseconds.
    pub retry_interval_us: Option<i128>,
    /// Retries after the first try.
    pub retry_limit: Option<i64>,
    /// In microseconds.
    pub request_timeout_us: Option<i128>,
    /// A JSON object of strings.
    pub headers: Option<&'a str>,
    /// A JSON object of strings.
    pub labels: Option<&'a str>,
}

/// Checks the steps of a saga: a JSON array as the column `steps` takes it.
pub fn validate_steps(json: &str) -> Result<(), Invalid> {
    steps(json::parse("steps", json)?)
}

/// Checks a saga as its INSERT would; the first error in the same fixed order wins.
pub fn validate_saga(columns: &Columns<'_>) -> Result<(), Invalid> {
    // In the database, JSON is read before any rule of ours sees it.
    let steps_json = json::parse("steps", columns.steps)?;
    let headers_json = columns.headers.map(|text| json::parse("headers", text)).transpose()?;
    let labels_json = columns.labels.map(|text| json::parse("labels", text)).transpose()?;

    if let Some(gid) = columns.gid {
        Gid::new(gid)?;
    }
    seconds("retry_interval", columns.retry_interval_us, RETRY_INTERVAL_SECONDS_MAX, RETRY_INTERVAL)?;
    if let Some(limit) = columns.retry_limit
        && !u64::try_from(limit).is_ok_and(|limit| limit <= RETRY_LIMIT_MAX)
    {
        return Err(Invalid::new("retry_limit", limit.to_string(), RETRY_LIMIT));
    }
    seconds("request_timeout", columns.request_timeout_us, REQUEST_TIMEOUT_SECONDS_MAX, REQUEST_TIMEOUT)?;
    if let Some(value) = headers_json {
        headers("headers", value)?;
    }
    if let Some(value) = labels_json {
        labels(value)?;
    }
    steps(steps_json)
}

fn seconds(place: &str, micros: Option<i128>, seconds_max: u64, allowed: &str) -> Result<(), Invalid> {
    match micros {
        Some(micros) if !(1_000..=i128::from(seconds_max) * 1_000_000).contains(&micros) => {
            let sign = if micros < 0 { "-" } else { "" };
            let text =
                format!("{}.{:06}", micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            Err(Invalid::new(place, format!("{sign}{text} seconds"), allowed))
        }
        _ => Ok(()),
    }
}

fn steps(value: &RawValue) -> Result<(), Invalid> {
    let Some(steps) = json::array(value) else {
        return Err(Invalid::new("steps", found(Some(value)), STEPS));
    };
    if !(1..=STEPS_MAX).contains(&steps.len()) {
        return Err(Invalid::new("steps", format!("{} steps", steps.len()), STEPS));
    }
    let mut names = HashSet::new();
    for (position, value) in (1..).zip(steps) {
        step(position, value, &mut names)?;
    }
    Ok(())
}

fn step(position: usize, value: &RawValue, names: &mut HashSet<StepName>) -> Result<(), Invalid> {
    let place = format!("steps[{position}]");
    let Some(step) = json::object(value) else {
        return Err(Invalid::new(place, found(Some(value)), "an object"));
    };
    let get = |key: &str| step.iter().find(|(name, _)| name.0 == key).map(|(_, value)| *value);

    let name = match get("name") {
        None => StepName::of_position(position),
        Some(value) => json::string(value)
            .and_then(StepName::new)
            .ok_or_else(|| Invalid::new(format!("{place}: name"), found(Some(value)), STEP_NAME))?,
    };
    if !names.insert(name.clone()) {
        return Err(Invalid::new(format!("{place}: name"), format!("\"{name}\" again"), UNUSED_STEP_NAME));
    }
    if let Some(key) = step.keys().find(|key| !STEP_KEYS.contains(&key.0.as_str())) {
        return Err(Invalid::new(format!("step \"{name}\""), format!("key {}", quoted(&key.0)), KNOWN_KEYS));
    }

    let place = |key: &str| format!("step \"{name}\": {key}");
    url(&place("action"), get("action"))?;
    if let Some(value) = get("compensate") {
        url(&place("compensate"), Some(value))?;
    }
    for key in ["payload", "compensate_payload"] {
        if let Some(value) = get(key) {
            payload(&place(key), value)?;
        }
    }
    if let Some(value) = get("headers") {
        headers(&place("headers"), value)?;
    }
    number(&place("retry_limit"), get("retry_limit"), |n| n.is_whole_up_to(RETRY_LIMIT_MAX), RETRY_LIMIT)?;
    let key = "retry_interval_seconds";
    number(&place(key), get(key), |n| n.is_seconds_up_to(RETRY_INTERVAL_SECONDS_MAX), RETRY_INTERVAL)?;
    let key = "request_timeout_seconds";
    number(&place(key), get(key), |n| n.is_seconds_up_to(REQUEST_TIMEOUT_SECONDS_MAX), REQUEST_TIMEOUT)
}

fn url(place: &str, value: Option<&RawValue>) -> Result<(), Invalid> {
    match value.and_then(json::string) {
        Some(url) if url.is_empty() || is_url(&url) => Ok(()),
        _ => Err(Invalid::new(place, found(value), URL)),
    }
}

fn payload(place: &str, value: &RawValue) -> Result<(), Invalid> {
    let measure =
        json::measure(value.get()).map_err(|found| Invalid::new(place, found, "JSON that jsonb can hold"))?;
    if measure.bytes > PAYLOAD_BYTES_MAX {
        return Err(Invalid::new(place, format!("{} bytes", measure.bytes), PAYLOAD_BYTES));
    }
    if measure.depth > PAYLOAD_DEPTH_MAX {
        return Err(Invalid::new(place, format!("more than {PAYLOAD_DEPTH_MAX} levels"), PAYLOAD_DEPTH));
    }
    Ok(())
}

fn headers(place: &str, value: &RawValue) -> Result<(), Invalid> {
    for (key, value) in entries(place, value)? {
        let place = format!("{place} {}", quoted(&key));
        if !is_token(&key) {
            return Err(Invalid::new(place, "a bad name", HEADER_NAME));
        }
        if FORBIDDEN_HEADERS.contains(&key.to_ascii_lowercase().as_str()) {
            return Err(Invalid::new(place, "a header that pgsaga or the transport sets", "any other"));
        }
        let fits = |text: &str| {
            text.len() <= HEADER_VALUE_MAX && text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))
        };
        if !json::string(value).is_some_and(|text| fits(&text)) {
            return Err(Invalid::new(place, found(Some(value)), HEADER_VALUE));
        }
    }
    Ok(())
}

/// A header's name as HTTP defines it (RFC 9110 §5.6.2).
fn is_token(name: &str) -> bool {
    (1..=HEADER_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn labels(value: &RawValue) -> Result<(), Invalid> {
    for (key, value) in entries("labels", value)? {
        let place = format!("labels {}", quoted(&key));
        if !(1..=LABEL_KEY_MAX).contains(&key.len())
            || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
        {
            return Err(Invalid::new(place, "a bad key", LABEL_KEY));
        }
        if json::string(value).is_none_or(|text| text.chars().count() > LABEL_VALUE_MAX) {
            return Err(Invalid::new(place, found(Some(value)), LABEL_VALUE));
        }
    }
    Ok(())
}

fn entries<'a>(place: &str, value: &'a RawValue) -> Result<Vec<(String, &'a RawValue)>, Invalid> {
    let Some(entries) = json::object(value) else {
        return Err(Invalid::new(place, found(Some(value)), STRINGS));
    };
    if entries.len() > ENTRIES_MAX {
        return Err(Invalid::new(place, format!("{} entries", entries.len()), ENTRIES));
    }
    Ok(entries.into_iter().map(|(key, value)| (key.0, value)).collect())
}

fn number(
    place: &str,
    value: Option<&RawValue>,
    fits: impl Fn(&Number) -> bool,
    allowed: &str,
) -> Result<(), Invalid> {
    match value {
        Some(value)
            if json::kind(value) != Kind::Number
                || !Number::parse(value.get()).is_some_and(|number| fits(&number)) =>
        {
            Err(Invalid::new(place, found(Some(value)), allowed))
        }
        _ => Ok(()),
    }
}
