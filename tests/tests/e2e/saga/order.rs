//! Steps in any order: forward by what they wait for, backward in its reverse, independent ones at
//! the same time.

use std::time::Duration;

use Behaviour::{Ok, Ongoing, Refuse, Unknown};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::json;

/// Where in the calls of a saga an op came first.
fn place(ops: &[String], op: &str) -> usize {
    ops.iter().position(|other| other == op).unwrap_or_else(|| panic!("{op} is not in {ops:?}"))
}

fn assert_before(ops: &[String], pairs: &[(&str, &str)]) {
    for (first, second) in pairs {
        assert!(place(ops, first) < place(ops, second), "{first} before {second} in {ops:?}");
    }
}

#[tokio::test]
async fn a_diamond_runs_forward_in_order_and_backward_in_its_reverse() {
    let scene = Scene::with_worker().await;
    for (gid, last) in [("well", Ok), ("refused", Refuse("no".into()))] {
        scene
            .saga(gid)
            .step("a")
            .step("b")
            .with("after", json!(["a"]))
            .step("c")
            .with("after", json!(["a"]))
            .step("d")
            .with("after", json!(["b", "c"]))
            .action(last)
            .insert()
            .await;
    }
    assert_eq!(scene.ended("well").await, ("succeeded".into(), None));
    assert_eq!(scene.ended("refused").await, ("failed".into(), Some("d: no".into())));
    let forward = [
        ("a action", "b action"),
        ("a action", "c action"),
        ("b action", "d action"),
        ("c action", "d action"),
    ];
    let well = scene.participant.ops_for("well");
    assert_eq!(well.len(), 4);
    assert_before(&well, &forward);
    let refused = scene.participant.ops_for("refused");
    assert_eq!(refused.len(), 7, "{refused:?}");
    assert_before(&refused, &forward);
    assert_before(
        &refused,
        &[("b compensate", "a compensate"), ("c compensate", "a compensate"), ("d action", "b compensate")],
    );
    scene.healthy().await;
}

#[tokio::test]
async fn steps_may_wait_for_steps_that_are_listed_later() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("last")
        .with("after", json!(["first"]))
        .step("first")
        .with("after", json!([]))
        .insert()
        .await;
    scene.expect("s", "succeeded", None, &["first action", "last action"]).await;
}

#[tokio::test]
async fn independent_steps_run_at_the_same_time() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let mut saga = scene.saga("s");
    for name in ["a", "b", "c"] {
        saga = saga.step(name).with("after", json!([])).action(Ok.behind(&gate));
    }
    saga.insert().await;
    // All three are in the participant's hands before it answers one.
    scene.participant.wait_for_calls(3, PATIENCE).await;
    gate.open();
    assert_eq!(scene.ended("s").await.0, "succeeded");
    scene.healthy().await;
}

#[tokio::test]
async fn what_is_in_flight_ends_before_the_unwind_and_is_undone_with_it() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").step("slow").with("after", json!([])).action(Ok.behind(&gate));
    saga.step("refused").with("after", json!([])).action(Refuse("no".into())).insert().await;
    eventually(PATIENCE, "the saga rolls back", async || {
        scene.status("s").await.filter(|(status, _)| status == "aborting")
    })
    .await;
    assert_eq!(scene.participant.calls_for("s").len(), 2, "nothing is undone while a call is in flight");
    gate.open();
    assert_eq!(scene.ended("s").await, ("failed".into(), Some("refused: no".into())));
    assert_eq!(scene.participant.ops_for("s").last().unwrap(), "slow compensate");
    scene.healthy().await;
}

/// A step that waits half a minute for its next try does not hold up the unwind.
#[tokio::test]
async fn a_step_that_waits_for_a_retry_is_not_tried_again_once_the_saga_turns_back() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").step("erring").with("after", json!([])).action(Unknown(99));
    let saga = saga.with("retry_interval_seconds", json!(300));
    saga.step("refused").with("after", json!([])).action(Refuse("no".into()).behind(&gate)).insert().await;
    eventually(PATIENCE, "the first try is settled", async || {
        (scene.history("s").await == ["erring action 1 unknown"]).then_some(())
    })
    .await;
    gate.open();
    assert_eq!(scene.ended("s").await.0, "failed");
    let ops = scene.participant.ops_for("s");
    assert_eq!(ops.iter().filter(|op| *op == "erring action").count(), 1);
    assert_eq!(ops.last().unwrap(), "erring compensate", "it may have taken effect");
    scene.healthy().await;
}

#[tokio::test]
async fn one_branch_that_is_ongoing_holds_up_only_what_waits_for_it() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("slow")
        .with("after", json!([]))
        .action(Ongoing(3))
        .step("quick")
        .with("after", json!([]))
        .step("after-quick")
        .with("after", json!(["quick"]))
        .step("join")
        .with("after", json!(["slow", "after-quick"]))
        .insert()
        .await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    let ops = scene.participant.ops_for("s");
    assert_eq!(ops.iter().filter(|op| *op == "slow action").count(), 4);
    assert_before(
        &ops,
        &[
            ("quick action", "after-quick action"),
            ("after-quick action", "join action"),
            ("slow action", "join action"),
        ],
    );
    scene.healthy().await;
}

/// docs/races.md, R7: many pairs of steps that end at the same moment on two workers, each pair
/// with a join: none is lost, none doubled.
#[tokio::test]
async fn two_steps_that_settle_at_the_same_moment_on_two_workers_neither_lose_nor_double_the_join() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    for n in 0..60 {
        let mut saga = scene.saga(&format!("s{n}"));
        for name in ["a", "b", "c", "d"] {
            saga = saga.step(name).with("after", json!([])).action(Ok.behind(&gate));
        }
        saga.step("join")
            .with("after", json!(["a", "b", "c", "d"]))
            .with("request_timeout_seconds", json!(30))
            .insert()
            .await;
    }
    for _ in 0..2 {
        scene.start_worker(&["--concurrency", "240"]).await;
    }
    scene.participant.wait_for_calls(100, PATIENCE).await;
    gate.open();
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("succeeded").await, 60);
    for n in 0..60 {
        let ops = scene.participant.ops_for(&format!("s{n}"));
        assert_eq!(ops.iter().filter(|op| *op == "join action").count(), 1, "saga {n}: {ops:?}");
    }
    assert!(scene.metric("pgsaga_claimed_total").await >= 300.0);
    scene.healthy().await;
}

#[tokio::test]
async fn a_thousand_parallel_steps_in_one_saga_work_forward_and_backward() {
    let mut scene = Scene::new().await;
    scene.start_worker(&[]).await;
    scene.start_worker(&[]).await;
    for (gid, last) in [("well", Ok), ("refused", Refuse("no".into()))] {
        let mut saga = scene.saga(gid);
        let names: Vec<String> = (0..999).map(|n| format!("n{n}")).collect();
        for name in &names {
            saga = saga.step(name).with("after", json!([]));
        }
        saga.step("join").with("after", json!(names)).action(last).insert().await;
    }
    scene.all_ended(Duration::from_secs(60)).await;
    assert_eq!(scene.ended("well").await.0, "succeeded");
    assert_eq!(scene.ended("refused").await.0, "failed");
    let ops = scene.participant.ops_for("well");
    assert_eq!((ops.len(), ops.last().unwrap().as_str()), (1000, "join action"));
    assert_eq!(scene.participant.ops_for("refused").len(), 1999);
    scene.healthy().await;
}

/// A worker that dies in the middle of a parallel saga: what it held goes on elsewhere, and the
/// join comes once.
#[tokio::test]
async fn a_parallel_saga_survives_the_death_of_a_worker() {
    let mut scene = Scene::with_worker().await;
    let gate = Gate::new();
    let mut saga = scene.saga("s");
    for name in ["a", "b", "c"] {
        saga = saga
            .step(name)
            .with("after", json!([]))
            .action(Ok.behind(&gate))
            .with("request_timeout_seconds", json!(20));
    }
    saga.step("join").with("after", json!(["a", "b", "c"])).insert().await;
    scene.participant.wait_for_calls(3, PATIENCE).await;
    scene.workers[0].kill9();
    gate.open();
    scene.start_worker(&[]).await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    let ops = scene.participant.ops_for("s");
    assert_eq!(ops.iter().filter(|op| *op == "join action").count(), 1);
    assert_eq!(ops.len(), 7, "each of the three was called again: {ops:?}");
    scene.healthy().await;
}
