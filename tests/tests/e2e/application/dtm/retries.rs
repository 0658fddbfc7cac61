//! When an op is tried again, and how often.

use std::time::Duration;

use Behaviour::{Ok, Sequence, Status, Unknown};
use pgsaga_tests::Behaviour;
use pgsaga_tests::scene::Scene;

use super::client::Client;

const INTERVAL: Duration = Duration::from_millis(60);
/// Waits vary by 20 %.
const LEAST: f64 = 0.78;

/// The waits between the calls of a saga, in intervals.
fn waits(client: &Client<'_>, name: &str) -> Vec<f64> {
    let calls = client.calls(name);
    let gap = |pair: &[pgsaga_tests::Call]| pair[1].started - pair[0].started;
    calls.windows(2).map(|pair| gap(pair).as_secs_f64() / INTERVAL.as_secs_f64()).collect()
}

#[tokio::test]
async fn saga_retry_after_ongoing_keeps_the_interval() {
    let scene = Scene::with_worker().await;
    let clients = Client::both(&scene);
    // Nor does an error afterwards wait longer.
    let ongoing = Sequence([vec![Status(425); 6], vec![Status(500)]].concat());
    for client in &clients {
        client.saga("s").retry_interval(INTERVAL).step("pay").action(ongoing.clone()).submit().await;
    }
    for client in &clients {
        client.expect("s", "succeeded", None, &["pay action"; 8]).await;
        let waits = waits(client, "s");
        assert!(waits.iter().all(|wait| *wait >= LEAST), "{waits:?}");
        // Doubled, they would be 16 and 32, and the one after the error 64. A busy machine may hold
        // up one.
        assert!(waits[4].min(waits[5]) < 12.0, "{waits:?}");
        assert!(waits[6] < 40.0, "{waits:?}");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_retry_after_an_error_doubles_it() {
    let scene = Scene::with_worker().await;
    let clients = Client::both(&scene);
    for client in &clients {
        client.saga("s").retry_interval(INTERVAL).step("pay").action(Unknown(4)).submit().await;
    }
    for client in &clients {
        client.expect("s", "succeeded", None, &["pay action"; 5]).await;
        let waits = waits(client, "s");
        for (wait, due) in waits.iter().zip([1.0, 2.0, 4.0, 8.0]) {
            assert!(*wait >= due * LEAST, "{wait} where {due} was due: {waits:?}");
        }
        // Quadrupled, it would be 64.
        assert!(waits[3] < 40.0, "{waits:?}");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_retry_limit_reached() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        // The limit is the actions': the compensation is tried until it succeeds.
        let saga =
            client.saga("s").retry_limit(2).step("out").step("in").action(Status(500)).compensate(Unknown(3));
        saga.retry_interval(Duration::from_millis(4)).submit().await;
        let mut ops = vec!["out action"];
        ops.extend(["in action"; 3]);
        ops.extend(["in compensate"; 4]);
        ops.push("out compensate");
        client.expect("s", "failed", Some("in: retry limit 2 reached"), &ops).await;
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_retry_limit_not_reached() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        // Each op has tries of its own, and those that are ongoing are not counted.
        let in_turn = Sequence(vec![Status(425), Status(500), Status(425), Status(500), Status(425), Ok]);
        let saga = client.saga("s").retry_limit(2).step("out").action(Unknown(2)).step("in").action(in_turn);
        saga.retry_interval(Duration::from_millis(4)).submit().await;
        let ops = [["out action"; 3].as_slice(), &["in action"; 6]].concat();
        client.expect("s", "succeeded", None, &ops).await;
    }
    scene.healthy().await;
}
