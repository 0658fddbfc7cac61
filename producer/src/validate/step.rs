//! One step by itself.

use std::borrow::Cow;
use std::collections::HashSet;

use pgsaga_sql::contract::{
    AFTER_MAX, Number, REQUEST_TIMEOUT, RETRY_INTERVAL, RETRY_LIMIT, STEP_NAME, Seconds, Target,
    default_step_name,
};
use serde_json::value::RawValue;

use super::entries::headers;
use super::invalid::Invalid;
use super::json::{self, Entries, Kind, found, quoted};

const KEYS: [&str; 12] = [
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

const UNUSED_NAME: &str =
    "a name that no earlier step has (without one, a step is named by its position: 01, 02, …)";
const AFTER: &str = "an array of up to 1,000 names of other steps";
pub(super) const NAMES: &str = "names of other steps of the saga, each once";

/// A step that is allowed by itself.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) name: String,
    pub(super) compensates: bool,
    pub(super) payload: Option<&'a RawValue>,
    pub(super) compensate_payload: Option<&'a RawValue>,
    pub(super) after: Option<Vec<String>>,
    pub(super) pivot: bool,
}

impl<'a> Step<'a> {
    /// Checks the step at `position`, counted from 1, and adds its name to those of earlier steps.
    pub(super) fn read(
        position: usize,
        value: &'a RawValue,
        names: &mut HashSet<String>,
    ) -> Result<Self, Invalid> {
        let place = format!("steps[{position}]");
        let Some(entries) = json::object(value) else {
            return Err(Invalid::new(place, found(Some(value)), "an object"));
        };
        let place_of_name = format!("{place}: name");
        let name = match json::get(&entries, "name") {
            None => default_step_name(position),
            Some(value) => json::string(value)
                .filter(|name| STEP_NAME.allows(name))
                .map(Cow::into_owned)
                .ok_or_else(|| Invalid::new(&place_of_name, found(Some(value)), STEP_NAME))?,
        };
        if !names.insert(name.clone()) {
            return Err(Invalid::new(place_of_name, format!("\"{name}\" again"), UNUSED_NAME));
        }
        let place = format!("step \"{name}\"");
        if let Some(key) = entries.keys().find(|key| !KEYS.contains(&key.0.as_str())) {
            let allowed = format!("the keys {}", KEYS.join(", "));
            return Err(Invalid::new(place, format!("key {}", quoted(&key.0)), allowed));
        }
        let keys = Keys { place, entries };
        keys.url("action")?;
        let compensates = keys.get("compensate").is_some();
        if compensates {
            keys.url("compensate")?;
        }
        let payload = keys.payload("payload")?;
        let compensate_payload = keys.payload("compensate_payload")?;
        if let Some(value) = keys.get("headers") {
            headers(&keys.place("headers"), value)?;
        }
        keys.retry_limit("retry_limit")?;
        keys.retry_limit("compensate_retry_limit")?;
        keys.seconds("retry_interval_seconds", RETRY_INTERVAL)?;
        keys.seconds("request_timeout_seconds", REQUEST_TIMEOUT)?;
        let after = keys.after(&name)?;
        let pivot = keys.pivot()?;
        Ok(Self { name, compensates, payload, compensate_payload, after, pivot })
    }
}

/// The entries of a step whose name is known.
struct Keys<'a> {
    place: String,
    entries: Entries<'a>,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        json::get(&self.entries, key)
    }

    fn place(&self, key: &str) -> String {
        format!("{}: {key}", self.place)
    }

    fn refuse<T>(&self, key: &str, allowed: impl ToString) -> Result<T, Invalid> {
        Err(Invalid::new(self.place(key), found(self.get(key)), allowed))
    }

    fn url(&self, key: &str) -> Result<(), Invalid> {
        let url = self.get(key).and_then(json::string);
        Target::check(url.as_deref()).or_else(|allowed| self.refuse(key, allowed))
    }

    fn payload(&self, key: &str) -> Result<Option<&'a RawValue>, Invalid> {
        let value = self.get(key);
        value.map_or(Ok(()), |value| json::payload(&self.place(key), value))?;
        Ok(value)
    }

    fn retry_limit(&self, key: &str) -> Result<(), Invalid> {
        let fits = |number: Number| number.whole().is_some_and(|whole| RETRY_LIMIT.contains(whole));
        self.number(key, fits, RETRY_LIMIT)
    }

    fn seconds(&self, key: &str, limit: Seconds) -> Result<(), Invalid> {
        self.number(key, |number| number.is_seconds_up_to(limit.max), limit)
    }

    fn number(
        &self,
        key: &str,
        fits: impl FnOnce(Number) -> bool,
        allowed: impl ToString,
    ) -> Result<(), Invalid> {
        let Some(value) = self.get(key) else { return Ok(()) };
        match json::kind(value) {
            Kind::Number if Number::parse(value.get()).is_some_and(fits) => Ok(()),
            _ => self.refuse(key, allowed),
        }
    }

    fn after(&self, own: &str) -> Result<Option<Vec<String>>, Invalid> {
        let Some(value) = self.get("after") else { return Ok(None) };
        let Some(values) = json::array(value) else { return self.refuse("after", AFTER) };
        if values.len() > AFTER_MAX {
            return Err(Invalid::new(self.place("after"), format!("{} names", values.len()), AFTER));
        }
        let mut seen = HashSet::new();
        let name = |value| {
            let refuse =
                |suffix: &str| Err(Invalid::new(self.place("after"), found(Some(value)) + suffix, NAMES));
            match json::string(value) {
                None => refuse(""),
                Some(name) if name == own => refuse(" itself"),
                Some(name) if !seen.insert(name.clone()) => refuse(" again"),
                Some(name) => Ok(name.into_owned()),
            }
        };
        values.into_iter().map(name).collect::<Result<_, _>>().map(Some)
    }

    fn pivot(&self) -> Result<bool, Invalid> {
        match self.get("pivot").map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => self.refuse("pivot", "true or false"),
        }
    }
}
