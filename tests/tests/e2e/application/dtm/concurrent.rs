//! Sagas whose steps run at the same time, on two workers.

use std::time::Duration;

use Behaviour::{Ok, Refuse, Sequence, Slow, Status};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};

use super::client::Client;

async fn two_workers() -> Scene {
    let mut scene = Scene::with_worker().await;
    scene.start_worker(&[]).await;
    scene
}

#[tokio::test]
async fn saga_concurrent_normal() {
    let scene = two_workers().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        let saga = client.saga("roots").step("a").after([]).action(Ok.behind(&gate));
        saga.step("b").after([]).action(Ok.behind(&gate)).submit().await;
        let saga = client.saga("fan").step("start").step("a").after(["start"]).action(Ok.behind(&gate));
        let saga = saga.step("b").after(["start"]).action(Ok.behind(&gate));
        saga.step("join").after(["a", "b"]).submit().await;
        // Both are in the participant's hands before it answers one.
        client.called("roots", 2).await;
        client.called("fan", 3).await;
        gate.open();
        client.expect_end("roots", "succeeded", None).await;
        client.expect_end("fan", "succeeded", None).await;
        let mut ops = client.ops("roots");
        ops.sort();
        assert_eq!(ops, ["a action", "b action"]);
        let mut ops = client.ops("fan");
        ops[1..3].sort();
        assert_eq!(ops, ["start action", "a action", "b action", "join action"]);
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_concurrent_rollback() {
    let scene = two_workers().await;
    for client in Client::both(&scene) {
        let (forward, backward) = (Gate::new(), Gate::new());
        let saga = client.saga("s").step("a").after([]).compensate(Ok.behind(&backward));
        let saga = saga.step("b").after([]).compensate(Ok.behind(&backward));
        saga.step("c").after([]).action(Refuse("closed".into()).behind(&forward)).submit().await;
        eventually(PATIENCE, "a and b are done", async || {
            (client.history("s").await.len() == 2).then_some(())
        })
        .await;
        forward.open();
        // Both are asked to undo before one has.
        client.called("s", 5).await;
        assert_eq!(client.stands("s").await, "aborting");
        backward.open();
        client.expect_end("s", "failed", Some("c: closed")).await;
        let mut ops = client.ops("s");
        ops.sort();
        assert_eq!(ops, ["a action", "a compensate", "b action", "b compensate", "c action"]);
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_concurrent_order_is_kept_forward_and_backward() {
    let scene = two_workers().await;
    // Long enough to be seen to overlap with what does not wait for it.
    let slow = || Slow(Duration::from_millis(40));
    for client in Client::both(&scene) {
        let saga = client.saga("s").step("d").after(["b", "c"]).action(slow()).compensate(slow());
        let saga = saga.step("a").after([]).action(slow()).compensate(slow());
        let saga = saga.step("b").after(["a"]).action(slow()).compensate(slow());
        let saga = saga.step("c").after(["a"]).action(slow()).compensate(slow());
        saga.step("e").after(["d"]).action(Refuse("closed".into())).submit().await;
        client.expect_end("s", "failed", Some("e: closed")).await;
        assert_eq!(client.calls("s").len(), 9);
        for (first, then) in [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")] {
            let (before, after) = (client.call("s", first, "action"), client.call("s", then, "action"));
            assert!(before.ended.unwrap() <= after.started, "{then} was called before {first} had ended");
        }
        for (first, then) in [("d", "b"), ("d", "c"), ("b", "a"), ("c", "a")] {
            let (before, after) =
                (client.call("s", first, "compensate"), client.call("s", then, "compensate"));
            assert!(before.ended.unwrap() <= after.started, "{then} was undone before {first} was");
        }
    }
    scene.healthy().await;
}

#[tokio::test]
async fn saga_concurrent_one_ongoing() {
    let scene = two_workers().await;
    for client in Client::both(&scene) {
        let gate = Gate::new();
        let ongoing = Sequence(vec![Status(425), Status(425), Ok.behind(&gate)]);
        let saga = client.saga("s").step("slow").after([]).action(ongoing).step("quick").after([]);
        saga.step("then").after(["quick"]).step("join").after(["slow", "then"]).submit().await;
        client.called("s", 5).await;
        eventually(PATIENCE, "all is done but the slow one", async || {
            let history = client.history("s").await;
            (history.len() == 4 && history.contains(&"then action 1 success".into())).then_some(())
        })
        .await;
        assert_eq!(client.stands("s").await, "submitted");
        assert_eq!(client.calls("s").len(), 5, "the join waits");
        gate.open();
        client.expect_end("s", "succeeded", None).await;
        let ops = client.ops("s");
        assert_eq!(ops.iter().filter(|op| *op == "slow action").count(), 3);
        assert_eq!((ops.len(), ops.last().unwrap().as_str()), (6, "join action"));
    }
    scene.healthy().await;
}
