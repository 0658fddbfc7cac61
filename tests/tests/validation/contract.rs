//! `pgsaga_sql::contract` and the SQL functions hold the same rules: the same limits to the last
//! digit, the same names and lists, and the same words.

use std::collections::BTreeSet;
use std::fmt::Display;

use pgsaga_producer::Definition;
use pgsaga_sql::contract::*;
use pgsaga_tests::Database;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use crate::cases;
use crate::dice::{Dice, rolls, seed};
use crate::{columns, insert};

/// What the crate and the INSERT say about a saga, which is the same.
async fn said(pool: &PgPool, saga: &Value) -> Option<String> {
    let text = saga.to_string();
    let crate_says = Definition::from_json(&text).err().map(|invalid| invalid.to_string());
    let insert_says = insert(pool, &columns(&text)).await;
    assert_eq!(crate_says, insert_says, "the crate, the INSERT; {}", &text[..text.len().min(300)]);
    insert_says
}

/// A saga of one step with a column set to `value`.
fn column(name: &str, value: Value) -> Value {
    let mut saga = json!({"steps": [{"action": ""}]});
    saga[name] = value;
    saga
}

/// A saga of one step with a key set to `value`.
fn key(name: &str, value: Value) -> Value {
    let mut step = json!({"action": ""});
    if name == "wait_seconds" {
        step = json!({});
    }
    step[name] = value;
    json!({"steps": [step]})
}

struct Limits {
    pool: PgPool,
    tried: usize,
}

impl Limits {
    /// `last` is allowed, and `beyond` is refused in words that end with `allowed`.
    async fn end(&mut self, last: Value, beyond: Value, allowed: impl Display) {
        assert_eq!(said(&self.pool, &last).await, None);
        let refused = said(&self.pool, &beyond).await.unwrap_or_else(|| panic!("taken: {beyond}"));
        assert!(refused.ends_with(&format!("; allowed: {allowed}")), "{refused}\n  is not for {allowed}");
        self.tried += 1;
    }

    async fn name(&mut self, of: impl Fn(Value) -> Value, limit: Name) {
        let text = |bytes| of(Value::from("n".repeat(bytes)));
        self.end(text(limit.bytes_max), text(limit.bytes_max + 1), limit).await;
        self.end(text(1), text(0), limit).await;
        self.end(of("Az09._:-".into()), of("a/b".into()), limit).await;
    }

    async fn whole(&mut self, of: impl Fn(Value) -> Value, limit: Whole) {
        self.end(of(limit.max.into()), of((limit.max + 1).into()), limit).await;
        self.end(of(0.into()), of((-1).into()), limit).await;
    }

    async fn seconds(&mut self, of: impl Fn(Value) -> Value, limit: Seconds) {
        let over: Value = serde_json::from_str(&format!("{}.000001", limit.max)).unwrap();
        self.end(of(limit.max.into()), of(over), limit).await;
        self.end(of(json!(0.001)), of(json!(0.000999)), limit).await;
    }
}

#[tokio::test]
async fn each_limit_is_the_same_in_rust_and_in_sql() {
    let db = Database::new().await;
    let mut limits = Limits { pool: db.pool().clone(), tried: 0 };

    limits.name(|value| column("gid", value), GID).await;
    limits.name(|value| column("queue", value), QUEUE).await;
    limits.name(|value| key("name", value), STEP_NAME).await;
    limits.whole(|value| column("priority", value), PRIORITY).await;
    limits.whole(|value| column("retry_limit", value), RETRY_LIMIT).await;
    limits.whole(|value| column("compensate_retry_limit", value), RETRY_LIMIT).await;
    limits.seconds(|value| column("retry_interval", value), RETRY_INTERVAL).await;
    limits.seconds(|value| column("request_timeout", value), REQUEST_TIMEOUT).await;
    limits.seconds(|value| column("timeout_to_fail", value), TIMEOUT_TO_FAIL).await;

    let text = |count: usize| "x".repeat(count);
    let steps = |count: usize| json!({"steps": vec![json!({"action": ""}); count]});
    limits.end(steps(STEPS_MAX), steps(STEPS_MAX + 1), "an array of 1 to 1,000 steps").await;
    let after = |count: usize| {
        let mut steps = vec![json!({"action": "", "after": []}); STEPS_MAX];
        steps[STEPS_MAX - 1]["after"] = (1..=count).map(default_step_name).collect();
        json!({"steps": steps})
    };
    // A step cannot wait for itself, so no saga has as many names as the limit.
    limits.end(after(STEPS_MAX - 1), after(AFTER_MAX + 1), StepValue::Names).await;

    let bytes = "up to 1,048,576 bytes as Postgres prints the JSON";
    let depth = "arrays and objects nested up to 64 deep";
    let nested = |levels: usize| (0..levels).fold(Value::Null, |value, _| json!([value]));
    let places: [fn(Value) -> Value; 3] = [
        |value| column("result_mapping", value),
        |value| key("payload", value),
        |value| key("compensate_payload", value),
    ];
    for of in places {
        let printed = |bytes: usize| of(text(bytes - 2).into());
        limits.end(printed(PAYLOAD_BYTES_MAX), printed(PAYLOAD_BYTES_MAX + 1), bytes).await;
        limits.end(of(nested(PAYLOAD_DEPTH_MAX)), of(nested(PAYLOAD_DEPTH_MAX + 1)), depth).await;
    }

    let entries = |count: usize| (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<Map<_, _>>();
    let one = |name: String, value: String| json!({ name: value });
    for name in ["headers", "labels"] {
        let of = |count| column(name, entries(count).into());
        limits.end(of(ENTRIES_MAX), of(ENTRIES_MAX + 1), "up to 64").await;
    }
    let words = "1 to 128 of the characters A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~";
    let header = |count| key("headers", one(text(count), text(1)));
    limits.end(header(HEADER_NAME_BYTES_MAX), header(HEADER_NAME_BYTES_MAX + 1), words).await;
    let words = "a string of up to 4,096 visible ASCII characters, spaces and tabs";
    let header = |count| key("headers", one(text(1), text(count)));
    limits.end(header(HEADER_VALUE_BYTES_MAX), header(HEADER_VALUE_BYTES_MAX + 1), words).await;
    let words = "1 to 64 of the characters A-Z a-z 0-9 . _ : / -";
    let label = |count| column("labels", one(text(count), text(1)));
    limits.end(label(LABEL_KEY_BYTES_MAX), label(LABEL_KEY_BYTES_MAX + 1), words).await;
    let words = "a string of up to 256 characters";
    let label = |count| column("labels", one(text(1), "ä".repeat(count)));
    limits.end(label(LABEL_VALUE_CHARS_MAX), label(LABEL_VALUE_CHARS_MAX + 1), words).await;

    let url = |count: usize| key("action", format!("http://a/{}", text(count - 9)).into());
    limits.end(url(URL_BYTES_MAX), url(URL_BYTES_MAX + 1), StepValue::Url).await;
    let words = "participant:name/path?query, with a name of 1 to 64 of a-z 0-9 . _ - that starts with a letter or a digit and is not digits alone: up to 2,048 of the characters A-Z a-z 0-9 . _ ~ : @ / ? = & , ; + -, without ..";
    let named = |name: usize, path: usize| {
        key("compensate", format!("{}{}/{}", NamedUrl::SCHEME, text(name), text(path)).into())
    };
    let longest = PARTICIPANT_NAME_BYTES_MAX;
    limits.end(named(longest, 0), named(longest + 1, 0), words).await;
    let path = URL_BYTES_MAX - NamedUrl::SCHEME.len() - 2;
    limits.end(named(1, path), named(1, path + 1), words).await;

    println!("{} limits", limits.tried);
}

/// The table of a step's keys in `check_saga` and `STEP_KEYS` have the same keys in the same order,
/// and of each key the same limits and words.
#[tokio::test]
async fn the_keys_of_a_step_are_the_same_in_rust_and_in_sql() {
    let db = Database::new().await;
    let refused = said(db.pool(), &key("x", json!(1))).await;
    let names = STEP_KEYS.map(|key| key.name).join(", ");
    assert_eq!(refused, Some(format!("step \"01\": found key \"x\"; allowed: the keys {names}")));

    let mut limits = Limits { pool: db.pool().clone(), tried: 0 };
    for StepKey { name, value } in STEP_KEYS {
        let of = |json| key(name, json);
        let good = match value {
            StepValue::Name => json!("a"),
            StepValue::Url => json!("http://a"),
            // Any JSON is a payload: nothing is beyond it by its kind.
            StepValue::Payload => continue,
            StepValue::Names => json!([]),
            StepValue::Pivot => json!(true),
            StepValue::Headers => json!({"a": "b"}),
            StepValue::Whole(limit) => {
                limits.whole(of, limit).await;
                limits.end(of(json!(1.0)), of(json!(1.5)), limit).await;
                json!(1)
            }
            StepValue::Seconds(limit) => {
                limits.seconds(of, limit).await;
                json!(0.5)
            }
        };
        for bad in [json!(null), json!({"a": {}}), json!([[]]), json!("a b"), json!(-7)] {
            let of_headers = matches!(value, StepValue::Headers) && bad.is_object();
            let of_names = matches!(value, StepValue::Names) && bad.is_array();
            if !of_headers && !of_names {
                limits.end(of(good.clone()), of(bad), value).await;
            }
        }
    }
}

/// The literals of a list in the source of `check_headers`, such as `lower(key) in ('host', …)`.
async fn literals_after(pool: &PgPool, start: &str) -> Vec<BTreeSet<String>> {
    let source: String = sqlx::query_scalar("select prosrc from pg_proc where proname = 'check_headers'")
        .fetch_one(pool)
        .await
        .unwrap();
    let lists: Vec<_> = source
        .split(start)
        .skip(1)
        .map(|rest| {
            rest.split(')').next().unwrap().split('\'').skip(1).step_by(2).map(str::to_owned).collect()
        })
        .collect();
    assert!(!lists.is_empty(), "check_headers has no {start}");
    lists
}

#[tokio::test]
async fn the_reserved_headers_are_the_same_in_rust_and_in_sql() {
    let db = Database::new().await;
    let reserved = RESERVED_HEADERS.map(str::to_owned).into();
    for list in literals_after(db.pool(), ") in (").await.iter().filter(|list| list.contains("host")) {
        assert_eq!(list, &reserved);
    }
    for name in RESERVED_HEADERS {
        for name in [name.to_owned(), name.to_uppercase()] {
            let refused = said(db.pool(), &key("headers", json!({&name: "x"}))).await;
            let words = "found a header that pgsaga or the transport sets; allowed: any other";
            assert!(refused.is_some_and(|refused| refused.ends_with(words)), "{name}");
            assert_eq!(said(db.pool(), &key("headers", json!({format!("x-{name}"): "x"}))).await, None);
        }
    }
}

#[tokio::test]
async fn the_reserved_keys_of_a_query_are_the_same_in_rust_and_in_sql() {
    let db = Database::new().await;
    let words = "a query without gid, trans_type, branch_id and op, which workers add";
    for url in ["http://a/", "participant:a/"] {
        for reserved in RESERVED_QUERY_KEYS {
            for query in [format!("?{reserved}"), format!("?x&{reserved}=1"), format!("?x;{reserved}")] {
                let refused = said(db.pool(), &key("action", format!("{url}{query}").into())).await;
                assert!(refused.is_some_and(|refused| refused.ends_with(words)), "{query}");
            }
            let other = format!("{url}?x{reserved}&{reserved}x=1&x={reserved}");
            assert_eq!(said(db.pool(), &key("action", other.into())).await, None);
        }
    }
}

#[tokio::test]
async fn the_default_names_of_steps_are_the_same_in_rust_and_in_sql() {
    let db = Database::new().await;
    let names: Vec<String> = sqlx::query_scalar(
        "select pgsaga.step_name('[]', position) from generate_series(1, 1000) position order by position",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(names, (1..=STEPS_MAX).map(default_step_name).collect::<Vec<_>>());
    // The INSERT has its own: each name is one that a result may refer to.
    let references: Vec<_> = names.iter().map(|name| json!({"$from": name})).collect();
    let saga = json!({"steps": vec![json!({"action": ""}); STEPS_MAX], "result_mapping": references});
    assert_eq!(said(db.pool(), &saga).await, None);
}

/// Claims and limits go by the participant that the INSERT writes into the task, and workers by the
/// one that they read in the URL.
#[tokio::test]
async fn the_participant_of_a_url_is_the_same_in_rust_and_in_sql() {
    let db = Database::new().await;
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut taken = BTreeSet::new();
    for _ in 0..rolls() {
        let url = dice.url();
        if Definition::from_json(&json!([{"action": url}]).to_string()).is_ok() {
            taken.insert(url);
        }
    }
    assert!(taken.len() > rolls() / 50, "random URLs are so bad that they test little: {}", taken.len());
    for url in taken {
        let steps = json!([{"action": url}]).to_string();
        assert_eq!(insert(db.pool(), &[("steps", &steps)]).await, None, "{url}");
        let written: String =
            sqlx::query_scalar("select participant from pgsaga.task order by id desc limit 1")
                .fetch_one(db.pool())
                .await
                .unwrap();
        let target = Target::read(&url);
        let read = target.as_ref().map_or("", Target::participant);
        assert_eq!(read, written, "{url}; SEED={seed}");
    }
}

/// Whatever an SQL function says is allowed, the table of bad input has a case for it; and the
/// other tests compare what the crate says in each case.
#[tokio::test]
async fn each_refusal_of_the_insert_is_in_the_table() {
    let db = Database::new().await;
    let sources: Vec<String> = sqlx::query_scalar(
        "select prosrc from pg_proc where pronamespace = 'pgsaga'::regnamespace and proname ~ '^check_(saga|order|headers|url)$'",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(sources.len(), 4);
    let cases = cases::all();
    let is_in_the_table = |words: &str| {
        let ending = format!("; allowed: {words}");
        let mut told = cases.iter().flat_map(|case| [&case.error, &case.insert]).flatten();
        told.any(|error| error.ends_with(&ending))
    };
    let mut count = 0;
    for literal in sources.iter().flat_map(|source| source.split("allowed := '").skip(1)) {
        // Two quotes in a literal are one.
        let words = literal.replace("''", "\u{0}");
        let words = words.split('\'').next().unwrap().replace('\u{0}', "'");
        assert!(is_in_the_table(&words), "no case is refused with: allowed: {words}");
        count += 1;
    }
    assert!(count > 40, "{count} refusals");
}
