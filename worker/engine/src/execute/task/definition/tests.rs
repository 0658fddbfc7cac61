use pgsaga_sql::contract::STEP_KEYS;
use proptest::prelude::*;

use super::*;

fn columns(steps: &str) -> SagaColumns {
    SagaColumns {
        gid: "g".into(),
        steps: steps.into(),
        headers: Some(r#"{"X-A": "saga", "X-B": "saga"}"#.into()),
        retry_limit: Some(4),
        compensate_retry_limit: None,
        timeout: None,
        compensate_failed: false,
        parallel: false,
        refers: false,
        result_mapping: None,
        retry_interval: 10.0,
        request_timeout: 3.0,
    }
}

fn decode(columns: SagaColumns) -> Result<Definition, DecodeError> {
    Definition::decode(columns, crate::flow::capacity::MemoryUse::default().add(0))
}

#[test]
fn a_payload_keeps_every_byte_that_postgres_printed() {
    let steps = r#"[{"action": "", "payload": {"a": 1.10, "b": 12345678901234567890.123, "c": 1e5}}]"#;
    let definition = decode(columns(steps)).unwrap();
    // Decoding and encoding the payload again would change its bytes (docs/races.md, R17).
    let again: serde_json::Value = serde_json::from_slice(&definition.steps[0].payload).unwrap();
    assert_ne!(again.to_string().into_bytes(), definition.steps[0].payload);
    assert_eq!(&definition.steps[0].payload[..], br#"{"a": 1.10, "b": 12345678901234567890.123, "c": 1e5}"#);
}

#[test]
fn a_payload_of_null_is_a_payload() {
    let steps = r#"[{"action": "", "payload": {"a": 1}, "compensate_payload": null}, {"action": "", "payload": null}, {"action": ""}]"#;
    let definition = decode(columns(steps)).unwrap();
    let body = |step: usize, op| {
        String::from_utf8(definition.body(step, op, &Answers::default()).unwrap().to_vec()).unwrap()
    };
    assert_eq!((body(0, Op::Action).as_str(), body(0, Op::Compensate).as_str()), (r#"{"a": 1}"#, "null"));
    assert_eq!((body(1, Op::Action).as_str(), body(2, Op::Action).as_str()), ("null", ""));
}

#[test]
fn a_step_inherits_from_its_saga_and_overrides_it() {
    let steps = r#"[{"action": ""}, {"name": "pay", "action": "", "headers": {"x-b": "step"}, "retry_limit": 0, "retry_interval_seconds": 0.5}]"#;
    let definition = decode(columns(steps)).unwrap();
    let [first, second] = &definition.steps[..] else { panic!() };
    let limit = |index| definition.graph.retry_limit(index);
    assert_eq!((first.name.as_str(), limit(0)), ("01", Some(4)));
    assert_eq!(first.retry_interval, Duration::from_secs(10));
    assert_eq!((second.name.as_str(), limit(1)), ("pay", Some(0)));
    assert_eq!(second.retry_interval, Duration::from_millis(500));
    assert_eq!(
        (&second.headers["x-a"], &second.headers["x-b"]),
        (&"saga".parse().unwrap(), &"step".parse().unwrap())
    );
}

#[test]
fn a_row_changed_by_hand_is_an_error() {
    assert!(decode(columns("{}")).is_err());
    assert!(decode(columns(r#"[{"action": 7}]"#)).is_err());
}

#[test]
fn what_pgsaga_sets_is_not_taken_from_a_row_that_was_changed_by_hand() {
    let steps = r#"[{"action": "", "headers": {"Content-Encoding": "gzip", "x-c": "1", "transfer-encoding": "chunked"}}]"#;
    let common = r#"{"accept-encoding": "gzip", "Host": "other", "X-A": "2"}"#;
    let decoded = decode(SagaColumns { headers: Some(common.into()), ..columns(steps) }).unwrap();
    let mut names: Vec<_> = decoded.steps[0].headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["x-a", "x-c"]);
}

/// Above 32,768 headers a header map panics. The panic would end every worker that claims the task.
#[test]
fn more_headers_than_a_request_can_hold_are_an_error() {
    let headers = |count: usize| {
        let entries: Vec<String> = (0..count).map(|nth| format!(r#""h{nth}": """#)).collect();
        format!(r#"[{{"action": "", "headers": {{{}}}}}]"#, entries.join(", "))
    };
    let words = decode(columns(&headers(40_000))).unwrap_err().to_string();
    assert_eq!(words, "40000 headers; allowed: up to 1000");
    assert_eq!(decode(columns(&headers(1_000))).unwrap().steps[0].headers.len(), 1_002);
}

/// Runs on the stack of a test thread, which is as small as that of a worker thread.
#[test]
fn a_payload_deeper_than_any_stack_is_no_end_of_the_process() {
    let deep = |levels: usize| format!(r#"{}{{"$from": "01"}}{}"#, "[".repeat(levels), "]".repeat(levels));
    let steps =
        |levels| format!(r#"[{{"action": ""}}, {{"action": "http://a", "payload": {}}}]"#, deep(levels));
    let answers =
        Answers::read(r#"{"1": 7, "0": 8}"#, crate::flow::capacity::MemoryUse::default().add(0)).unwrap();
    let body = |levels| {
        let definition = decode(SagaColumns { refers: true, ..columns(&steps(levels)) }).unwrap();
        definition.body(1, Op::Action, &answers)
    };
    assert_eq!(body(3).unwrap(), "[[[7]]]");
    assert_eq!(body(20_000).unwrap_err(), "not sent: payload: nested more than 128 deep");
}

const VALID: [&str; 4] = [
    r#"[{"action": "http://a/b", "compensate": "", "payload": {"a": [1.10, null, "\u00e9"]}, "headers": {"X-A": "b"}}]"#,
    r#"[{"name": "a", "action": "", "after": []}, {"name": "b", "action": "", "after": ["a"], "pivot": true, "payload": {"$from": "a", "path": "/x"}}]"#,
    r#"[{"action": "", "retry_limit": 3, "compensate_retry_limit": 1e6, "retry_interval_seconds": 0.001, "request_timeout_seconds": 3600}]"#,
    r#"[{"action": ""}, {"action": "", "compensate_payload": {"$literal": {"$from": 1}}}, {"action": "", "after": ["01", "02"]}]"#,
];

/// Generates a valid definition with some bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b""[..],
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"null",
        b"true",
        b"-1",
        b"1e400",
        b"1e-400",
        b"99999999999999999999",
        b"\"01\"",
        b"\"a\"",
        b"\"after\": [\"a\", \"01\"]",
        b"\"headers\": {\"\": \"\"}",
        b"\"$from\"",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\r\n",
        b"[[[[[[[[[[[[[[[[",
    ]);
    let change = (any::<prop::sample::Index>(), 0..6_usize, piece);
    (prop::sample::select(&VALID[..]), prop::collection::vec(change, 0..5)).prop_map(|(valid, changes)| {
        let mut bytes = valid.as_bytes().to_vec();
        for (at, length, piece) in changes {
            let start = at.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, piece.iter().copied());
        }
        bytes
    })
}

/// JSON of any graph, with the keys of a step in it.
fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z0-9/:.$]{0,8}".prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let names = STEP_KEYS.iter().map(|key| key.name).chain(["$from", "$literal", "path", "x"]);
        let key = prop::sample::select(names.collect::<Vec<_>>());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((key, inner), 0..6).prop_map(|entries| {
                serde_json::Value::Object(
                    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

/// Decodes the steps for every kind of saga, and calls every method of the definition.
fn decode_every_way(steps: &str, other: &str) {
    for (parallel, refers) in [(false, false), (true, false), (false, true), (true, true)] {
        let columns = SagaColumns {
            parallel,
            refers,
            headers: (!other.is_empty()).then(|| other.to_owned()),
            result_mapping: refers.then(|| other.to_owned()),
            ..columns(steps)
        };
        let Ok(definition) = decode(columns) else { continue };
        let answers =
            Answers::read(r#"{"0": 1, "1": {"x": [2]}}"#, crate::flow::capacity::MemoryUse::default().add(0))
                .unwrap();
        for index in 0..=definition.steps.len() {
            for op in Op::ALL {
                let _ = definition.body(index, op, &answers);
                let _ = definition.steps.get(index).map(|step| step.participant(op).len());
            }
            let _ = (definition.uses_answer(index), definition.is_result(index));
        }
        let _ = definition.result(&answers, Some("1"));
    }
}

proptest! {
    #[test]
    fn a_definition_with_changed_bytes_is_decoded_or_an_error(bytes in mutated(), headers in mutated()) {
        decode_every_way(&String::from_utf8_lossy(&bytes), &String::from_utf8_lossy(&headers));
        decode_every_way(&String::from_utf8_lossy(&bytes), "{}");
    }

    #[test]
    fn any_json_at_all_is_decoded_or_an_error(steps in prop::collection::vec(values(), 0..4), other in values()) {
        decode_every_way(&serde_json::Value::from(steps).to_string(), &other.to_string());
    }

    #[test]
    fn any_text_at_all_is_decoded_or_an_error(steps in any::<String>(), other in any::<String>()) {
        decode_every_way(&steps, &other);
    }

    #[test]
    fn fresh_keys_of_any_text_are_read_or_an_error(text in any::<String>(), value in values()) {
        let _ = FreshKeys::read(Some(&text));
        if let Ok(keys) = FreshKeys::read(Some(&value.to_string())) {
            prop_assert_eq!(keys.suffix(usize::MAX - 1, Op::Action), "");
        }
    }
}
