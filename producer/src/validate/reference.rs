//! References to answers in payloads: `{"$from": "stock", "path": "/reservation/id"}`. Inside
//! `{"$literal": …}` nothing is a reference.

use serde_json::value::RawValue;

use super::invalid::Invalid;
use super::json::{self, Kind, found, quoted};
use super::order::Order;
use super::step::Step;

const FROM: &str = "$from";
const PATH: &str = "path";
const LITERAL: &str = "$literal";

const EARLIER: &str = "the name of a step that always comes before this one";
const EARLIER_OR_OWN: &str = "the name of this step or of one that always comes before it";
const ANY: &str = "the name of a step";
const POINTER: &str = "\"\" or a JSON pointer like /a/0, with ~0 for ~ and ~1 for /";

/// Checks all references of a saga. An action may use answers of steps that always come before it,
/// a compensation also the answer of its own action, and the result the answer of any step.
pub(super) fn check(
    order: &Order<'_>,
    steps: &[Step<'_>],
    result_mapping: Option<&RawValue>,
) -> Result<(), Invalid> {
    for (index, step) in steps.iter().enumerate() {
        let place = |key: &str| format!("step \"{}\": {key}", step.name);
        if let Some(value) = step.payload.filter(may_refer) {
            let may_name = |named: usize| order.is_before(named, index);
            walk(value, &Rule { order, place: &place("payload"), may_name: &may_name, allowed: EARLIER })?;
        }
        if let Some(value) = step.compensate_payload.filter(may_refer) {
            let may_name = |named: usize| named == index || order.is_before(named, index);
            let place = place("compensate_payload");
            walk(value, &Rule { order, place: &place, may_name: &may_name, allowed: EARLIER_OR_OWN })?;
        }
    }
    match result_mapping.filter(may_refer) {
        None => Ok(()),
        Some(value) => {
            walk(value, &Rule { order, place: "result_mapping", may_name: &|_| true, allowed: ANY })
        }
    }
}

/// Whether a walk is needed. A key may be written with escapes.
fn may_refer(value: &&RawValue) -> bool {
    value.get().contains("\"$") || value.get().contains("\\u")
}

struct Rule<'a> {
    order: &'a Order<'a>,
    place: &'a str,
    may_name: &'a dyn Fn(usize) -> bool,
    allowed: &'static str,
}

/// Checks a value before the values in it, in jsonb's order. Recursion is safe, because payloads
/// are at most 64 levels deep.
fn walk(value: &RawValue, rule: &Rule<'_>) -> Result<(), Invalid> {
    match json::kind(value) {
        Kind::Array => json::array(value).iter().flatten().try_for_each(|element| walk(element, rule)),
        Kind::Object => {
            let entries = json::object(value).unwrap_or_default();
            let get = |key: &str| json::get(&entries, key);
            let other = |known: [&str; 2]| {
                entries.keys().find(|key| !known.contains(&key.0.as_str())).map(|key| &key.0)
            };
            if let Some(step) = get(FROM) {
                reference(step, get(PATH), other([FROM, PATH]), rule)
            } else if get(LITERAL).is_some() {
                other([LITERAL, LITERAL]).map_or(Ok(()), |key| {
                    let found = format!("key {}", quoted(key));
                    Err(Invalid::new(format!("{}: \"{LITERAL}\"", rule.place), found, "no other key"))
                })
            } else {
                entries.values().try_for_each(|value| walk(value, rule))
            }
        }
        Kind::Null | Kind::Bool | Kind::Number | Kind::String => Ok(()),
    }
}

fn reference(
    step: &RawValue,
    path: Option<&RawValue>,
    other: Option<&String>,
    rule: &Rule<'_>,
) -> Result<(), Invalid> {
    let place = format!("{}: \"{FROM}\"", rule.place);
    if let Some(key) = other {
        return Err(Invalid::new(place, format!("key {}", quoted(key)), "the keys $from and path"));
    }
    let named = json::string(step).and_then(|name| rule.order.position(&name));
    if !named.is_some_and(|named| (rule.may_name)(named)) {
        return Err(Invalid::new(place, found(Some(step)), rule.allowed));
    }
    match path {
        Some(path) if !json::string(path).is_some_and(|text| is_pointer(&text)) => {
            Err(Invalid::new(format!("{}: path", rule.place), found(Some(path)), POINTER))
        }
        _ => Ok(()),
    }
}

/// Whether the text is a JSON pointer (RFC 6901).
fn is_pointer(text: &str) -> bool {
    (text.is_empty() || text.starts_with('/'))
        && text.split('~').skip(1).all(|rest| rest.starts_with('0') || rest.starts_with('1'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        for good in ["", "/", "//", "/a/0", "/~0~1", "/é \n", "/a~1b"] {
            assert!(is_pointer(good), "{good}");
        }
        for bad in ["a", "#/a", " /a", "~0", "/~", "/a~2", "/~~0"] {
            assert!(!is_pointer(bad), "{bad}");
        }
    }
}
