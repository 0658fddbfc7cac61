//! Waiting for a saga's result: the crate's waiter, and a select that is repeated.

use std::time::Duration;

use Behaviour::{Json, Refuse};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate};
use serde_json::{Value, json};

use super::client::{Client, Ended};

/// Waits from before the end: the gate opens once somebody waits.
async fn end_behind(client: &Client<'_>, name: &str, gate: &Gate) -> Ended {
    let (ended, ()) = tokio::join!(client.wait(name, PATIENCE), async {
        client.called(name, 1).await;
        gate.open();
    });
    ended.unwrap_or_else(|status| panic!("{name} is still {status}"))
}

fn ended(status: &str, reason: Option<&str>, result: Option<Value>) -> Ended {
    Ended { status: status.into(), reason: reason.map(Into::into), result }
}

#[tokio::test]
async fn saga_wait_for_the_result_succeeded() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        let answer = Json(200, json!({"receipt": 7})).behind(&gate);
        client.saga("s").step("pay").action(answer).submit().await;
        let expected = ended("succeeded", None, Some(json!({"receipt": 7})));
        assert_eq!(end_behind(&client, "s", &gate).await, expected);
        assert_eq!(client.wait("s", PATIENCE).await, Ok(expected), "who comes later is told, too");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_wait_for_the_result_failed() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        client.saga("s").step("out").step("in").action(Refuse("closed".into()).behind(&gate)).submit().await;
        assert_eq!(end_behind(&client, "s", &gate).await, ended("failed", Some("in: closed"), None));
        assert_eq!(client.ops("s").last().unwrap(), "out compensate", "not told before it was undone");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_wait_for_the_result_stuck() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        let saga = client.saga("s").step("out").compensate(Refuse("already shipped".into()).behind(&gate));
        saga.step("in").action(Refuse("closed".into())).submit().await;
        assert_eq!(end_behind(&client, "s", &gate).await, ended("stuck", Some("out: already shipped"), None));
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_wait_for_the_result_not_yet() {
    let scene = Scene::with_worker().await;
    let soon = Duration::from_millis(150);
    for client in Client::both(&scene) {
        let (forward, backward) = (Gate::new(), Gate::new());
        let saga = client.saga("s").step("out").compensate(Behaviour::Gate(backward.clone()));
        saga.step("in").action(Refuse("closed".into()).behind(&forward)).submit().await;
        client.called("s", 2).await;
        assert_eq!(client.wait("s", soon).await, Err("submitted".into()));
        forward.open();
        client.called("s", 3).await;
        assert_eq!(client.wait("s", soon).await, Err("aborting".into()));
        // It goes on without anybody who waits.
        backward.open();
        assert_eq!(client.wait("s", PATIENCE).await, Ok(ended("failed", Some("in: closed"), None)));
    }
    scene.healthy().await;
}
