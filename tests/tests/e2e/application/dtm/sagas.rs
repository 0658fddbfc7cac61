//! Sagas, one step after the other.

use Behaviour::{Json, Ok, Raw, Refuse, Sequence, Status, Unknown};
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Behaviour, Gate};
use serde_json::{Value, json};

use super::client::Client;

#[tokio::test]
async fn saga_normal() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let saga = client.saga("s").step("out").payload(json!({"cents": 30})).step("in");
        assert!(saga.submit().await);
        client.expect("s", "succeeded", None, &["out action", "in action"]).await;
        assert_eq!(client.history("s").await, ["out action 1 success", "in action 1 success"]);
        let call = client.call("s", "out", "action");
        assert_eq!((call.trans_type.as_str(), &call.body[..]), ("saga", &br#"{"cents": 30}"#[..]));
    }
    scene.healthy().await;
}

/// The two ways differ in nothing that a worker could see.
#[tokio::test]
async fn saga_of_the_crate_is_the_row_that_one_would_insert() {
    let scene = Scene::new().await;
    let ms = std::time::Duration::from_millis;
    for client in Client::both(&scene) {
        let saga = client.saga("s").step("a").header("X-A", "it's").retry_limit(3).timeout_to_fail(ms(1_500));
        let saga = saga.step("b").after(["a"]).step_header("X-B", "c").step_request_timeout(ms(250));
        assert!(saga.request_timeout(ms(700)).retry_interval(ms(50)).submit().await);
    }
    let rows: Vec<Value> = sqlx::query_scalar(
        "select to_jsonb(saga) - array['id', 'gid', 'steps', 'bytes', 'created_at', 'deadline']
           || jsonb_build_object('deadline', deadline - created_at, 'steps', replace(steps::text, gid, 'GID'))
         from pgsaga.saga",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0], rows[1]);
}

#[tokio::test]
async fn saga_rollback_keeps_the_participants_text_as_reason() {
    let scene = Scene::with_worker().await;
    let text = |status, body: &str| Raw { status, headers: Vec::new(), body: body.into() };
    let long = "x".repeat(3_000);
    let cases = [
        ("message", Refuse("Insufficient balance".into()), "Insufficient balance"),
        ("text", text(409, "no money left"), "no money left"),
        ("word", Json(200, json!({"dtm_result": "FAILURE", "message": "over the limit"})), "over the limit"),
        ("body", text(409, r#"{"dtm_result":"FAILURE"}"#), r#"{"dtm_result":"FAILURE"}"#),
        ("long", text(409, &long), &long[..1_024]),
    ];
    for client in Client::both(&scene) {
        for (name, refusal, said) in cases.clone() {
            client.saga(name).step("out").step("in").action(refusal).step("mail").submit().await;
            let ops = ["out action", "in action", "out compensate"];
            client.expect(name, "failed", Some(&format!("in: {said}")), &ops).await;
        }
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_ongoing_then_success() {
    let scene = Scene::with_worker().await;
    let word = Json(200, json!({"dtm_result": "ONGOING"}));
    for client in Client::both(&scene) {
        for (name, ongoing) in [("status", Status(425)), ("accepted", Status(202)), ("word", word.clone())] {
            let gate = Gate::new();
            let saga =
                client.saga(name).step("out").step("in").action(Sequence(vec![ongoing, Ok.behind(&gate)]));
            saga.submit().await;
            client.called(name, 3).await;
            assert_eq!(client.stands(name).await, "submitted");
            gate.open();
            client.expect(name, "succeeded", None, &["out action", "in action", "in action"]).await;
            assert_eq!(client.history(name).await[1..], ["in action 1 ongoing", "in action 2 success"]);
        }
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_compensation_that_errs_once() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        let errs_once = Sequence(vec![Status(500), Ok.behind(&gate)]);
        let saga =
            client.saga("s").step("out").compensate(errs_once).step("in").action(Refuse("closed".into()));
        saga.submit().await;
        client.called("s", 4).await;
        assert_eq!(client.stands("s").await, "aborting");
        gate.open();
        let ops = ["out action", "in action", "out compensate", "out compensate"];
        client.expect("s", "failed", Some("in: closed"), &ops).await;
        let history = client.history("s").await;
        assert_eq!(history[2..], ["out compensate 1 unknown", "out compensate 2 success"]);
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_repeated_submit() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        let saga = client.saga("s").step("out").action(Ok.behind(&gate)).step("in").action(Unknown(1));
        let other = client.saga("s").step("else").retry_limit(0);
        assert!(saga.submit().await);
        client.called("s", 1).await;
        assert!(!saga.submit().await, "while it runs");
        assert!(!other.submit().await, "nor does it become another");
        gate.open();
        let ops = ["out action", "in action", "in action"];
        client.expect("s", "succeeded", None, &ops).await;
        assert!(!saga.submit().await, "after its end");
        assert!(!other.submit().await);
        let tasks: i64 =
            sqlx::query_scalar("select count(*) from pgsaga.task").fetch_one(scene.pool()).await.unwrap();
        assert_eq!(tasks, 0, "nothing was queued again");
        client.expect("s", "succeeded", None, &ops).await;
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_empty_urls_succeed_without_a_call() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        client.saga("all").step("a").at("").step("b").at("").submit().await;
        client.expect("all", "succeeded", None, &[]).await;
        assert_eq!(client.history("all").await, ["a action 1 success", "b action 1 success"]);

        client.saga("some").step("out").step("note").action_url("").step("in").submit().await;
        client.expect("some", "succeeded", None, &["out action", "in action"]).await;

        let saga = client.saga("undone").step("note").action_url("").step("out").compensate_url("");
        saga.step("in").action(Refuse("closed".into())).submit().await;
        let ops = ["out action", "in action", "note compensate"];
        client.expect("undone", "failed", Some("in: closed"), &ops).await;
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_headers_come_with_every_try() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let saga = client.saga("s").header("X-Tenant", "7").header("X-Both", "saga");
        let saga = saga.step("out").action(Unknown(1)).compensate(Unknown(1)).step_header("X-Both", "step");
        saga.step("in").action(Refuse("closed".into())).submit().await;
        let ops = ["out action", "out action", "in action", "out compensate", "out compensate"];
        client.expect("s", "failed", Some("in: closed"), &ops).await;
        for call in client.calls("s") {
            let both = if call.branch_id == "out" { "step" } else { "saga" };
            let sent = (call.header("x-tenant"), call.header("x-both"));
            assert_eq!(sent, ("7".into(), both.into()), "{} {}", call.branch_id, call.op);
        }
    }
    scene.healthy().await;
}
