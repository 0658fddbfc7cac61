//! The deadline of a saga, and the timeout of a call.

use std::time::Duration;

use Behaviour::{Hang, Ok, Sequence, Slow, Status};
use pgsaga_tests::Behaviour;
use pgsaga_tests::scene::Scene;

use super::client::Client;

#[tokio::test]
async fn saga_timeout_compensates_the_unknown_step() {
    let scene = Scene::with_worker().await;
    let clients = Client::both(&scene);
    for client in &clients {
        // The next try would come in five minutes.
        let saga =
            client.saga("s").timeout_to_fail(Duration::from_secs(1)).retry_interval(Duration::from_secs(300));
        saga.step("out").step("in").action(Status(500)).step("mail").submit().await;
    }
    for client in &clients {
        let ops = ["out action", "in action", "in compensate", "out compensate"];
        client.expect("s", "failed", Some("in: timeout after 1 seconds"), &ops).await;
        let calls = client.calls("s");
        let unwound_after = calls[2].started - calls[0].started;
        assert!(unwound_after >= Duration::from_millis(500), "{unwound_after:?}");
        assert_eq!(client.history("s").await[1], "in action 1 unknown");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_request_timeout_ends_each_call() {
    let scene = Scene::with_worker().await;
    let clients = Client::both(&scene);
    let timeout = Duration::from_millis(300);
    for client in &clients {
        let saga =
            client.saga("s").request_timeout(timeout).step("out").action(Sequence(vec![Hang, Hang, Ok]));
        let saga = saga.step("in").action(Slow(timeout * 2)).step_request_timeout(Duration::from_secs(30));
        saga.submit().await;
    }
    for client in &clients {
        client.expect("s", "succeeded", None, &["out action", "out action", "out action", "in action"]).await;
        assert_eq!(client.history("s").await[..2], ["out action 1 unknown", "out action 2 unknown"]);
        let calls = client.calls("s");
        for (hanging, next) in calls.iter().zip(&calls[1..]).take(2) {
            let lasted = hanging.ended.unwrap() - hanging.started;
            assert!(lasted >= timeout.mul_f64(0.8), "given up after {lasted:?}");
            assert!(lasted < timeout * 10, "given up after {lasted:?}");
            assert!(hanging.ended.unwrap() <= next.started, "tried again while the call still ran");
            assert_eq!(hanging.header("saga-timeout-ms"), "300");
        }
        assert_eq!(calls[3].header("saga-timeout-ms"), "30000");
    }
    scene.healthy().await;
}
