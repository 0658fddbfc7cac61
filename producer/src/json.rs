//! JSON as jsonb sees it: duplicate keys merged, the last one winning; keys in its order; numbers by value and with
//! their digits; sizes as it prints them. Numbers never go through a float.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::invalid::Invalid;

/// Texts in an error are cut to so many characters.
const FOUND_CHARS_MAX: usize = 64;
const JSONB: &str = "JSON that jsonb can hold";

/// The most digits that numeric holds before its point, and after it.
const NUMERIC_DIGITS_MAX: i64 = 131_072;
const NUMERIC_SCALE_MAX: i64 = 16_383;

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

/// How jsonb would print a value, and how deep its arrays and objects are nested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
}

enum Open {
    Array { bytes: usize, count: usize },
    Object { entries: HashMap<String, usize>, key: Option<String> },
}

/// Measures syntactically valid JSON without recursion: input of any depth is safe. An error is what was found that
/// jsonb cannot hold.
pub(crate) fn measure(text: &str) -> Result<Measure, &'static str> {
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
            None => return Ok(Measure { bytes: printed, depth }),
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

/// A number as numeric holds it: exact, with its scale (the digits printed after the point).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    /// Without leading zeros; empty for zero.
    digits: Vec<u8>,
    /// How many of the digits stand before the point; may be negative or beyond the last.
    point: i64,
    scale: i64,
}

impl Number {
    /// Reads a JSON number; `None` when numeric cannot hold it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        if exponent.unsigned_abs() >= u64::from(i32::MAX.unsigned_abs() / 2) {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = [whole.as_bytes(), fraction.as_bytes()].concat();
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        digits.drain(..zeros);
        let scale = (fraction.len() as i64 - exponent).max(0);
        let point = if digits.is_empty() { 0 } else { whole.len() as i64 + exponent - zeros as i64 };
        if scale > NUMERIC_SCALE_MAX || point > NUMERIC_DIGITS_MAX {
            return None;
        }
        Some(Self { negative: negative && !digits.is_empty(), digits, point, scale })
    }

    fn printed_bytes(&self) -> usize {
        usize::from(self.negative)
            + usize::try_from(self.point).unwrap_or(0).max(1)
            + usize::try_from(self.scale).map_or(0, |scale| if scale > 0 { scale + 1 } else { 0 })
    }

    /// As Postgres prints it.
    fn print(&self) -> String {
        let mut text = String::with_capacity(self.printed_bytes());
        if self.negative {
            text.push('-');
        }
        (0..self.point).for_each(|place| text.push(self.digit(place)));
        if self.point <= 0 {
            text.push('0');
        }
        if self.scale > 0 {
            text.push('.');
            (0..self.scale).for_each(|place| text.push(self.digit(self.point + place)));
        }
        text
    }

    fn digit(&self, index: i64) -> char {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.digits.get(index))
            .map_or('0', |&digit| digit as char)
    }

    /// The number times `10^shift`, when it is not negative and whole.
    fn scaled(&self, shift: i64) -> Option<(u64, bool)> {
        let places = self.point + shift;
        if self.negative || places > 18 {
            return None;
        }
        let whole =
            (0..places.max(0)).fold(0_u64, |sum, place| sum * 10 + u64::from(self.digit(place) as u8 - b'0'));
        let rest = self.digits.iter().skip(usize::try_from(places).unwrap_or(0)).any(|&digit| digit != b'0');
        Some((whole, rest))
    }

    /// Whether it is whole and from 0 to `max`, by value: 3.0 and 3e0 are whole.
    pub(crate) fn is_whole_up_to(&self, max: u64) -> bool {
        matches!(self.scaled(0), Some((whole, false)) if whole <= max)
    }

    /// Whether it is from 0.001 to `max`.
    pub(crate) fn is_seconds_up_to(&self, max: u64) -> bool {
        matches!(self.scaled(3), Some((millis, rest)) if millis >= 1 && (millis < max * 1000 || millis == max * 1000 && !rest))
    }

    /// As an integer, when it is one of up to 18 digits.
    pub(crate) fn whole(&self) -> Option<i64> {
        let positive = Self { negative: false, ..self.clone() };
        match positive.scaled(0)? {
            (whole, false) => {
                i64::try_from(whole).ok().map(|whole| if self.negative { -whole } else { whole })
            }
            _ => None,
        }
    }

    /// In millionths, rounded; `None` when that is out of bounds.
    pub(crate) fn micros(&self) -> Option<i128> {
        let positive = Self { negative: false, ..self.clone() };
        let (tenths, _) = positive.scaled(7)?;
        let micros = i128::from(tenths + 5) / 10;
        Some(if self.negative { -micros } else { micros })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let number = Number::parse(text).unwrap();
        assert_eq!(number.print().len(), number.printed_bytes(), "{text}");
        number.print()
    }

    #[test]
    fn numbers_print_as_numeric_prints_them() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("1.10", "1.10"),
            ("1e3", "1000"),
            ("1.50e1", "15.0"),
            ("1E-3", "0.001"),
            ("0e5", "0"),
            ("0.0e-3", "0.0000"),
            ("-12.5e+2", "-1250"),
            ("123e-2", "1.23"),
            ("0.00120", "0.00120"),
            ("12345678901234567890.123", "12345678901234567890.123"),
            ("100e-1", "10.0"),
            ("0.5e1", "5"),
            ("5e-1", "0.5"),
        ] {
            assert_eq!(printed(text), expected, "{text}");
        }
        assert_eq!(Number::parse("1e131071").unwrap().printed_bytes(), 131_072);
        for bad in ["1e131072", "1e-16384", "0e-16384", "1e99999999999999999999", "0e2147483647"] {
            assert!(Number::parse(bad).is_none(), "{bad}");
        }
        assert!(Number::parse("0e131072").is_some());
    }

    #[test]
    fn numbers_compare_by_value() {
        let number = |text| Number::parse(text).unwrap();
        for good in ["0", "-0", "3.0", "3e0", "1e6", "1000000.000", "100e-1"] {
            assert!(number(good).is_whole_up_to(1_000_000), "{good}");
        }
        for bad in ["-1", "0.5", "1000001", "1e7", "1e100", "1000000.001", "1e-300"] {
            assert!(!number(bad).is_whole_up_to(1_000_000), "{bad}");
        }
        for good in ["0.001", "1e-3", "86400", "86400.000", "0.5"] {
            assert!(number(good).is_seconds_up_to(86_400), "{good}");
        }
        for bad in ["0", "-1", "0.0009999", "86400.0000000001", "1e9", "1e-300"] {
            assert!(!number(bad).is_seconds_up_to(86_400), "{bad}");
        }
        assert_eq!(number("-0.0000005").micros(), Some(-1));
        assert_eq!(number("1.5").micros(), Some(1_500_000));
    }

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
        }
        assert!(parse("steps", r#""\ud83d\ude00""#).is_ok());
    }

    #[test]
    fn keys_come_in_the_order_of_jsonb() {
        let raw: &RawValue = serde_json::from_str(r#"{"bb":1,"c":2,"aa":3,"B":4}"#).unwrap();
        let keys: Vec<_> = object(raw).unwrap().into_keys().map(|key| key.0).collect();
        assert_eq!(keys, ["B", "c", "aa", "bb"]);
    }
}
