//! What the body of a response says: DTM's result, and the message for people.

use pgsaga_plan::Outcome;
use serde::Deserialize;

use crate::execute::call::{MESSAGE_BYTES_MAX, clean};

/// One struct per key. A `message` that cannot be decoded must not hide a `dtm_result` of
/// `FAILURE`.
#[derive(Deserialize)]
struct DtmResult {
    #[serde(default)]
    dtm_result: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    message: Option<serde_json::Value>,
}

/// Reads `dtm_result` from a JSON object. DTM finds its words anywhere in the body; here only a
/// top-level key counts. If an object names the key but is invalid or incomplete, it may be a
/// refusal. The outcome is then unknown, never a success.
pub(super) fn dtm_result(body: &[u8]) -> Outcome {
    let body = body.trim_ascii_start();
    if !body.starts_with(b"{") || !names_key(body) {
        return Outcome::Success;
    }
    match serde_json::from_slice::<DtmResult>(body) {
        Ok(DtmResult { dtm_result: Some(serde_json::Value::String(word)) }) => match word.as_str() {
            "FAILURE" => Outcome::Failure,
            "ONGOING" => Outcome::Ongoing,
            _ => Outcome::Success,
        },
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Unknown,
    }
}

/// Whether the body contains `dtm_result`, literally or as a string with escapes, which JSON allows
/// in keys.
fn names_key(body: &[u8]) -> bool {
    let holds = |part: &[u8]| memchr::memmem::find(body, part).is_some();
    holds(b"dtm_result") || holds(b"\\u00") && strings(body).any(|text| text == "dtm_result")
}

/// Returns the decoded strings of a JSON text that contain escapes, up to the end of the valid
/// part.
fn strings(mut body: &[u8]) -> impl Iterator<Item = String> {
    std::iter::from_fn(move || {
        loop {
            let begin = memchr::memchr(b'"', body)?;
            let mut end = begin + 1;
            let mut escaped = false;
            while *body.get(end)? != b'"' {
                let is_escape = body[end] == b'\\';
                escaped |= is_escape;
                end += if is_escape { 2 } else { 1 };
            }
            let literal = &body[begin..=end];
            body = &body[end + 1..];
            if escaped && let Ok(text) = serde_json::from_slice(literal) {
                return Some(text);
            }
        }
    })
}

/// Returns the `message` of a JSON response, else the start of the body, else the status.
pub(super) fn message(status_code: u16, body: &[u8]) -> String {
    let told = match serde_json::from_slice::<Message>(body) {
        Ok(Message { message: Some(serde_json::Value::String(message)), .. }) if !message.is_empty() => {
            message
        }
        _ => String::from_utf8_lossy(body.get(..MESSAGE_BYTES_MAX + 4).unwrap_or(body)).into_owned(),
    };
    let told = clean(&told);
    if told.is_empty() { format!("HTTP status {status_code}") } else { told }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::execute::http::{judge, judge_unread};

    #[test]
    fn statuses_are_judged_as_the_contract_says() {
        for (status, outcome) in [
            (200, Outcome::Success),
            (201, Outcome::Success),
            (204, Outcome::Success),
            (202, Outcome::Ongoing),
            (425, Outcome::Ongoing),
            (409, Outcome::Failure),
            (429, Outcome::Unsent),
            (206, Outcome::Unknown),
            (301, Outcome::Unknown),
            (400, Outcome::Unknown),
            (404, Outcome::Unknown),
            (500, Outcome::Unknown),
            (503, Outcome::Unknown),
        ] {
            assert_eq!(judge(status, b"").0, outcome, "status {status}");
        }
    }

    #[test]
    fn only_a_json_objects_own_dtm_result_overrides_a_success() {
        assert_eq!(judge(200, br#"{"dtm_result": "FAILURE"}"#).0, Outcome::Failure);
        assert_eq!(judge(200, br#"{"dtm_result": "ONGOING"}"#).0, Outcome::Ongoing);
        assert_eq!(judge(200, br#"{"dtm_result": "SUCCESS"}"#).0, Outcome::Success);
        assert_eq!(judge(200, br#"{"dtm\u005fresult": "FAILURE"}"#).0, Outcome::Failure);
        assert_eq!(judge(200, br#"{"note": "\u005f", "cut o"#).0, Outcome::Success);
        assert_eq!(judge(200, br#"{"note": "dtm_result FAILURE"}"#).0, Outcome::Success);
        assert_eq!(judge(200, b"dtm_result FAILURE").0, Outcome::Success);
        assert_eq!(judge(500, br#"{"dtm_result": "FAILURE"}"#).0, Outcome::Unknown);
    }

    #[test]
    fn a_refusal_is_not_lost_in_an_answer_that_is_otherwise_unreadable() {
        let deep = [&br#"{"dtm_result":"FAILURE","message":"#[..], &[b'['; 300], &[b']'; 300], b"}"].concat();
        for (body, outcome) in [
            (&br#"{"dtm_result":"FAILURE","message":"no \ud800 money"}"#[..], Outcome::Failure),
            (b"{\"dtm_result\":\"FAILURE\",\"message\":\"caf\xe9\"}", Outcome::Failure),
            (br#"{"dtm_result":"ONGOING","message":1e400}"#, Outcome::Ongoing),
            (br#"{"dtm_result":"FAILURE","message":"cut o"#, Outcome::Unknown),
            (br#"{"dtm\u005fresult":"FAILURE","message":"cut o"#, Outcome::Unknown),
            (br#"{"a":"\"","dtm\u005fresult":"FAIL"#, Outcome::Unknown),
            (br#"{"name":"caf\u00e9","message":"cut o"#, Outcome::Success),
            (br#"{"name":"\u00"#, Outcome::Success),
            (br#"{"dtm_result":"SUCCESS","dtm_result":"FAILURE"}"#, Outcome::Unknown),
        ] {
            assert_eq!(judge(200, body).0, outcome, "{}", String::from_utf8_lossy(body));
        }
        assert_ne!(judge(200, &deep).0, Outcome::Success);
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_no_success_and_changes_no_other_status() {
        for status in 100..=999 {
            let (outcome, message) = judge_unread(status, "why\0not");
            match judge(status, b"").0 {
                Outcome::Success => assert_eq!((outcome, &*message), (Outcome::Unknown, "why not")),
                told => {
                    assert_eq!((outcome, message), (told, format!("HTTP status {status}; why not")));
                }
            }
        }
    }

    #[test]
    fn the_reason_is_the_participants_message_or_the_start_of_its_answer() {
        assert_eq!(judge(409, br#"{"message": "no money", "x": 1e200000}"#).1.unwrap(), "no money");
        assert_eq!(judge(409, b"plain words").1.unwrap(), "plain words");
        for nothing in [&b""[..], b" \n", b"\0\0\x1b", br#"{"message": "\u0000"}"#] {
            assert_eq!(judge(409, nothing).1.unwrap(), "HTTP status 409", "{nothing:?}");
        }
        assert_eq!(judge(409, br#"{"message": 7}"#).1.unwrap(), r#"{"message": 7}"#);
    }

    #[test]
    fn no_byte_of_an_answer_survives_that_could_break_a_settle() {
        for body in [
            &br#"{"message": "a\u0000b"}"#[..],
            &br#"{"message": "\ud800"}"#[..],
            b"\xff\xfe\x00",
            &[b'['; 30_000],
            "é".repeat(4000).as_bytes(),
        ] {
            let message = judge(409, body).1.unwrap();
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            assert!(!message.contains('\0'));
        }
    }

    #[test]
    fn every_status_means_what_the_contract_says_whatever_its_body() {
        for body in [&b""[..], b"no", br#"{"message": "no"}"#, b"\xff\x00"] {
            for status in 100..=999 {
                let expected = match status {
                    200 | 201 | 204 => Outcome::Success,
                    409 => Outcome::Failure,
                    202 | 425 => Outcome::Ongoing,
                    429 => Outcome::Unsent,
                    _ => Outcome::Unknown,
                };
                let (outcome, message) = judge(status, body);
                assert_eq!(outcome, expected, "status {status}");
                assert_eq!(message.is_none(), outcome == Outcome::Success, "status {status}");
            }
        }
    }

    /// Generates bytes that resemble a response.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop::sample::select(vec![
            &b"{"[..],
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"\"",
            b"\"message\"",
            b"\"dtm_result\"",
            b"\"FAILURE\"",
            b"\"ONGOING\"",
            b"\"SUCCESS\"",
            b"\\u0000",
            b"\\ud800",
            b"\\u202e",
            b"\xef\xbb\xbf",
            b"\xed\xa0\x80",
            b"\x1b[2J",
            b"\r\n",
            b"\xc2\x9b",
            b"1e400",
            b"null",
            b" ",
            "é😀".as_bytes(),
        ]);
        let pieced = prop::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat());
        let said =
            (prop::collection::vec(any::<char>(), 0..2000), any::<bool>()).prop_map(|(text, as_json)| {
                let text: String = text.into_iter().collect();
                if as_json {
                    serde_json::json!({ "message": text }).to_string().into_bytes()
                } else {
                    text.into_bytes()
                }
            });
        prop_oneof![prop::collection::vec(any::<u8>(), 0..3000), pieced, said]
    }

    proptest! {
        #[test]
        fn whatever_is_answered_the_message_is_short_clean_text(status in 100..=999_u16, body in bodies()) {
            let (outcome, message) = judge(status, &body);
            prop_assert_eq!(message.is_none(), outcome == Outcome::Success);
            if let Some(message) = message {
                prop_assert!((1..=MESSAGE_BYTES_MAX).contains(&message.len()), "{} bytes", message.len());
                // NUL, which Postgres text cannot contain, and every character that moves a cursor.
                prop_assert!(!message.chars().any(char::is_control), "{message:?}");
                prop_assert_eq!(&clean(&message), &message, "what is clean stays as it is");
            }
            if !matches!(status, 200 | 201 | 204) {
                prop_assert_eq!(outcome, judge(status, b"").0, "only a success is looked into");
            }
        }

        #[test]
        fn a_body_that_may_say_no_is_never_a_success(
            before in "[ \n\t]*", after in prop::collection::vec(any::<u8>(), 0..40), cut in any::<prop::sample::Index>(),
        ) {
            let no = [before.as_bytes(), b"{\"dtm_result\":\"FAILURE\",\"message\":\""].concat();
            prop_assert_ne!(judge(200, &[&no[..], &after].concat()).0, Outcome::Success);
            // A body cut before the end of the key does not name the key. A longer body may be a
            // refusal.
            let named = no.len() - b"\":\"FAILURE\",\"message\":\"".len();
            let at = named + cut.index(no.len() - named);
            prop_assert_eq!(judge(200, &no[..at]).0, Outcome::Unknown);
        }
    }
}
