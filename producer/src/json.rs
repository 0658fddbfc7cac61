//! JSON as jsonb sees it: duplicate keys merged, the last one winning; keys in its order; numbers by value and with
//! their digits; sizes as it prints them. Numbers never go through a float.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::invalid::Invalid;
use crate::number::Number;

/// Texts in an error are cut to so many characters.
const FOUND_CHARS_MAX: usize = 64;
const JSONB: &str = "JSON that jsonb can hold";

/// Reads a text that Postgres would take as jsonb. What jsonb's own input refuses is refused here: bad syntax,
/// `\u0000`, half a surrogate pair, numbers beyond numeric.
pub(crate) fn parse<'a>(place: &str, text: &'a str) -> Result<&'a RawValue, Invalid> {
    let raw: &RawValue = serde_json::from_str(text)
        .map_err(|error| Invalid::new(place, format!("text that is not JSON ({error})"), JSONB))?;
    measure(raw.get()).map_err(|found| Invalid::new(place, found, JSONB))?;
    Ok(raw)
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

/// A key of an object, in jsonb's order: shorter ones first, then by bytes.
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

/// An object's entries; `None` when it is something else.
pub(crate) fn object(value: &RawValue) -> Option<BTreeMap<Key, &RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// An array's elements; `None` when it is something else.
pub(crate) fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// A string's text; `None` when it is something else.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// What was found, as the errors say it.
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

/// A text as JSON, cut to 64 characters.
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

/// What jsonb would make of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonSize {
    /// Its length as Postgres prints it.
    pub bytes: usize,
    /// How deep its arrays and objects are nested; 0 for a scalar. Postgres's own parser gives up at some thousands.
    pub depth: usize,
}

/// Measures a text; `None` when jsonb cannot hold it: bad syntax, `\u0000`, half a surrogate pair, numbers beyond numeric.
/// Safe for text of any size and depth from anybody.
pub fn measure_json(text: &str) -> Option<JsonSize> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    measure(raw.get()).ok()
}

enum Open {
    Array { bytes: usize, count: usize },
    Object { entries: HashMap<String, usize>, key: Option<String> },
}

/// Measures syntactically valid JSON without recursion: input of any depth is safe. An error is what was found that
/// jsonb cannot hold.
pub(crate) fn measure(text: &str) -> Result<JsonSize, &'static str> {
    let bytes = text.as_bytes();
    let mut open: Vec<Open> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let printed = match byte {
            b'[' | b'{' => {
                open.push(if byte == b'[' {
                    Open::Array { bytes: 0, count: 0 }
                } else {
                    Open::Object { entries: HashMap::new(), key: None }
                });
                depth = depth.max(open.len());
                continue;
            }
            b']' | b'}' => match open.pop() {
                Some(Open::Array { bytes, count }) => 2 + bytes + 2 * count.saturating_sub(1),
                Some(Open::Object { entries, .. }) => {
                    let content: usize =
                        entries.iter().map(|(key, value)| printed_bytes(key) + 2 + value).sum();
                    2 + content + 2 * entries.len().saturating_sub(1)
                }
                None => 0,
            },
            b'"' => {
                while bytes.get(at).is_some_and(|&b| b != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                let decoded: String = serde_json::from_str(&text[start..at])
                    .map_err(|_| "a string with half a surrogate pair")?;
                if decoded.contains('\0') {
                    return Err("a string with \\u0000");
                }
                if let Some(Open::Object { key: key @ None, .. }) = open.last_mut() {
                    *key = Some(decoded);
                    continue;
                }
                printed_bytes(&decoded)
            }
            b'-' | b'0'..=b'9' => {
                while bytes
                    .get(at)
                    .is_some_and(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
                {
                    at += 1;
                }
                Number::parse(&text[start..at]).ok_or("a number beyond the range of numeric")?.printed_bytes()
            }
            b't' | b'n' => {
                at += 3;
                4
            }
            b'f' => {
                at += 4;
                5
            }
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(JsonSize { bytes: printed, depth }),
            Some(Open::Array { bytes, count }) => {
                *bytes += printed;
                *count += 1;
            }
            Some(Open::Object { entries, key }) => {
                entries.insert(key.take().unwrap_or_default(), printed);
            }
        }
    }
    Err("nothing")
}

/// The bytes of a string between and with its quotes, as Postgres prints it.
fn printed_bytes(text: &str) -> usize {
    let escapes: usize = text
        .bytes()
        .map(|b| match b {
            b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 1,
            0x00..=0x1f => 5,
            _ => 0,
        })
        .sum();
    2 + text.len() + escapes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property::tried;

    #[test]
    fn sizes_are_those_that_jsonb_prints() {
        for (text, expected) in [
            ("[]", "[]"),
            ("{}", "{}"),
            ("[1,2 , 3]", "[1, 2, 3]"),
            (r#"{"b":1,"a":2,"b":33}"#, r#"{"a": 2, "b": 33}"#),
            (r#"{"\u0061":1,"a":[{}]}"#, r#"{"a": [{}]}"#),
            (r#""\u00e4\/\u001f\n\"""#, "\"ä/\\u001f\\n\\\"\""),
            (" true ", "true"),
            (r#"[false,null,-1e2]"#, "[false, null, -100]"),
            (r#"{"a":{"b":"]}"}}"#, r#"{"a": {"b": "]}"}}"#),
        ] {
            assert_eq!(measure(text).unwrap().bytes, expected.len(), "{text}");
        }
        assert_eq!(measure(r#"[{"a":[]},"[[[["]"#).unwrap().depth, 3);
        assert_eq!(measure("1").unwrap().depth, 0);
        assert_eq!(
            measure(&format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000))).unwrap().depth,
            1_000_000
        );
    }

    #[test]
    fn what_jsonb_cannot_hold_is_refused() {
        for bad in [
            r#""\u0000""#,
            r#"{"\u0000":1}"#,
            r#""\ud800""#,
            r#""\udc00x""#,
            r#"["\ud800\u0041"]"#,
            "1e200000",
            "[1e-20000]",
        ] {
            let words = parse("steps", bad).unwrap_err().to_string();
            assert!(
                words.starts_with("steps: found a ") && words.ends_with("allowed: JSON that jsonb can hold"),
                "{words}"
            );
        }
        for bad in ["", "[", "[1,]", "01", "nul", "\"\n\"", "[] []", "'a'"] {
            assert!(parse("steps", bad).unwrap_err().to_string().contains("not JSON"), "{bad}");
            assert_eq!(measure_json(bad), None, "{bad}");
        }
        assert_eq!(measure_json(r#"["\u0000"]"#), None);
        assert_eq!(measure_json(" [1,2 ]"), Some(JsonSize { bytes: 6, depth: 1 }));
        assert!(parse("steps", r#""\ud83d\ude00""#).is_ok());
    }

    #[test]
    fn keys_come_in_the_order_of_jsonb() {
        let raw: &RawValue = serde_json::from_str(r#"{"bb":1,"c":2,"aa":3,"B":4}"#).unwrap();
        let keys: Vec<_> = object(raw).unwrap().into_keys().map(|key| key.0).collect();
        assert_eq!(keys, ["B", "c", "aa", "bb"]);
    }

    /// Texts that are nearly JSON.
    fn texts() -> impl Strategy<Value = String> {
        let fragment = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\"a\"",
            "\\",
            "\\\"",
            "\\u0000",
            "\\ud83d\\ude00",
            "\\ud800",
            "\\u00e9",
            "é",
            "😀",
            "1",
            "-0",
            "1.50",
            "1e131071",
            "1e131072",
            "1e-16383",
            "1e-16384",
            "1e99999999999999999999",
            "0e0",
            "null",
            "true",
            " ",
            "\n",
            "\u{feff}",
            "\u{1f}",
            "\u{7f}",
            "{\"a\":1,\"a\":[]}",
        ]);
        prop_oneof![prop::collection::vec(fragment, 0..30).prop_map(|some| some.concat()), any::<String>()]
    }

    proptest! {
        #![proptest_config(tried())]

        #[test]
        fn any_text_is_measured_or_refused(text in texts()) {
            let size = measure_json(&text);
            prop_assert_eq!(size.is_some(), parse("steps", &text).is_ok());
            if let Some(size) = size {
                prop_assert!(size.depth <= text.len());
                let nested = measure_json(&format!("[{text}, {text}]")).unwrap();
                prop_assert_eq!(nested, JsonSize { bytes: 2 * size.bytes + 4, depth: size.depth + 1 });
            }
        }

        #[test]
        fn what_is_found_is_told_in_few_characters(text in any::<String>()) {
            prop_assert!(cut(&text).chars().count() <= FOUND_CHARS_MAX + 1);
            let read: String = serde_json::from_str(&quoted(&text)).unwrap();
            prop_assert_eq!(read, cut(&text));
        }
    }
}
