//! Answers that flow from step to step, and into the saga's result.

use Behaviour::{Json, Raw, Refuse, Sequence, Status};
use pgsaga_tests::Behaviour;
use pgsaga_tests::scene::Scene;
use serde_json::{Value, json};

async fn result(scene: &Scene, gid: &str) -> Option<Value> {
    let text: Option<String> = sqlx::query_scalar("select result::text from pgsaga.saga where gid = $1")
        .bind(gid)
        .fetch_one(scene.pool())
        .await
        .unwrap();
    text.map(|text| serde_json::from_str(&text).unwrap())
}

fn body(scene: &Scene, gid: &str, op: &str) -> Vec<String> {
    let calls = scene.participant.calls_for(gid).into_iter();
    calls
        .filter(|call| format!("{} {}", call.branch_id, call.op) == op)
        .map(|call| String::from_utf8(call.body.to_vec()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_later_step_uses_an_answer_digit_by_digit_and_the_result_is_the_last_answer() {
    let scene = Scene::with_worker().await;
    let answer = br#"{"reservation": {"id": 12345678901234567890.10, "b": 1, "aa": [1.50]}}"#.to_vec();
    scene
        .saga("s")
        .step("stock")
        .action(Raw { status: 200, headers: Vec::new(), body: answer })
        .step("pay")
        .with(
            "payload",
            json!({"id": {"$from": "stock", "path": "/reservation/id"}, "all": {"$from": "stock"}, "n": 1}),
        )
        .action(Json(200, json!({"receipt": 7})))
        .insert()
        .await;
    scene.expect("s", "succeeded", None, &["stock action", "pay action"]).await;
    // In jsonb's own words: shorter keys first, a space after each colon and comma.
    let printed = r#"{"n": 1, "id": 12345678901234567890.10, "all": {"reservation": {"b": 1, "aa": [1.50], "id": 12345678901234567890.10}}}"#;
    assert_eq!(body(&scene, "s", "pay action"), [printed]);
    assert_eq!(result(&scene, "s").await, Some(json!({"receipt": 7})));
}

/// The first try comes from the chain, the second from a claim, the third from another worker: the
/// same bytes.
#[tokio::test]
async fn a_body_with_answers_is_the_same_bytes_on_every_try_and_every_worker() {
    let mut scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("stock")
        .action(Raw {
            status: 200,
            headers: Vec::new(),
            body: br#"{ "z":1.0,"a" :{"y":[ 1,2 ]}, "dup": 1, "dup": 2 }"#.to_vec(),
        })
        .step("pay")
        .with("payload", json!({"from": {"$from": "stock"}}))
        .action(Sequence(vec![Status(500), Status(500), Status(500)]))
        .with("retry_interval_seconds", json!(0.4))
        .insert()
        .await;
    scene.participant.wait_for_calls(2, pgsaga_tests::scene::PATIENCE).await;
    scene.workers[0].kill9();
    scene.workers.clear();
    scene.start_worker(&[]).await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    let bodies = body(&scene, "s", "pay action");
    assert!(bodies.len() >= 4, "{bodies:?}");
    assert_eq!(bodies[0], r#"{"from": {"a": {"y": [1, 2]}, "z": 1.0, "dup": 2}}"#);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    scene.healthy().await;
}

#[tokio::test]
async fn what_cannot_be_resolved_refuses_an_action_without_a_call_and_is_null_in_a_compensation() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("stock")
        .action(Json(200, json!({"id": 1})))
        .with(
            "compensate_payload",
            json!({"id": {"$from": "stock", "path": "/id"}, "x": {"$from": "stock", "path": "/no"}}),
        )
        .step("pay")
        .with("payload", json!({"id": {"$from": "stock", "path": "/reservation/id"}}))
        .insert()
        .await;
    let reason = r#"pay: not sent: payload: the answer of step "stock" has nothing at "/reservation/id""#;
    scene.expect("s", "failed", Some(reason), &["stock action", "stock compensate"]).await;
    assert_eq!(body(&scene, "s", "stock compensate"), [r#"{"x": null, "id": 1}"#]);
}

#[tokio::test]
async fn a_compensation_of_an_unknown_action_has_no_answer_to_use() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("pay")
        .action(Status(500))
        .with("retry_limit", json!(0))
        .with("compensate_payload", json!({"id": {"$from": "pay", "path": "/id"}}))
        .insert()
        .await;
    scene.expect("s", "failed", Some("pay: retry limit 0 reached"), &["pay action", "pay compensate"]).await;
    assert_eq!(body(&scene, "s", "pay compensate"), [r#"{"id": null}"#]);
}

#[tokio::test]
async fn a_saga_names_what_its_result_is_made_of() {
    let scene = Scene::with_worker().await;
    let mapping = r#"'{"stock": {"$from": "stock", "path": "/id"}, "pay": {"$from": "pay", "path": "/r/0"}, "none": {"$from": "pay", "path": "/x"}, "as": {"$literal": {"$from": "it is"}}}'"#;
    for (gid, after) in [("sequential", json!(["stock"])), ("parallel", json!([]))] {
        let saga = scene
            .saga(gid)
            .step("stock")
            .action(Json(200, json!({"id": 1.5})))
            .step("pay")
            .with("after", after);
        saga.action(Json(200, json!({"r": ["x"]}))).column("result_mapping", mapping).insert().await;
        assert_eq!(scene.ended(gid).await.0, "succeeded");
        let expected = json!({"stock": 1.5, "pay": "x", "none": null, "as": {"$from": "it is"}});
        assert_eq!(result(&scene, gid).await, Some(expected), "{gid}");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn a_parallel_saga_resolves_answers_of_all_branches() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("a")
        .with("after", json!([]))
        .action(Json(200, json!({"n": "from a"})))
        .step("b")
        .with("after", json!([]))
        .action(Json(200, json!(["from b"])))
        .step("join")
        .with("after", json!(["a", "b"]))
        .with("payload", json!([{"$from": "a", "path": "/n"}, {"$from": "b", "path": "/0"}]))
        .action(Json(200, json!({"joined": true})))
        .insert()
        .await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    assert_eq!(body(&scene, "s", "join action"), [r#"["from a", "from b"]"#]);
    assert_eq!(result(&scene, "s").await, Some(json!({"joined": true})));
    scene.healthy().await;
}

/// No byte of an answer can break a settle, also where the answer is kept.
#[tokio::test]
async fn an_answer_that_jsonb_cannot_hold_is_no_answer() {
    let scene = Scene::with_worker().await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200)).into_bytes();
    let large = format!("\"{}\"", "x".repeat(70_000)).into_bytes();
    // 60 KB that jsonb prints as nearly a gigabyte.
    let printed = format!("[{}]", vec!["1e131071"; 7000].join(",")).into_bytes();
    let answers: [(&str, Vec<u8>); 10] = [
        ("printed", printed),
        ("nul", br#"{"a": "\u0000"}"#.to_vec()),
        ("surrogate", br#"{"a": "\ud800"}"#.to_vec()),
        ("number", b"[1e200000]".to_vec()),
        ("deep", deep),
        ("large", large),
        ("not-json", b"done".to_vec()),
        ("empty", Vec::new()),
        ("two", b"1 2".to_vec()),
        ("not-utf8", b"\"caf\xe9\"".to_vec()),
    ];
    for (gid, answer) in &answers {
        let saga =
            scene.saga(gid).step("a").action(Raw { status: 200, headers: Vec::new(), body: answer.clone() });
        saga.with("compensate_payload", json!({"$from": "a"}))
            .step("b")
            .action(Refuse("no".into()))
            .insert()
            .await;
        let result = scene.saga(&format!("{gid}-result")).step("a");
        result.action(Raw { status: 200, headers: Vec::new(), body: answer.clone() }).insert().await;
    }
    for (gid, _) in &answers {
        assert_eq!(scene.ended(gid).await, ("failed".into(), Some("b: no".into())), "{gid}");
        assert_eq!(body(&scene, gid, "a compensate"), ["null"], "{gid}");
        let gid = format!("{gid}-result");
        assert_eq!(scene.ended(&gid).await.0, "succeeded", "{gid}");
        assert_eq!(result(&scene, &gid).await, None, "{gid}");
    }
    scene.healthy().await;
}

/// A small payload that refers to a large answer many times is not sent.
#[tokio::test]
async fn a_body_that_answers_would_make_too_long_is_not_sent() {
    let scene = Scene::with_worker().await;
    let many = Value::Array(vec![json!({"$from": "a"}); 3000]);
    let saga = scene
        .saga("s")
        .step("a")
        .action(Json(200, json!("x".repeat(60_000))))
        .step("b")
        .with("payload", many.clone());
    saga.column("result_mapping", "null").insert().await;
    let reason = "b: not sent: payload: longer than 1048576 bytes with the answers that it refers to";
    scene.expect("s", "failed", Some(reason), &["a action", "a compensate"]).await;
    let saga = scene.saga("result").step("a").action(Json(200, json!("x".repeat(60_000))));
    saga.column("result_mapping", &format!("'{many}'")).insert().await;
    scene.expect("result", "succeeded", None, &["a action"]).await;
    assert_eq!(result(&scene, "result").await, None);
}
