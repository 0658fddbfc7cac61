//! One table of bad input, `tests/cases/bad_input.json`, for three: the INSERT, the crate and `pgsaga check`; and random
//! input beyond the table.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use pgsaga_producer::{Producer, Saga, Step, check_file, validate_steps};
use pgsaga_tests::Database;
use serde_json::value::RawValue;
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgPool};

#[path = "../../producer/tests/cases/mod.rs"]
mod cases;
use cases::Input;

#[tokio::test]
async fn the_insert_and_the_crate_say_what_the_table_says() {
    let db = Database::new().await;
    let mut wrong = Vec::new();
    for case in cases::all() {
        let (crate_says, insert_says) = match &case.input {
            Input::Steps(text) => (validate_steps(text), insert(db.pool(), &[("steps", text)]).await),
            Input::Saga(text) => (check_file(text), insert(db.pool(), &columns(text)).await),
        };
        let crate_says = crate_says.err().map(|invalid| invalid.to_string());
        if crate_says != case.error {
            wrong.push(format!(
                "{}\n  the crate says {crate_says:?}\n  expected       {:?}",
                case.name, case.error
            ));
        }
        let expected = case.insert.or(case.error);
        let agrees = match expected.as_deref().map(|words| words.strip_prefix('~').ok_or(words)) {
            None => insert_says.is_none(),
            Some(Ok(part)) => insert_says.as_deref().is_some_and(|said| said.contains(part)),
            Some(Err(words)) => insert_says.as_deref() == Some(words),
        };
        if !agrees {
            wrong.push(format!(
                "{}\n  the INSERT says {insert_says:?}\n  expected        {expected:?}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pgsaga_check_says_what_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saga.json");
    let mut wrong = Vec::new();
    for case in cases::all() {
        let (Input::Steps(text) | Input::Saga(text)) = &case.input;
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(pgsaga_tests::binary::pgsaga())
            .arg("check")
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let agrees = match &case.error {
            None => output.status.success(),
            Some(words) => output.status.code() == Some(2) && said.contains(words.as_str()),
        };
        if !agrees {
            wrong.push(format!(
                "{}\n  said     {}: {said}\n  expected {:?}",
                case.name, output.status, case.error
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_insert_and_the_crate_agree_on_random_input() {
    let db = Database::new().await;
    let seed = std::env::var("SEED")
        .ok()
        .map_or_else(|| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut dice = Dice(seed);
    let mut good = 0;
    for _ in 0..dice_rolls() {
        let steps = dice.steps();
        let crate_says = validate_steps(&steps).err().map(|invalid| invalid.to_string());
        let insert_says = insert(db.pool(), &[("steps", &steps)]).await;
        assert_eq!(crate_says, insert_says, "the crate, the INSERT; SEED={seed}\n{steps}");
        good += usize::from(crate_says.is_none());
    }
    assert!(good > dice_rolls() / 50, "random input is so bad that it tests little: {good} good ones");
}

/// All but punycode: an `xn--` label that decodes to nothing sensible is for the call to fail on.
#[test]
fn a_url_parser_takes_every_url_that_a_step_may_have() {
    let mut dice = Dice(7);
    let mut good = 0;
    for _ in 0..200_000 {
        let url = dice.url();
        if validate_steps(&format!("[{{\"action\":{}}}]", serde_json::to_string(&url).unwrap())).is_ok()
            && !url.is_empty()
        {
            let parsed = reqwest::Url::parse(&url).unwrap_or_else(|error| panic!("{url:?}: {error}"));
            assert!(
                parsed.has_host() && parsed.username().is_empty() && parsed.fragment().is_none(),
                "{url:?}"
            );
            good += 1;
        }
    }
    assert!(good > 10_000, "{good}");
}

#[tokio::test]
async fn the_error_names_its_kind_and_the_saga() {
    let db = Database::new().await;
    let error = sqlx::query("insert into pgsaga.saga (gid, steps) values ('order-42', '[]')")
        .execute(db.pool())
        .await
        .unwrap_err();
    let error = error.as_database_error().unwrap().downcast_ref::<PgDatabaseError>();
    assert_eq!((error.code(), error.detail()), ("23514", Some("in saga order-42")));
}

#[tokio::test]
async fn calendar_intervals_are_stored_as_seconds() {
    let db = Database::new().await;
    let stored: String = sqlx::query_scalar(
        "insert into pgsaga.saga (steps, retry_interval) values ('[{\"action\": \"\"}]', '1 month -29 days') returning retry_interval::text",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(stored, "24:00:00");
}

#[tokio::test]
async fn a_built_saga_and_a_plain_insert_make_the_same_row() {
    let db = Database::new().await;
    let exact: &RawValue = serde_json::from_str("{\"cents\": 12345678901234567890.1230}").unwrap();
    let step = || Step::new("pay").action("https://pay/charge").payload(exact);
    Saga::new().gid("built").unwrap().step(step()).submit(db.pool()).await.unwrap();
    let many = [Saga::new().gid("many").unwrap().step(step())];
    Producer::behind_pgbouncer().submit_many(db.pool(), &many).await.unwrap();
    let steps = format!(r#"[{{"name": "pay", "action": "https://pay/charge", "payload": {exact}}}]"#);
    assert_eq!(insert(db.pool(), &[("gid", "plain"), ("steps", &steps)]).await, None);
    let rows: Vec<String> = sqlx::query_scalar(
        "select distinct (to_jsonb(s) - array['id', 'gid', 'created_at'])::text from pgsaga.saga s",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert!(rows[0].contains("12345678901234567890.1230"));
}

/// What the INSERT of these columns says; `None` when it takes them.
async fn insert(pool: &PgPool, columns: &[(&str, &str)]) -> Option<String> {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = (1..)
        .zip(columns)
        .map(|(n, (name, _))| match *name {
            "gid" | "status" | "reason" => format!("${n}"),
            "retry_limit" => format!("${n}::text::int"),
            "retry_interval" | "request_timeout" => format!("${n}::text::interval"),
            _ => format!("${n}::text::jsonb"),
        })
        .collect();
    let statement = format!("insert into pgsaga.saga ({}) values ({})", names.join(", "), values.join(", "));
    let query =
        columns.iter().fold(sqlx::query(AssertSqlSafe(statement)), |query, (_, value)| query.bind(*value));
    query.execute(pool).await.err().map(|error| match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    })
}

/// The columns of a case: text as it is, JSON as JSON.
fn columns(saga: &str) -> Vec<(&str, &str)> {
    let columns: std::collections::BTreeMap<&str, &RawValue> = serde_json::from_str(saga).unwrap();
    columns
        .into_iter()
        .map(|(name, value)| {
            let text = match name {
                // Leaked: the columns of a few cases, in a test.
                "gid" | "status" | "reason" => serde_json::from_str::<String>(value.get()).unwrap().leak(),
                _ => value.get(),
            };
            (name, text)
        })
        .collect()
}

fn dice_rolls() -> usize {
    std::env::var("ROLLS").ok().map_or(3_000, |rolls| rolls.parse().unwrap())
}

/// SplitMix64, so that a seed means the same for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn some(&mut self, count: usize, choices: &[&str]) -> String {
        (0..self.below(count + 1)).map(|_| self.of(choices)).collect()
    }

    fn url(&mut self) -> String {
        let scheme =
            self.of(&["http://", "https://", "http://", "https://", "http:/", "HTTP://", "ftp://", ""]);
        let host = match self.below(6) {
            0 => format!(
                "[{}]",
                self.some(
                    9,
                    &["1", "::", ":", "abcd", "0", "12345", "1:", "2:", "f:", "1.2.3.4", ":1", "g", "%"]
                )
            ),
            1 => {
                let mut part = || {
                    self.of(&["0", "1", "10", "255", "256", "01", "0x1", "a", "", "199", "249", "300"])
                        .to_owned()
                };
                [part(), part(), part(), part()].join(".")
            }
            _ => self.some(
                5,
                &["a", "A", "0", "1", "x", "X", "0x", "-", "_", ".", ".", "b", "0xg", "09", "é", "@", "%41"],
            ),
        };
        let port = match self.below(4) {
            0 => format!(":{}", self.some(5, &["0", "1", "5", "6", "65535", "65536", "9", "+", "-", "a"])),
            _ => String::new(),
        };
        let rest = match self.below(2) {
            0 => format!(
                "{}{}",
                self.of(&["/", "?", ""]),
                self.some(
                    3,
                    &[
                        "a", "/", "?", "#", "\\", " ", "é", "%zz", "{\"", "|^`", "@", "\u{7f}", "\n", "[]",
                        "..", "&="
                    ]
                )
            ),
            _ => String::new(),
        };
        format!("{scheme}{host}{port}{rest}")
    }

    fn string(&mut self) -> String {
        let text = self.some(
            4,
            &[
                "a", "B", "0", "1", "02", ".", ":", "-", "_", "/", " ", "é", "\n", "\"", "\\", "\u{1}",
                "\u{7f}", "😀", "\t",
            ],
        );
        // Serde's text, or the same in escapes.
        match self.below(4) {
            0 => format!(
                "\"{}\"",
                text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>()
            ),
            _ => serde_json::to_string(&text).unwrap(),
        }
    }

    fn value(&mut self, depth: usize) -> String {
        let space = self.of(&["", "", " ", "\n\t"]);
        match self.below(if depth > 3 { 5 } else { 7 }) {
            0 => self.of(&["null", "true", "false"]).to_owned(),
            1 | 2 => self
                .of(&[
                    "0",
                    "-0",
                    "1",
                    "-1",
                    "1.50",
                    "1e3",
                    "1E-3",
                    "0.001",
                    "0.0009",
                    "86400",
                    "86400.000",
                    "86400.1",
                    "3600",
                    "3600.01",
                    "1000000",
                    "1e6",
                    "1000001",
                    "12e-1",
                    "30e-1",
                    "-0.0e2",
                    "1e70",
                    "1e-70",
                    "123456789012345678901234567890",
                ])
                .to_owned(),
            3 | 4 => self.string(),
            5 => format!("[{space}{}{space}]", self.values(depth + 1).join(",")),
            _ => {
                let entries: Vec<_> = self
                    .values(depth + 1)
                    .into_iter()
                    .map(|value| format!("{}{space}:{value}", self.string()))
                    .collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    fn values(&mut self, depth: usize) -> Vec<String> {
        (0..self.below(4)).map(|_| self.value(depth)).collect()
    }

    fn step(&mut self) -> String {
        if self.below(40) == 0 {
            return self.value(0);
        }
        let action = match self.below(3) {
            0 => self.url(),
            _ => self.of(&["", "http://a", "https://a.b/c", "http://1.2.3.4/"]).to_owned(),
        };
        let mut entries = vec![format!("\"action\":{}", serde_json::to_string(&action).unwrap())];
        for _ in 0..self.below(4) {
            let key = self.of(&[
                "name",
                "name",
                "name",
                "action",
                "compensate",
                "payload",
                "compensate_payload",
                "headers",
                "retry_limit",
                "retry_interval_seconds",
                "request_timeout_seconds",
                "\\u006eame",
                "x",
            ]);
            let value = match (key, self.below(3)) {
                (_, 0) => self.value(0),
                ("name", _) => format!("\"{}\"", self.of(&["01", "02", "a", "b", "3", "03"])),
                ("action" | "compensate", _) => serde_json::to_string(&self.url()).unwrap(),
                ("headers", _) => {
                    let mut entry = || {
                        format!(
                            "{}:{}",
                            self.of(&["\"a\"", "\"Te\"", "\"X-1\"", "\"\"", "\"a b\"", "\"bb\""]),
                            self.string()
                        )
                    };
                    format!("{{{},{}}}", entry(), entry())
                }
                ("payload" | "compensate_payload", 1) => {
                    let depth = 62 + self.below(4);
                    format!(
                        "{}{}{}",
                        "{\"a\":".repeat(depth - 1),
                        self.of(&["[]", "{}", "1", "[1]"]),
                        "}".repeat(depth - 1)
                    )
                }
                _ => self.value(2),
            };
            entries.push(format!("\"{key}\":{value}"));
        }
        format!("{{{}}}", entries.join(", "))
    }

    fn steps(&mut self) -> String {
        let count = 1 + self.below(4);
        format!("[{}]", (0..count).map(|_| self.step()).collect::<Vec<_>>().join(","))
    }
}
