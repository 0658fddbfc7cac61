//! JSON as jsonb sees it: of duplicate keys the last one wins, keys are in jsonb's order, and
//! numbers keep their digits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pgsaga_sql::contract::{JsonSize, Number, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::invalid::Invalid;

/// A text in an error is cut to this length.
const FOUND_CHARS_MAX: usize = 64;
const JSONB: &str = "JSON that jsonb can hold";
const PAYLOAD_BYTES: &str = "up to 1,048,576 bytes as Postgres prints the JSON";
const PAYLOAD_DEPTH: &str = "arrays and objects nested up to 64 deep";

/// Reads a text, and refuses what the input of jsonb refuses: bad syntax, `\u0000`, half a
/// surrogate pair, a number beyond numeric.
pub(crate) fn parse<'a>(place: &str, text: &'a str) -> Result<&'a RawValue, Invalid> {
    let raw: &RawValue = serde_json::from_str(text)
        .map_err(|error| Invalid::new(place, format!("text that is not JSON ({error})"), JSONB))?;
    size(place, raw)?;
    Ok(raw)
}

fn size(place: &str, value: &RawValue) -> Result<JsonSize, Invalid> {
    JsonSize::of(value).map_err(|found| Invalid::new(place, found, JSONB))
}

/// Checks a payload, or the mapping of a result.
pub(super) fn payload(place: &str, value: &RawValue) -> Result<(), Invalid> {
    let size = size(place, value)?;
    if size.bytes > PAYLOAD_BYTES_MAX {
        return Err(Invalid::new(place, format!("{} bytes", size.bytes), PAYLOAD_BYTES));
    }
    if size.depth > PAYLOAD_DEPTH_MAX {
        return Err(Invalid::new(place, format!("more than {PAYLOAD_DEPTH_MAX} levels"), PAYLOAD_DEPTH));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

pub(crate) fn kind(value: &RawValue) -> Kind {
    match value.get().as_bytes().first() {
        Some(b'n') => Kind::Null,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'"') => Kind::String,
        Some(b'[') => Kind::Array,
        Some(b'{') => Kind::Object,
        _ => Kind::Number,
    }
}

/// A key of an object. jsonb orders keys by length, then by bytes.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Key(pub(crate) String);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The entries of an object.
pub(crate) type Entries<'a> = BTreeMap<Key, &'a RawValue>;

/// The entries of an object; `None` for any other value.
pub(crate) fn object(value: &RawValue) -> Option<Entries<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// The value of a key.
pub(super) fn get<'a>(entries: &Entries<'a>, key: &str) -> Option<&'a RawValue> {
    entries.get(&Key(key.to_owned())).copied()
}

/// The elements of an array; `None` for any other value.
pub(crate) fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// The text of a string; `None` for any other value.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// Describes a value for an error: a scalar as JSON, an array or object by its kind.
pub(crate) fn found(value: Option<&RawValue>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    match kind(value) {
        Kind::Object => "an object".to_owned(),
        Kind::Array => "an array".to_owned(),
        Kind::String => quoted(&string(value).unwrap_or_default()),
        Kind::Number => {
            cut(&Number::parse(value.get()).map_or_else(|| value.get().to_owned(), |number| number.print()))
        }
        Kind::Null | Kind::Bool => value.get().to_owned(),
    }
}

/// Prints a text as JSON, cut to 64 characters.
pub(crate) fn quoted(text: &str) -> String {
    // Serializing a str cannot fail.
    serde_json::to_string(&cut(text)).unwrap_or_default()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_jsonb_cannot_hold_is_refused() {
        let words = |text| parse("steps", text).unwrap_err().to_string();
        assert_eq!(
            words(r#"["\u0000"]"#),
            "steps: found a string with \\u0000; allowed: JSON that jsonb can hold"
        );
        assert!(words("[1,]").starts_with("steps: found text that is not JSON ("));
    }

    #[test]
    fn keys_come_in_the_order_of_jsonb() {
        let raw: &RawValue = serde_json::from_str(r#"{"bb":1,"c":2,"aa":3,"B":4}"#).unwrap();
        let keys: Vec<_> = object(raw).unwrap().into_keys().map(|key| key.0).collect();
        assert_eq!(keys, ["B", "c", "aa", "bb"]);
    }

    proptest! {
        #[test]
        fn what_is_found_is_told_in_few_characters(text in any::<String>()) {
            prop_assert!(cut(&text).chars().count() <= FOUND_CHARS_MAX + 1);
            let read: String = serde_json::from_str(&quoted(&text)).unwrap();
            prop_assert_eq!(read, cut(&text));
        }
    }
}
