use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

const ANSWER: &str = r#"{"id": 12345678901234567890.10, "list": [{"a/b": "x"}, null], "m~n": true, "": 0}"#;

fn resolved(text: &str) -> Result<String, String> {
    resolve(text, false, 1000, |name| (name == "stock").then_some(ANSWER))
}

#[test]
fn a_reference_stands_for_the_very_text_of_the_answer() {
    for (path, value) in [
        ("", ANSWER),
        ("/id", "12345678901234567890.10"),
        ("/list/0/a~1b", r#""x""#),
        ("/list/1", "null"),
        ("/m~0n", "true"),
        ("/", "0"),
    ] {
        let text = format!(r#"{{"n": 1.10, "deep": [{{"$from": "stock", "path": "{path}"}}, 1e5]}}"#);
        assert_eq!(resolved(&text).unwrap(), format!(r#"{{"n": 1.10, "deep": [{value}, 1e5]}}"#), "{path}");
    }
    assert_eq!(resolved(r#"{"$from": "stock"}"#).unwrap(), ANSWER);
}

#[test]
fn what_is_not_there_is_named_or_null() {
    for path in ["/nope", "/list/2", "/list/01", "/list/-", "/list/+1", "/id/x", "/list/0/a"] {
        let text = format!(r#"{{"a": {{"$from": "stock", "path": "{path}"}}}}"#);
        assert_eq!(
            resolved(&text).unwrap_err(),
            format!(r#"the answer of step "stock" has nothing at "{path}""#)
        );
        assert_eq!(resolve(&text, true, 1000, |_| Some(ANSWER)).unwrap(), r#"{"a": null}"#);
    }
    assert!(resolved(r#"{"$from": "other", "path": "/id"}"#).is_err());
    assert_eq!(resolve(r#"[{"$from": "other"}]"#, true, 1000, |_| None).unwrap(), "[null]");
}

#[test]
fn a_small_text_cannot_become_a_large_one() {
    let many = format!("[{}]", vec![r#"{"$from": "stock"}"#; 10_000].join(", "));
    let words = "longer than 1000 bytes with the answers that it refers to";
    assert_eq!(resolved(&many).unwrap_err(), words);
    assert_eq!(resolve(&many, true, 1000, |_| Some(ANSWER)).unwrap_err(), words);
}

#[test]
fn nothing_in_a_literal_is_interpreted() {
    let text = r#"{"a": {"$literal": {"$from": "stock", "path": "/id"}}, "b": "\"$from\""}"#;
    assert_eq!(resolved(text).unwrap(), r#"{"a": {"$from": "stock", "path": "/id"}, "b": "\"$from\""}"#);
    assert_eq!(names(text), BTreeSet::new());
    assert_eq!(
        names(r#"[{"$from": "a"}, {"x": {"$from": "b", "path": "/c"}}]"#),
        BTreeSet::from(["a".to_owned(), "b".to_owned()])
    );
}

/// Generates JSON text with references and with the spaces of jsonb.
fn texts() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1.10",
        "null",
        "\"\\\"$from\\\"\"",
        "\"a\"",
        "{\"$from\": \"stock\", \"path\": \"/id\"}",
        "{\"$from\": \"stock\"}",
        "{\"$from\": \"nobody\"}",
        "{\"$from\": 7}",
        "{\"$literal\": {\"$from\": \"x\"}}",
        "{\"$from\": \"stock\", \"path\": 1}",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(6, 60, 5, |inner| {
        let key = prop::sample::select(vec!["a", "b\\\"", "$from", "$literal", "path", "\\u0024from", ""]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|all| format!("[{}]", all.join(", "))),
            prop::collection::vec((key, inner), 0..5).prop_map(|all| {
                let all: Vec<String> = all.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", all.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_references_make_is_json_again_and_bounded(text in texts(), or_null in proptest::arbitrary::any::<bool>(), bytes_max in 0..400_usize) {
        let find = |name: &str| (name == "stock").then_some(ANSWER);
        match resolve(&text, or_null, bytes_max, find) {
            Ok(resolved) => {
                let value = serde_json::from_str::<&RawValue>(&resolved);
                prop_assert!(value.is_ok(), "{text} became {resolved}");
                prop_assert!(resolved.len() <= bytes_max + text.len() + ANSWER.len(), "{} bytes", resolved.len());
            }
            Err(words) => prop_assert!(!words.is_empty()),
        }
        if !super::any(text.as_bytes()) {
            prop_assert_eq!(resolve(&text, or_null, text.len(), find), Ok(text));
        }
    }

    #[test]
    fn no_text_and_no_path_is_a_surprise(text in proptest::arbitrary::any::<String>(), path in "[/~01a-z-]{0,20}", nearly in "[\\[\\]{}\",:$a-z0-9 ]{0,60}") {
        for text in [&text, &nearly, &format!("\"$from\"{nearly}"), &format!("{{\"$from\":{nearly}}}")] {
            let _ = (names(text), resolve(text, true, 100, |_| Some(ANSWER)), pointed_at(text, &path));
        }
        let _ = (pointed_at(ANSWER, &path), pointed_at(&nearly, &path));
    }
}
