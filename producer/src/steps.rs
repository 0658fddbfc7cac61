//! The steps, one by one; then what needs all of them: their order, and what payloads refer to.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::entries::headers;
use crate::invalid::Invalid;
use crate::json::{self, Key, Kind, found, quoted};
use crate::named_url::NamedUrl;
use crate::number::Number;
use crate::order::{NAMES, Order};
use crate::reference;
use crate::step_name::StepName;
use crate::url::{has_reserved_key, is_url};
use crate::validate::{
    REQUEST_TIMEOUT, REQUEST_TIMEOUT_SECONDS_MAX, RETRY_INTERVAL, RETRY_INTERVAL_SECONDS_MAX, RETRY_LIMIT,
    RETRY_LIMIT_MAX, payload,
};

const STEPS_MAX: usize = 1_000;
const AFTER_MAX: usize = 1_000;

const STEP_KEYS: [&str; 12] = [
    "name",
    "action",
    "compensate",
    "payload",
    "compensate_payload",
    "after",
    "pivot",
    "headers",
    "retry_limit",
    "compensate_retry_limit",
    "retry_interval_seconds",
    "request_timeout_seconds",
];

const STEPS: &str = "an array of 1 to 1,000 steps";
const STEP_NAME: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ : -";
const UNUSED_STEP_NAME: &str =
    "a name that no earlier step has (without one, a step is named by its position: 01, 02, …)";
const KNOWN_KEYS: &str = "the keys name, action, compensate, payload, compensate_payload, after, pivot, headers, retry_limit, compensate_retry_limit, retry_interval_seconds, request_timeout_seconds";
const URL: &str = "\"\", participant:name/path, or a URL like https://host:port/path?query: up to 2,048 visible ASCII characters, without user, fragment or backslash";
const NAMED_URL: &str = "participant:name/path?query, with a name of 1 to 64 of a-z 0-9 . _ - that starts with a letter or a digit and is not digits alone: up to 2,048 of the characters A-Z a-z 0-9 . _ ~ : @ / ? = & , ; + -, without ..";
const QUERY: &str = "a query without gid, trans_type, branch_id and op, which workers add";
const AFTER: &str = "an array of up to 1,000 names of other steps";

/// A step that is well by itself.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) name: StepName,
    pub(crate) compensates: bool,
    pub(crate) payload: Option<&'a RawValue>,
    pub(crate) compensate_payload: Option<&'a RawValue>,
    pub(crate) after: Option<Vec<String>>,
    pub(crate) pivot: bool,
}

/// Checks the column `steps`, and what `result_mapping` refers to.
pub(crate) fn check(value: &RawValue, result_mapping: Option<&RawValue>) -> Result<(), Invalid> {
    let Some(values) = json::array(value) else {
        return Err(Invalid::new("steps", found(Some(value)), STEPS));
    };
    if !(1..=STEPS_MAX).contains(&values.len()) {
        return Err(Invalid::new("steps", format!("{} steps", values.len()), STEPS));
    }
    let mut names = HashSet::new();
    let mut steps: Vec<Step<'_>> = Vec::with_capacity(values.len());
    for (position, value) in (1..).zip(values) {
        let step = step(position, value, &mut names)?;
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

fn step<'a>(
    position: usize,
    value: &'a RawValue,
    names: &mut HashSet<StepName>,
) -> Result<Step<'a>, Invalid> {
    let place = format!("steps[{position}]");
    let Some(entries) = json::object(value) else {
        return Err(Invalid::new(place, found(Some(value)), "an object"));
    };
    let get = |key: &str| entries.get(&Key(key.to_owned())).copied();

    let name = match get("name") {
        None => StepName::of_position(position),
        Some(value) => json::string(value)
            .and_then(StepName::new)
            .ok_or_else(|| Invalid::new(format!("{place}: name"), found(Some(value)), STEP_NAME))?,
    };
    if !names.insert(name.clone()) {
        return Err(Invalid::new(format!("{place}: name"), format!("\"{name}\" again"), UNUSED_STEP_NAME));
    }
    if let Some(key) = entries.keys().find(|key| !STEP_KEYS.contains(&key.0.as_str())) {
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
    for key in ["retry_limit", "compensate_retry_limit"] {
        number(&place(key), get(key), |n| n.is_whole_up_to(RETRY_LIMIT_MAX), RETRY_LIMIT)?;
    }
    let key = "retry_interval_seconds";
    number(&place(key), get(key), |n| n.is_seconds_up_to(RETRY_INTERVAL_SECONDS_MAX), RETRY_INTERVAL)?;
    let key = "request_timeout_seconds";
    number(&place(key), get(key), |n| n.is_seconds_up_to(REQUEST_TIMEOUT_SECONDS_MAX), REQUEST_TIMEOUT)?;
    let after = get("after").map(|value| after(&place("after"), &name, value)).transpose()?;
    let pivot = pivot(&place("pivot"), get("pivot"))?;
    Ok(Step {
        compensates: get("compensate").is_some(),
        payload: get("payload"),
        compensate_payload: get("compensate_payload"),
        after,
        pivot,
        name,
    })
}

fn url(place: &str, value: Option<&RawValue>) -> Result<(), Invalid> {
    match value.and_then(json::string) {
        Some(url) if has_reserved_key(&url) => Err(Invalid::new(place, found(value), QUERY)),
        Some(url) if url.is_empty() || is_url(&url) || NamedUrl::parse(&url).is_some() => Ok(()),
        Some(url) if NamedUrl::is_meant(&url) => Err(Invalid::new(place, found(value), NAMED_URL)),
        _ => Err(Invalid::new(place, found(value), URL)),
    }
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

fn after(place: &str, own: &StepName, value: &RawValue) -> Result<Vec<String>, Invalid> {
    let Some(values) = json::array(value) else {
        return Err(Invalid::new(place, found(Some(value)), AFTER));
    };
    if values.len() > AFTER_MAX {
        return Err(Invalid::new(place, format!("{} names", values.len()), AFTER));
    }
    let mut names = Vec::with_capacity(values.len());
    let mut seen = HashSet::new();
    for value in values {
        let refuse = |suffix: &str| Err(Invalid::new(place, found(Some(value)) + suffix, NAMES));
        let Some(name) = json::string(value) else { return refuse("") };
        if name == own.as_str() {
            return refuse(" itself");
        }
        if !seen.insert(name.clone()) {
            return refuse(" again");
        }
        names.push(name.into_owned());
    }
    Ok(names)
}

fn pivot(place: &str, value: Option<&RawValue>) -> Result<bool, Invalid> {
    match value.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Invalid::new(place, found(value), "true or false")),
    }
}
