//! What is sent, and what no answer can do.

use std::time::Duration;

use Behaviour::{CloseAfter, CloseBefore, Flood, Hang, Late, Ok, Refuse, Sequence, Slow, Status};
use pgsaga_tests::oracle::Fate;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate};
use serde_json::json;

/// docs/races.md, R17: decoded and encoded again, 1.10 becomes 1.1.
#[tokio::test]
async fn the_body_is_exactly_what_postgres_prints_on_every_try() {
    let scene = Scene::with_worker().await;
    let payload =
        r#"{"price": 1.10, "exact": 12345678901234567890.123, "text": "é\u0001\"", "list": [1.0, 2e3]}"#;
    let url = scene.participant.url("/bytes");
    scene.participant.on("/bytes", "action", Behaviour::Unknown(1));
    let steps = format!(r#"[{{"name": "pay", "action": "{url}", "payload": {payload}}}]"#);
    sqlx::query(
        "insert into pgsaga.saga (gid, steps, retry_interval) values ('s', $1::text::jsonb, '10 ms')",
    )
    .bind(&steps)
    .execute(scene.pool())
    .await
    .unwrap();
    scene.expect("s", "succeeded", None, &["pay action"; 2]).await;
    let printed: String = sqlx::query_scalar("select (steps -> 0 -> 'payload')::text from pgsaga.saga")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    for call in scene.participant.calls() {
        assert_eq!(String::from_utf8_lossy(&call.body), printed);
    }
    assert!(printed.contains("1.10") && printed.contains("12345678901234567890.123"));
}

#[tokio::test]
async fn a_call_is_a_post_with_dtms_query_and_our_headers_on_every_try() {
    let scene = Scene::with_worker().await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let saga = scene.saga("s").column(
        "headers",
        &format!(r#"'{{"X-Tenant": "7", "X-Both": "saga", "traceparent": "{traceparent}"}}'"#),
    );
    saga.step("pay").with("headers", json!({"X-Both": "step"})).action(Behaviour::Unknown(1)).insert().await;
    scene.expect("s", "succeeded", None, &["pay action"; 2]).await;
    for call in scene.participant.calls() {
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/s/pay"));
        assert_eq!((call.gid.as_str(), call.trans_type.as_str(), call.op.as_str()), ("s", "saga", "action"));
        assert_eq!(call.header("content-type"), "application/json");
        assert_eq!(call.header("accept-encoding"), "identity");
        assert_eq!((call.header("x-tenant"), call.header("x-both")), ("7".to_owned(), "step".to_owned()));
        assert_eq!(call.header("traceparent"), traceparent);
    }
    scene.saga("own-trace").step("pay").with("payload", json!(null)).insert().await;
    scene.expect("own-trace", "succeeded", None, &["pay action"]).await;
    let call = scene.participant.calls_for("own-trace").remove(0);
    assert!(call.header("traceparent").starts_with("00-"), "{:?}", call.headers);
    assert!(call.body.is_empty(), "no payload is an empty body");
}

/// docs/races.md, R9: each of these, unbounded or unclean, would fail the settle of the whole
/// group, on every retry.
#[tokio::test]
async fn no_answer_can_break_a_settle() {
    let scene = Scene::with_worker().await;
    let hostile: [(&str, Vec<u8>); 7] = [
        ("nul", br#"{"message": "a\u0000b"}"#.to_vec()),
        ("surrogate", br#"{"message": "\ud800"}"#.to_vec()),
        ("number", br#"{"x": 1e200000}"#.to_vec()),
        ("deep", vec![b'['; 30_000]),
        ("bytes", (0..=255).collect()),
        ("empty", Vec::new()),
        ("ten-megabytes", vec![b'x'; 10 * 1024 * 1024]),
    ];
    for (gid, body) in &hostile {
        scene.saga(gid).step("pay").action(Behaviour::raw(409, &[], body.clone())).insert().await;
        let refused_twice =
            Sequence(vec![Behaviour::raw(500, &[], body.clone()), Behaviour::raw(200, &[], body.clone())]);
        scene.saga(&format!("{gid}-unknown")).step("pay").action(refused_twice).insert().await;
    }
    for (gid, _) in &hostile {
        let (status, reason) = scene.ended(gid).await;
        assert_eq!(status, "failed", "{gid}");
        assert!(reason.unwrap().starts_with("pay: "), "{gid}");
        assert_eq!(scene.ended(&format!("{gid}-unknown")).await.0, "succeeded", "{gid}");
    }
    assert_eq!(scene.metric("pgsaga_database_errors_total{class=\"data\"}").await, 0.0);
    scene.healthy().await;
}

/// docs/races.md, R9: values that the database refuses fail one saga, not its group.
#[tokio::test]
async fn a_group_that_cannot_be_settled_is_halved_until_the_culprit_is_alone_and_stuck() {
    let scene = Scene::with_worker().await;
    sqlx::raw_sql("alter table pgsaga.history add constraint no_poison check (message <> 'poison')")
        .execute(scene.pool())
        .await
        .unwrap();
    // All are answered at one moment, so that they are settled together: alone each would show
    // nothing.
    let gate = Gate::new();
    for n in 0..60 {
        let saga = scene.saga(&format!("s{n}")).column("request_timeout", "'60 seconds'").step("pay");
        let answer = if n % 20 == 10 { Refuse("poison".into()) } else { Ok };
        saga.action(answer.behind(&gate)).insert().await;
    }
    scene.participant.wait_for_calls(60, PATIENCE).await;
    gate.open();
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("succeeded").await, 57);
    for gid in ["s10", "s30", "s50"] {
        let (status, reason) = scene.ended(gid).await;
        assert_eq!(status, "stuck");
        assert!(reason.as_ref().unwrap().starts_with("pay: its outcome cannot be settled"), "{reason:?}");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let scene = Scene::with_worker().await;
    let elsewhere = scene.participant.url("/elsewhere");
    let redirect = Sequence(vec![Behaviour::raw(307, &[("location", &elsewhere)], ""), Ok]);
    scene.saga("s").step("pay").action(redirect).insert().await;
    scene.expect("s", "succeeded", None, &["pay action"; 2]).await;
    assert!(scene.participant.calls().iter().all(|call| call.path == "/s/pay"));
    assert_eq!(scene.history("s").await[0], "pay action 1 unknown");
}

#[tokio::test]
async fn retry_after_replaces_the_wait_shorter_and_longer() {
    let scene = Scene::with_worker().await;
    let soon = Sequence(vec![Behaviour::retry_after(429, 1)]);
    scene.saga("soon").column("retry_interval", "'1 hour'").step("pay").action(soon).insert().await;
    scene.expect("soon", "succeeded", None, &["pay action"; 2]).await;
    assert_eq!(
        scene.history("soon").await[0],
        "pay action 1 unsent",
        "429 was not accepted: nothing to compensate"
    );

    let later = Sequence(vec![Behaviour::retry_after(503, 1)]);
    scene.saga("later").column("retry_interval", "'1 millisecond'").step("pay").action(later).insert().await;
    scene.expect("later", "succeeded", None, &["pay action"; 2]).await;
    let calls = scene.participant.calls_for("later");
    assert!(calls[1].started - calls[0].started >= Duration::from_secs(1));
}

/// A participant that asks to be called again at once, or at a time that is past, is not called in
/// a tight loop.
#[tokio::test]
async fn retry_after_zero_or_in_the_past_waits_a_second() {
    const PAST: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
    let scene = Scene::with_worker().await;
    let asked: [(&str, &[(&str, &str)]); 3] = [
        ("zero", &[("retry-after", "0")]),
        ("past", &[("retry-after", PAST)]),
        ("past-own-date", &[("retry-after", PAST), ("date", "Wed, 21 Oct 2015 07:28:01 GMT")]),
    ];
    // How often each status is answered. A call comes back no sooner than after a second.
    let statuses: [(u16, usize); 4] = [(202, 3), (425, 3), (429, 2), (503, 2)];
    for (name, headers) in asked {
        for (status, times) in statuses {
            let answers = vec![Behaviour::raw(status, headers, ""); times];
            scene.saga(&format!("{name}-{status}")).step("pay").action(Sequence(answers)).insert().await;
        }
    }
    for (name, _) in asked {
        for (status, times) in statuses {
            let gid = format!("{name}-{status}");
            assert_eq!(scene.ended(&gid).await.0, "succeeded", "{gid}");
            assert_eq!(scene.participant.calls_for(&gid).len(), times + 1, "{gid}");
            // By the database's clock, from the end of one try to the end of the next.
            let passed: Vec<Option<f64>> = sqlx::query_scalar(
                "select extract(epoch from lead(h.at) over (order by h.seq) - h.at)::float8
                 from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id where s.gid = $1 order by h.seq",
            )
            .bind(&gid)
            .fetch_all(scene.pool())
            .await
            .unwrap();
            let passed: Vec<f64> = passed.into_iter().flatten().collect();
            assert_eq!(passed.len(), times, "{gid}: {passed:?}");
            assert!(passed.iter().all(|passed| *passed >= 1.0), "{gid}: {passed:?}");
        }
    }
    scene.healthy().await;
}

#[tokio::test]
async fn dtms_own_words_in_a_json_answer_count_as_its_statuses() {
    let scene = Scene::with_worker().await;
    let dtm = |word: &str| Behaviour::Json(200, json!({"dtm_result": word}));
    scene.saga("ongoing").step("pay").action(Sequence(vec![dtm("ONGOING"), dtm("SUCCESS")])).insert().await;
    scene.expect("ongoing", "succeeded", None, &["pay action"; 2]).await;
    assert_eq!(scene.history("ongoing").await[0], "pay action 1 ongoing");
    scene.saga("failure").step("stock").step("pay").action(dtm("FAILURE")).insert().await;
    assert_eq!(scene.ended("failure").await.0, "failed");
    assert_eq!(scene.participant.ops_for("failure"), ["stock action", "pay action", "stock compensate"]);
    scene.saga("client-error").step("pay").action(Sequence(vec![Status(404)])).insert().await;
    scene.expect("client-error", "succeeded", None, &["pay action"; 2]).await;
}

/// One row a way to answer, each with the outcome that the contract gives it and whether the
/// participant did the work.
#[tokio::test]
async fn each_way_to_answer_has_the_outcome_of_the_contract() {
    let scene = Scene::with_worker().await;
    let elsewhere = scene.participant.url("/elsewhere");
    let table = [
        ("ok", Ok, "success", true),
        ("created", Status(201), "success", true),
        ("no-content", Status(204), "success", true),
        ("garbage", Behaviour::garbage(200), "success", true),
        ("flood", Flood(200, 10 * 1024 * 1024), "success", true),
        ("slow", Slow(Duration::from_millis(100)), "success", true),
        ("refused", Refuse("no".into()), "failure", false),
        ("accepted", Status(202), "ongoing", true),
        ("early", Status(425), "ongoing", false),
        ("bad-request", Status(400), "unknown", false),
        ("not-found", Status(404), "unknown", false),
        ("too-many", Status(429), "unsent", false),
        ("error", Status(500), "unknown", false),
        ("unavailable", Status(503), "unknown", false),
        ("garbage-error", Behaviour::garbage(500), "unknown", false),
        ("flood-error", Flood(500, 10 * 1024 * 1024), "unknown", false),
        ("moved", Behaviour::redirect(301, &elsewhere), "unknown", false),
        ("see-other", Behaviour::redirect(303, &elsewhere), "unknown", false),
        ("temporary", Behaviour::redirect(308, &elsewhere), "unknown", false),
        ("close-before", CloseBefore, "unknown", false),
        ("close-after", CloseAfter, "unknown", true),
        ("hang", Hang, "unknown", false),
        ("late", Late, "unknown", true),
    ];
    for (gid, behaviour, ..) in &table {
        // An answer that is later than the timeout is given at twice the timeout; nothing else
        // takes so long.
        let timeout = if matches!(behaviour, Hang | Late) { "'300 milliseconds'" } else { "'20 seconds'" };
        let saga = scene.saga(gid).column("request_timeout", timeout).step("pay");
        saga.action(Sequence(vec![behaviour.clone()])).insert().await;
    }
    for (gid, behaviour, outcome, worked) in &table {
        let refused = matches!(behaviour, Refuse(_));
        let (status, _) = scene.ended(gid).await;
        assert_eq!(status, if refused { "failed" } else { "succeeded" }, "{gid}");
        assert_eq!(scene.history(gid).await[0], format!("pay action 1 {outcome}"), "{gid}");
        assert_eq!(scene.participant.calls_for(gid)[0].worked, *worked, "{gid}");
    }
    assert!(scene.participant.calls().iter().all(|call| call.path != "/elsewhere"));
    scene.healthy().await;
}

/// What came too late was done all the same.
#[tokio::test]
async fn what_an_answer_after_the_timeout_says_was_done_is_undone() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").column("request_timeout", "'200 milliseconds'").column("retry_limit", "0");
    saga.step("pay").action(Late).insert().await;
    scene.expect("s", "failed", Some("pay: retry limit 0 reached"), &["pay action", "pay compensate"]).await;
    assert!(scene.participant.calls_for("s").iter().all(|call| call.worked));
}

/// The file says what was done before the answer does, also where nobody gets an answer.
#[tokio::test]
async fn a_participants_ledger_has_every_call_and_what_was_done_with_it() {
    let cluster = Cluster::shared().await;
    let mut scene = Scene::with_ledger(cluster).await;
    scene.participant.behind_a_barrier();
    scene.start_worker(&[]).await;
    let pay = Sequence(vec![CloseAfter, Status(500), Ok]);
    scene.saga("s").step("pay").action(pay).step("ship").action(Refuse("no".into())).insert().await;
    scene.ended("s").await;
    let ledger = scene.participant.ledger().await;
    let said: Vec<String> = ledger
        .lines()
        .map(|line| format!("{} {} {:?}", line.asked.key, line.asked.attempt, line.did))
        .collect();
    let expected = [
        "s/pay/action 1 Arrived",
        "s/pay/action 1 Worked",
        "s/pay/action 1 HungUp",
        "s/pay/action 2 Arrived",
        "s/pay/action 2 Answered { status: 500 }",
        "s/pay/action 3 Arrived",
        "s/pay/action 3 Skipped",
        "s/pay/action 3 Answered { status: 200 }",
        "s/ship/action 1 Arrived",
        "s/ship/action 1 Answered { status: 409 }",
        "s/pay/compensate 1 Arrived",
        "s/pay/compensate 1 Worked",
        "s/pay/compensate 1 Answered { status: 200 }",
    ];
    assert_eq!(said, expected);
    scene.oracle().await.told([("s".to_owned(), Fate::Committed)]).judge().await.holds();
}
