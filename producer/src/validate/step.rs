use std::borrow::Cow;
use std::collections::HashSet;

use pgsaga_sql::contract::{
    AFTER_MAX, Number, STEP_KEYS, STEP_NAME, StepKey, StepValue, Target, default_step_name,
};
use serde_json::value::RawValue;

use super::entries::headers;
use super::invalid::Invalid;
use super::json::{self, Entries, Kind, found, quoted};

const UNUSED_NAME: &str =
    "a name that no earlier step has (without one, a step is named by its position: 01, 02, …)";
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
        if let Some(key) = entries.keys().find(|key| STEP_KEYS.iter().all(|known| known.name != key.0)) {
            let allowed = format!("the keys {}", STEP_KEYS.map(|key| key.name).join(", "));
            return Err(Invalid::new(place, format!("key {}", quoted(&key.0)), allowed));
        }
        let keys = Keys { place, entries };
        STEP_KEYS.iter().try_for_each(|key| keys.check(key))?;
        let after = keys.after(&name)?;
        let pivot = keys.pivot()?;
        Ok(Self {
            name,
            compensates: keys.get("compensate").is_some(),
            payload: keys.get("payload"),
            compensate_payload: keys.get("compensate_payload"),
            after,
            pivot,
        })
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

    /// Checks the value of a key by itself. What must fit the other steps is checked after that.
    fn check(&self, key: &StepKey) -> Result<(), Invalid> {
        let StepKey { name, value: allowed } = key;
        let is_action = *name == "action";
        let waits = is_action && self.get("wait_seconds").is_some();
        let Some(value) = self.get(name) else {
            return if is_action && !waits { self.refuse(name, allowed) } else { Ok(()) };
        };
        if waits {
            return self.refuse(name, "none beside wait_seconds");
        }
        let number = || Number::parse(value.get()).filter(|_| json::kind(value) == Kind::Number);
        let fits = match allowed {
            StepValue::Name | StepValue::Names | StepValue::Pivot => true,
            StepValue::Url => return self.url(name, value),
            StepValue::Payload => return json::payload(&self.place(name), value),
            StepValue::Headers => return headers(&self.place(name), value),
            StepValue::Whole(limit) => {
                number().and_then(|number| number.whole()).is_some_and(|whole| limit.contains(whole))
            }
            StepValue::Seconds(limit) => number().is_some_and(|number| number.is_seconds_up_to(limit.max)),
        };
        if fits { Ok(()) } else { self.refuse(name, allowed) }
    }

    fn url(&self, key: &str, value: &RawValue) -> Result<(), Invalid> {
        let url = json::string(value);
        Target::check(url.as_deref()).or_else(|allowed| self.refuse(key, allowed))
    }

    fn after(&self, own: &str) -> Result<Option<Vec<String>>, Invalid> {
        let Some(value) = self.get("after") else { return Ok(None) };
        let Some(values) = json::array(value) else { return self.refuse("after", StepValue::Names) };
        if values.len() > AFTER_MAX {
            return Err(Invalid::new(
                self.place("after"),
                format!("{} names", values.len()),
                StepValue::Names,
            ));
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
            Some(_) => self.refuse("pivot", StepValue::Pivot),
        }
    }
}
