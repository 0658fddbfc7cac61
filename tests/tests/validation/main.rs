//! One table of bad input, `tests/cases/bad_input.json`, for three: the INSERT, the crate and
//! `pgsaga check`; and random input beyond the table.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use pgsaga_producer::Definition;
use pgsaga_sql::FORMAT;
use pgsaga_sql::contract::NamedUrl;
use pgsaga_tests::{Cluster, Database, binary};
use serde_json::value::RawValue;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, PgPool};

#[path = "../../../producer/tests/cases/mod.rs"]
mod cases;
mod contract;
mod dice;
mod model;
mod producer;
mod row;
use cases::{Input, check_steps};
use dice::{Dice, rolls, seed};

#[tokio::test]
async fn the_insert_and_the_crate_say_what_the_table_says() {
    let db = Database::new().await;
    let mut wrong = Vec::new();
    for case in cases::all() {
        let (crate_says, insert_says) = match &case.input {
            Input::Steps(text) => (check_steps(text), insert(db.pool(), &[("steps", text)]).await),
            Input::Saga(text) => (Definition::from_json(text), insert(db.pool(), &columns(text)).await),
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

/// What the INSERT says of each case, in a database of its own with these settings.
async fn said_of_all(db: &Database, settings: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    let options: PgConnectOptions = db.url().parse().unwrap();
    let pool = PgPool::connect_with(options.options(settings.iter().copied())).await.unwrap();
    let mut said = Vec::new();
    for case in cases::all() {
        let insert_says = match &case.input {
            Input::Steps(text) => insert(&pool, &[("steps", text)]).await,
            Input::Saga(text) => insert(&pool, &columns(text)).await,
        };
        said.push((case.name, insert_says));
    }
    pool.close().await;
    said
}

/// The session of a producer, its role and its database may have any setting and collation.
#[tokio::test(flavor = "multi_thread")]
async fn the_insert_says_the_same_under_every_setting_and_collation() {
    let expected = said_of_all(&Database::new().await, &[]).await;
    assert!(expected.len() > 500, "{} cases", expected.len());
    for setting in [
        ("standard_conforming_strings", "off"),
        ("backslash_quote", "off"),
        ("IntervalStyle", "sql_standard"),
        ("IntervalStyle", "iso_8601"),
        ("DateStyle", "SQL, DMY"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_isolation", "repeatable read"),
        ("extra_float_digits", "-15"),
        ("bytea_output", "escape"),
        ("array_nulls", "off"),
        ("transform_null_equals", "on"),
        ("quote_all_identifiers", "on"),
        ("search_path", "pg_temp, public, pg_catalog"),
        ("jit_above_cost", "0"),
        ("plan_cache_mode", "force_generic_plan"),
    ] {
        same(&expected, &said_of_all(&Database::new().await, &[setting]).await, &format!("{setting:?}"));
    }
    // Turkish has a dotless i: lower('WEBHOOK-ID') is not 'webhook-id' there.
    let cluster = Cluster::shared().await;
    let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(Database::new().await.pool())
        .await
        .unwrap();
    // Before Postgres 15 no database has a collation of ICU.
    let icu =
        (version >= 150_000).then_some("encoding 'UTF8' locale 'C' locale_provider icu icu_locale 'tr-TR'");
    if let Some(options) = icu {
        let db = cluster.empty_database(options).await;
        let migrated = binary::command().args(["migrate", "--database-url", db.url()]).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        same(&expected, &said_of_all(&db, &[]).await, options);
    }
}

fn same(expected: &[(String, Option<String>)], said: &[(String, Option<String>)], under: &str) {
    let wrong: Vec<String> = expected
        .iter()
        .zip(said)
        .filter(|(expected, said)| expected != said)
        .map(|((name, expected), (_, said))| {
            format!("{name}\n  the INSERT says {said:?}\n  expected        {expected:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "{under}: {} cases differ:\n{}", wrong.len(), wrong.join("\n"));
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
            // What a file holds reaches no terminal as a control character.
            Some(words) => {
                output.status.code() == Some(2) && said.contains(&words.replace(char::is_control, " "))
            }
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
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut good = 0;
    for _ in 0..rolls() {
        let steps = dice.steps();
        let crate_says = check_steps(&steps).err().map(|invalid| invalid.to_string());
        let insert_says = insert(db.pool(), &[("steps", &steps)]).await;
        assert_eq!(crate_says, insert_says, "the crate, the INSERT; SEED={seed}\n{steps}");
        good += usize::from(crate_says.is_none());
    }
    assert!(good > rolls() / 50, "random input is so bad that it tests little: {good} good ones");
}

/// Random order, pivots and references in sagas that are well otherwise, against a third opinion as
/// well.
#[tokio::test]
async fn the_insert_the_crate_and_a_model_agree_on_random_orders() {
    let db = Database::new().await;
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut good = 0;
    for _ in 0..rolls() {
        let saga = dice.ordered_saga();
        let crate_says = Definition::from_json(&saga).err().map(|invalid| invalid.to_string());
        let insert_says = insert(db.pool(), &columns(&saga)).await;
        assert_eq!(crate_says, insert_says, "the crate, the INSERT; SEED={seed}\n{saga}");
        let expected = model::row(&saga);
        assert_eq!(crate_says.is_none(), expected.is_some(), "{crate_says:?}; SEED={seed}\n{saga}");
        if let Some(expected) = expected {
            let kept: (Option<String>, bool) =
                sqlx::query_as("select progress, answers from pgsaga.saga order by id desc limit 1")
                    .fetch_one(db.pool())
                    .await
                    .unwrap();
            assert_eq!(kept, expected, "progress, answers; SEED={seed}\n{saga}");
            good += 1;
        }
    }
    assert!((rolls() / 5..rolls() * 4 / 5).contains(&good), "{good} good ones of {}", rolls());
}

/// All but punycode: an `xn--` label that decodes to nothing sensible is for the call to fail on.
#[test]
fn a_url_parser_takes_every_url_that_a_step_may_have() {
    let mut dice = Dice::new(7);
    let mut good = 0;
    for _ in 0..250_000 {
        let url = dice.url();
        if check_steps(&format!("[{{\"action\":{}}}]", serde_json::to_string(&url).unwrap())).is_ok()
            && !url.is_empty()
            && !url.starts_with("participant:")
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

/// What the rules are for: whatever a step may say, a URL parser finds the call at the participant
/// and below its URL, and at no other's.
#[test]
fn a_named_url_stays_below_the_url_of_its_participant() {
    let mut dice = Dice::new(8);
    let mut good = 0;
    for _ in 0..200_000 {
        let url = dice.named_url();
        let steps = format!("[{{\"action\":{}}}]", serde_json::to_string(&url).unwrap());
        if check_steps(&steps).is_err() {
            continue;
        }
        let named = NamedUrl::parse(&url).unwrap();
        let parsed =
            reqwest::Url::parse(&format!("https://stock.example/api{}?gid=1", named.path())).unwrap();
        assert_eq!(parsed.host_str(), Some("stock.example"), "{url:?}");
        assert!(parsed.path().starts_with("/api/"), "{url:?}: {parsed}");
        assert!(
            parsed.username().is_empty() && parsed.port().is_none() && parsed.fragment().is_none(),
            "{url:?}"
        );
        good += 1;
    }
    assert!(good > 10_000, "{good}");
}

/// On both ways through the validation the participant is the one that workers see.
#[tokio::test]
async fn the_first_task_is_for_the_participant_of_the_first_step() {
    let db = Database::new().await;
    let named = r#"[{"name": "a", "action": "participant:stock/x?y"}]"#;
    let url = r#"[{"name": "a", "action": "https://stock:80/x?y"}]"#;
    let undone = r#"[{"name": "a", "action": "https://stock/x", "compensate": "participant:stock.eu/y"}]"#;
    // A saga with a limit goes through the whole validation.
    for (steps, limit, participant) in [
        (named, None, "participant:stock"),
        (named, Some(1), "participant:stock"),
        (url, None, "stock:80"),
        (url, Some(1), "stock:80"),
        (undone, None, "stock"),
        (undone, Some(1), "stock"),
    ] {
        let row: (i16, bool) = sqlx::query_as(
            "insert into pgsaga.saga (steps, retry_limit) values ($1::text::jsonb, $2)
             returning format, bytes = octet_length(steps::text)",
        )
        .bind(steps)
        .bind(limit)
        .fetch_one(db.pool())
        .await
        .unwrap();
        let task: (i16, String) =
            sqlx::query_as("select format, participant from pgsaga.task order by id desc limit 1")
                .fetch_one(db.pool())
                .await
                .unwrap();
        assert_eq!((row, task.0), ((FORMAT, true), FORMAT), "{steps} {limit:?}");
        assert_eq!(task.1, participant, "{steps} {limit:?}");
    }
}

/// What the INSERT of these columns says; `None` when it takes them.
async fn insert(pool: &PgPool, columns: &[(&str, &str)]) -> Option<String> {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = (1..)
        .zip(columns)
        .map(|(n, (name, _))| match *name {
            "gid" | "status" | "reason" | "queue" => format!("${n}"),
            "retry_limit" | "compensate_retry_limit" => format!("${n}::text::int"),
            "priority" => format!("${n}::text::smallint"),
            "run_at" => format!("${n}::text::timestamptz"),
            "retry_interval" | "request_timeout" | "timeout_to_fail" => format!("${n}::text::interval"),
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
                "gid" | "status" | "reason" | "queue" | "run_at" => {
                    serde_json::from_str::<String>(value.get()).unwrap().leak()
                }
                _ => value.get(),
            };
            (name, text)
        })
        .collect()
}
