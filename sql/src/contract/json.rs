//! The size of JSON as jsonb prints it: duplicate keys are merged, and the last one wins; numbers
//! keep their digits, because none goes through a float.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::number::Number;

/// What jsonb would make of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonSize {
    /// Length of the JSON as Postgres prints it.
    pub bytes: usize,
    /// Levels of arrays and objects; 0 for a scalar. Postgres' own parser gives up at some
    /// thousands.
    pub depth: usize,
}

impl JsonSize {
    /// Measures a text of any size and depth. `None` when jsonb cannot hold the text: bad syntax,
    /// `\u0000`, half a surrogate pair, a number beyond numeric.
    pub fn of_text(text: &str) -> Option<Self> {
        Self::of(serde_json::from_str(text).ok()?).ok()
    }

    /// Measures JSON without recursion, so that no depth can exhaust the stack.
    ///
    /// # Errors
    /// Names what was found that jsonb cannot hold.
    pub fn of(json: &RawValue) -> Result<Self, &'static str> {
        let text = json.get();
        let mut open: Vec<Open> = Vec::new();
        let (mut depth, mut at) = (0, 0);
        while let Some(&first) = text.as_bytes().get(at) {
            let token = &text[at..at + token_bytes(&text.as_bytes()[at..])];
            at += token.len();
            let printed = match first {
                b'[' | b'{' => {
                    open.push(Open::new(first));
                    depth = depth.max(open.len());
                    continue;
                }
                b']' | b'}' => open.pop().map_or(0, |open| open.printed_bytes()),
                b'"' => {
                    let string = read_string(token)?;
                    if let Some(Open::Object { key: key @ None, .. }) = open.last_mut() {
                        *key = Some(string);
                        continue;
                    }
                    printed_bytes(&string)
                }
                b'-' | b'0'..=b'9' => {
                    Number::parse(token).ok_or("a number beyond the range of numeric")?.printed_bytes()
                }
                b't' | b'f' | b'n' => token.len(),
                _ => continue,
            };
            match open.last_mut() {
                None => return Ok(Self { bytes: printed, depth }),
                Some(open) => open.add(printed),
            }
        }
        Err("nothing")
    }

    /// Whether the JSON is no longer and no deeper than this.
    pub fn is_within(self, bytes_max: usize, depth_max: usize) -> bool {
        self.bytes <= bytes_max && self.depth <= depth_max
    }
}

/// An array or object whose end has not been read, with the printed sizes of what it holds so far.
enum Open {
    Array { bytes: usize, count: usize },
    Object { entries: HashMap<String, usize>, key: Option<String> },
}

impl Open {
    fn new(bracket: u8) -> Self {
        match bracket {
            b'[' => Self::Array { bytes: 0, count: 0 },
            _ => Self::Object { entries: HashMap::new(), key: None },
        }
    }

    fn add(&mut self, printed: usize) {
        match self {
            Self::Array { bytes, count } => {
                *bytes += printed;
                *count += 1;
            }
            Self::Object { entries, key } => {
                entries.insert(key.take().unwrap_or_default(), printed);
            }
        }
    }

    /// With brackets, `", "` between two elements and `": "` after a key.
    fn printed_bytes(self) -> usize {
        let (content, count) = match self {
            Self::Array { bytes, count } => (bytes, count),
            Self::Object { entries, .. } => {
                (entries.iter().map(|(key, value)| printed_bytes(key) + 2 + value).sum(), entries.len())
            }
        };
        2 + content + 2 * count.saturating_sub(1)
    }
}

/// The length of the token that valid JSON starts with; 1 for a bracket, a separator or white
/// space.
fn token_bytes(json: &[u8]) -> usize {
    match json.first() {
        Some(b'"') => {
            let mut at = 1;
            while let Some(&byte) = json.get(at).filter(|&&byte| byte != b'"') {
                at += if byte == b'\\' { 2 } else { 1 };
            }
            at + 1
        }
        Some(b'-' | b'0'..=b'9') => {
            json.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')).count()
        }
        Some(b't' | b'n') => 4,
        Some(b'f') => 5,
        _ => 1,
    }
}

fn read_string(token: &str) -> Result<String, &'static str> {
    let string: String = serde_json::from_str(token).map_err(|_| "a string with half a surrogate pair")?;
    if string.contains('\0') { Err("a string with \\u0000") } else { Ok(string) }
}

/// The bytes of a string with its quotes, as Postgres prints it.
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
            assert_eq!(JsonSize::of_text(text).unwrap().bytes, expected.len(), "{text}");
        }
        let depth = |text: &str| JsonSize::of_text(text).unwrap().depth;
        assert_eq!(depth(r#"[{"a":[]},"[[[["]"#), 3);
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(&format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000))), 1_000_000);
        assert_eq!(JsonSize::of_text(" [1,2 ]"), Some(JsonSize { bytes: 6, depth: 1 }));
    }

    #[test]
    fn what_jsonb_cannot_hold_has_no_size() {
        let escapes =
            [r#""\u0000""#, r#"{"\u0000":1}"#, r#""\ud800""#, r#""\udc00x""#, r#"["\ud800\u0041"]"#];
        let numbers = ["1e200000", "[1e-20000]"];
        for bad in escapes.into_iter().chain(numbers) {
            let json = serde_json::from_str(bad).unwrap();
            assert!(JsonSize::of(json).unwrap_err().starts_with("a "), "{bad}");
            assert_eq!(JsonSize::of_text(bad), None, "{bad}");
        }
        for bad in ["", "[", "[1,]", "01", "nul", "\"\n\"", "[] []", "'a'"] {
            assert_eq!(JsonSize::of_text(bad), None, "{bad}");
        }
        assert!(JsonSize::of_text(r#""\ud83d\ude00""#).is_some());
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
        #[test]
        fn two_of_a_text_in_an_array_have_twice_its_size(text in texts()) {
            if let Some(size) = JsonSize::of_text(&text) {
                prop_assert!(size.depth <= text.len());
                let nested = JsonSize::of_text(&format!("[{text}, {text}]")).unwrap();
                prop_assert_eq!(nested, JsonSize { bytes: 2 * size.bytes + 4, depth: size.depth + 1 });
            }
        }
    }
}
