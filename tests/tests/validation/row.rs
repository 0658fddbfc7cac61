//! What the INSERT makes of a good row.

use std::time::{Duration, SystemTime};

use pgsaga_producer::{Producer, Saga, Step, answer_of, literal};
use pgsaga_tests::Database;
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgDatabaseError;

use crate::insert;

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
    let start = SystemTime::UNIX_EPOCH + Duration::new(4_000_000_000, 123_456_789);
    let saga = |gid| {
        Saga::new()
            .gid(gid)
            .unwrap()
            .step(Step::new("stock").action("").after_none().compensate_retry_limit(5))
            .step(Step::new("pay").action("https://pay/charge").payload(exact).after(["stock"]).pivot())
            .step(Step::new("mail").action("").payload(&json!([answer_of("pay", "/id"), literal("$from")])))
            .step(Step::new("log").action("").after(["pay"]).payload(&answer_of("stock", "")))
            .queue("slow")
            .priority(0)
            .run_at(start)
            .timeout_to_fail(Duration::from_micros(90_000_001))
            .compensate_retry_limit(7)
            .result_mapping(&json!({"paid": answer_of("pay", "/id")}))
    };
    saga("built").submit(db.pool()).await.unwrap();
    Producer::behind_pgbouncer().submit_many(db.pool(), &[saga("many")]).await.unwrap();
    let steps = format!(
        r#"[{{"name": "stock", "action": "", "after": [], "compensate_retry_limit": 5}},
            {{"name": "pay", "action": "https://pay/charge", "payload": {exact}, "after": ["stock"], "pivot": true}},
            {{"name": "mail", "action": "", "payload": [{{"$from": "pay", "path": "/id"}}, {{"$literal": "$from"}}]}},
            {{"name": "log", "action": "", "after": ["pay"], "payload": {{"$from": "stock"}}}}]"#
    );
    let plain = [
        ("gid", "plain"),
        ("steps", &steps),
        ("queue", "slow"),
        ("priority", "0"),
        ("run_at", "2096-10-02 07:06:40.123456+00"),
        ("timeout_to_fail", "90.000001 seconds"),
        ("compensate_retry_limit", "7"),
        ("result_mapping", r#"{"paid": {"$from": "pay", "path": "/id"}}"#),
    ];
    assert_eq!(insert(db.pool(), &plain).await, None);
    let rows: Vec<String> = sqlx::query_scalar(
        "select distinct (to_jsonb(s) - array['id', 'gid', 'created_at'])::text from pgsaga.saga s",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert!(rows[0].contains("12345678901234567890.1230"));
}

#[tokio::test]
async fn the_row_keeps_the_order_and_whether_answers_are_used() {
    let db = Database::new().await;
    let cases = [
        (r#"[{"action": ""}, {"action": ""}]"#, None, false),
        (r#"[{"action": "", "after": []}, {"action": "", "after": ["01"]}]"#, None, false),
        (r#"[{"action": ""}, {"action": "", "pivot": true}]"#, None, false),
        (r#"[{"action": "", "after": []}, {"action": "", "after": []}]"#, Some("aa"), false),
        (r#"[{"action": ""}, {"action": ""}, {"action": "", "after": ["01"]}]"#, Some("a.."), false),
        (r#"[{"action": ""}, {"action": ""}, {"action": "", "after": ["02", "01"]}]"#, Some("a.."), false),
        (r#"[{"action": "", "after": ["02"]}, {"action": "", "after": []}]"#, Some(".a"), false),
        (r#"[{"action": "", "compensate_payload": [{"$from": "01"}]}]"#, None, true),
        (r#"[{"action": "", "payload": {"$literal": {"$from": "01"}}}]"#, None, false),
        (r#"[{"action": "", "payload": "$from"}]"#, None, false),
    ];
    for (steps, progress, answers) in cases {
        let row: (Option<String>, bool, i32, bool, i16, i32) = sqlx::query_as(
            "insert into pgsaga.saga (steps) values ($1::text::jsonb)
             returning progress, answers, bytes, bytes = octet_length(steps::text), format, version",
        )
        .bind(steps)
        .fetch_one(db.pool())
        .await
        .unwrap();
        let bytes = i32::try_from(steps.len()).unwrap();
        assert!((bytes - 2..=bytes).contains(&row.2), "{row:?} {steps}");
        assert_eq!(
            (row.0.as_deref(), row.1, row.3, row.4, row.5),
            (progress, answers, true, 1, 0),
            "{steps}"
        );
    }
    let answers: bool = sqlx::query_scalar(
        r#"insert into pgsaga.saga (steps, result_mapping) values ('[{"action": ""}]', '{"$from": "01"}') returning answers"#,
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert!(answers, "the result uses one");
}

#[tokio::test]
async fn a_deadline_counts_from_the_later_of_insertion_and_start() {
    let db = Database::new().await;
    for (run_at, expected) in [
        ("null", "deadline = created_at + interval '90 seconds'"),
        ("'2000-01-01'", "deadline = created_at + interval '90 seconds'"),
        ("clock_timestamp() + interval '1 hour'", "deadline = run_at + interval '90 seconds'"),
        ("'9999-12-31 23:59:59.999999+00'", "deadline = run_at + interval '90 seconds'"),
    ] {
        let statement = format!(
            "insert into pgsaga.saga (steps, run_at, timeout_to_fail) values ('[{{\"action\": \"\"}}]', {run_at}, '1 minute 30 seconds') returning {expected}"
        );
        let right: bool = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(db.pool()).await.unwrap();
        assert!(right, "{run_at}");
    }
    let none: bool = sqlx::query_scalar(
        "insert into pgsaga.saga (steps, run_at) values ('[{\"action\": \"\"}]', clock_timestamp()) returning deadline is null",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert!(none, "without timeout_to_fail there is none");
}

/// Producers have no right to these columns; who has all rights, say a restore gone wrong, is not
/// believed either.
#[tokio::test]
async fn what_the_schema_itself_keeps_cannot_be_inserted() {
    let db = Database::new().await;
    let row: String = sqlx::query_scalar(
        "insert into pgsaga.saga (steps, bytes, progress, answers, deadline, version, abort_reason, ending, fresh_keys, format)
         values ('[{\"action\": \"\"}]', 5, 'zz', true, now(), 7, 'x', 'failed', '{}', 9)
         returning concat_ws(',', bytes, progress, answers, deadline, version, abort_reason, ending, fresh_keys, format)",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(row, "16,f,0,1");
}

#[tokio::test]
async fn null_is_no_queue_and_no_priority() {
    let db = Database::new().await;
    for (column, expected) in [
        ("queue", "queue: found nothing; allowed: 1 to 64 of the characters A-Z a-z 0-9 . _ : -"),
        ("priority", "priority: found nothing; allowed: a whole number from 0 to 3"),
    ] {
        let statement =
            format!("insert into pgsaga.saga (steps, {column}) values ('[{{\"action\": \"\"}}]', null)");
        let error = sqlx::query(AssertSqlSafe(statement)).execute(db.pool()).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().message(), expected);
    }
}

/// check_saga calls what producers have no right to call.
#[tokio::test]
async fn a_producer_s_own_rights_suffice_for_every_extra() {
    let db = Database::new().await;
    let mut connection = db.pool().acquire().await.unwrap();
    sqlx::query("set role pgsaga_producer").execute(&mut *connection).await.unwrap();
    sqlx::query(
        r#"insert into pgsaga.saga (steps, queue, priority, run_at, timeout_to_fail, compensate_retry_limit, result_mapping) values
           ('[{"action": "", "after": []}, {"action": "", "payload": {"$from": "01"}, "pivot": true}, {"action": "", "after": ["02"]}]',
            'slow', 0, now(), '1 hour', 3, '{"$from": "02"}')"#,
    )
    .execute(&mut *connection)
    .await
    .unwrap();
}

/// check_saga costs several times what check_quickly does, so a usual saga must not need it.
#[tokio::test]
async fn a_usual_saga_is_accepted_by_the_quick_check() {
    let db = Database::new().await;
    sqlx::query("alter table pgsaga.saga disable trigger check_saga").execute(db.pool()).await.unwrap();
    let named = |reserve: &str, release: &str, charge: &str| {
        format!(
            r#"[{{"name": "stock", "action": "{reserve}", "compensate": "{release}", "payload": {{"sku": 7, "text": "\"name\": "}}}},
               {{"name": "payment", "action": "{charge}"}}]"#
        )
    };
    let hosts = named(
        "https://stock.internal/reserve",
        "http://stock/release",
        "http://pay.example.com:18080/charge?x=1",
    );
    let three = hosts.replace("}]", r#"}, {"action": "", "payload": {"a": [{"b": [[1], {"c": "{["}]}]}}]"#);
    let headers = hosts.replace(
        r#""name": "payment""#,
        r#""name": "payment", "headers": {"X-Tenant": "acme", "authorization": "Bearer a"}"#,
    );
    for (shape, steps, labels, headers_of_all) in [
        ("named steps and hosts", hosts.clone(), None, None),
        (
            "steps without names",
            r#"[{"action": "http://a/x"}, {"action": "http://a/y", "compensate": ""}]"#.into(),
            None,
            None,
        ),
        (
            "addresses",
            named("http://10.0.0.17:8080/reserve", "http://127.0.0.1/", "http://255.255.255.255:65"),
            None,
            None,
        ),
        (
            "participants",
            named("participant:stock/reserve", "participant:stock/release", "participant:pay-2/charge"),
            None,
            None,
        ),
        ("headers of a step", headers, None, None),
        ("three steps, nested payloads", three, None, None),
        (
            "labels and headers",
            hosts.clone(),
            Some(r#"{"tenant": "acme", "kind": "order/new"}"#),
            Some(r#"{"traceparent": "00-a-b-01"}"#),
        ),
        (
            "a large payload",
            hosts.replace("\"sku\": 7", &format!(r#""sku": "{}""#, "x".repeat(100_000))),
            None,
            None,
        ),
    ] {
        let quick: bool = sqlx::query_scalar(
            "insert into pgsaga.saga (steps, queue, labels, headers) values ($1::text::jsonb, 'orders', $2::text::jsonb, $3::text::jsonb)
             returning bytes = octet_length(steps::text)",
        )
        .bind(steps)
        .bind(labels)
        .bind(headers_of_all)
        .fetch_one(db.pool())
        .await
        .unwrap();
        assert!(quick, "{shape}");
    }
}
