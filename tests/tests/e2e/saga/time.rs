//! Deadlines, starting times and the limits of compensations: all of them on the rows, so no
//! restart changes any.

use std::time::{Duration, Instant};

use Behaviour::{Hang, Ok, Ongoing, Slow, Status, Unknown};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::json;

#[tokio::test]
async fn a_deadline_that_passes_between_tries_unwinds_with_its_reason() {
    let scene = Scene::with_worker().await;
    let saga = scene
        .saga("s")
        .step("stock")
        .step("pay")
        .action(Unknown(999))
        .with("retry_interval_seconds", json!(300));
    saga.column("timeout_to_fail", "'1 second'").insert().await;
    let started = Instant::now();
    // The next try would come in five minutes.
    let ops = ["stock action", "pay action", "pay compensate", "stock compensate"];
    scene.expect("s", "failed", Some("pay: timeout after 1 seconds"), &ops).await;
    assert!(started.elapsed() >= Duration::from_millis(900));
    let deadline: (String, Option<String>) = sqlx::query_as(
        "select step, message from pgsaga.saga_timeline where gid = 's' and kind = 'deadline'",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    assert_eq!(deadline, ("pay".into(), Some("pay: timeout after 1 seconds".into())));
}

#[tokio::test]
async fn a_deadline_that_passes_while_a_call_is_in_flight_waits_for_its_answer_or_its_timeout() {
    let scene = Scene::with_worker().await;
    for (gid, action) in [("answers", Slow(Duration::from_millis(1500))), ("hangs", Hang)] {
        let saga = scene.saga(gid).step("pay").action(action).with("request_timeout_seconds", json!(2.5));
        saga.column("timeout_to_fail", "'500 milliseconds'").insert().await;
    }
    for gid in ["answers", "hangs"] {
        let ops = ["pay action", "pay compensate"];
        scene.expect(gid, "failed", Some("pay: timeout after 0.5 seconds"), &ops).await;
        let calls = scene.participant.calls_for(gid);
        let in_flight = calls[0].ended.unwrap();
        assert!(in_flight <= calls[1].started, "{gid}: the call ended before it was undone");
        assert!(in_flight - calls[0].started >= Duration::from_millis(1400), "{gid}: it was not cut short");
    }
}

#[tokio::test]
async fn a_deadline_does_not_touch_a_saga_that_ends_in_time_nor_one_that_already_unwinds() {
    let scene = Scene::with_worker().await;
    scene.saga("in-time").step("pay").column("timeout_to_fail", "'1 hour'").insert().await;
    scene.expect("in-time", "succeeded", None, &["pay action"]).await;
    let saga = scene
        .saga("unwinds")
        .step("stock")
        .compensate(Unknown(3))
        .step("pay")
        .action(Behaviour::Refuse("no".into()));
    saga.with("retry_interval_seconds", json!(0.3))
        .column("timeout_to_fail", "'600 milliseconds'")
        .insert()
        .await;
    assert_eq!(scene.ended("unwinds").await, ("failed".into(), Some("pay: no".into())));
    scene.healthy().await;
}

/// docs/races.md, R3: only ever `ongoing`, then the deadline: the participant may finish later, so
/// it is undone.
#[tokio::test]
async fn a_step_that_only_ever_said_ongoing_is_undone_after_the_deadline() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").step("pay").action(Ongoing(9999)).with("retry_interval_seconds", json!(0.1));
    saga.column("timeout_to_fail", "'700 milliseconds'").insert().await;
    assert_eq!(scene.ended("s").await, ("failed".into(), Some("pay: timeout after 0.7 seconds".into())));
    assert_eq!(scene.participant.ops_for("s").last().unwrap(), "pay compensate");
    scene.healthy().await;
}

#[tokio::test]
async fn a_saga_starts_at_run_at_and_its_deadline_counts_from_there() {
    let scene = Scene::with_worker().await;
    let saga =
        scene.saga("later").step("pay").column("run_at", "clock_timestamp() + interval '1200 milliseconds'");
    saga.column("timeout_to_fail", "'1 second'").insert().await;
    let inserted = Instant::now();
    scene.expect("later", "succeeded", None, &["pay action"]).await;
    let waited = scene.participant.calls_for("later")[0].started - inserted;
    assert!(waited >= Duration::from_millis(1000), "{waited:?}");
    let counted: f64 = sqlx::query_scalar(
        "select extract(epoch from deadline - run_at)::float8 from pgsaga.saga where gid = 'later'",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    assert!((counted - 1.0).abs() < 0.001, "{counted}");
}

/// A restart of everything, in the middle of the wait, changes nothing.
#[tokio::test]
async fn a_deadline_survives_a_restart_of_everything() {
    let mut scene = Scene::with_worker().await;
    let saga = scene
        .saga("s")
        .step("stock")
        .step("pay")
        .action(Status(500))
        .with("retry_interval_seconds", json!(300));
    saga.column("timeout_to_fail", "'3 seconds'").insert().await;
    eventually(PATIENCE, "both tries are settled", async || {
        (scene.history("s").await.len() == 2).then_some(())
    })
    .await;
    scene.workers[0].kill9();
    scene.workers.clear();
    scene.start_worker(&[]).await;
    let ops = ["stock action", "pay action", "pay compensate", "stock compensate"];
    scene.expect("s", "failed", Some("pay: timeout after 3 seconds"), &ops).await;
}

#[tokio::test]
async fn a_deadline_turns_back_every_branch_of_a_parallel_saga() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene
        .saga("s")
        .step("a")
        .with("after", json!([]))
        .action(Status(503))
        .with("retry_interval_seconds", json!(300));
    let saga = saga
        .step("b")
        .with("after", json!([]))
        .action(Ok.behind(&gate))
        .with("request_timeout_seconds", json!(20));
    saga.step("c").with("after", json!(["a", "b"])).column("timeout_to_fail", "'1 second'").insert().await;
    eventually(PATIENCE, "the saga rolls back", async || {
        scene.status("s").await.filter(|(status, _)| status == "aborting")
    })
    .await;
    assert_eq!(scene.participant.calls_for("s").len(), 2, "what is in flight ends first");
    gate.open();
    assert_eq!(scene.ended("s").await, ("failed".into(), Some("a: timeout after 1 seconds".into())));
    let mut ops = scene.participant.ops_for("s");
    ops.sort();
    assert_eq!(ops, ["a action", "a compensate", "b action", "b compensate"]);
    scene.healthy().await;
}

#[tokio::test]
async fn compensations_have_a_limit_of_their_own_which_makes_the_saga_stuck() {
    let scene = Scene::with_worker().await;
    let saga = scene
        .saga("column")
        .step("stock")
        .compensate(Status(500))
        .step("pay")
        .action(Behaviour::Refuse("no".into()));
    saga.column("compensate_retry_limit", "2").column("retry_limit", "0").insert().await;
    let saga =
        scene.saga("step").step("stock").compensate(Status(500)).with("compensate_retry_limit", json!(1));
    saga.step("pay")
        .action(Behaviour::Refuse("no".into()))
        .column("compensate_retry_limit", "9")
        .insert()
        .await;
    for (gid, limit) in [("column", 2), ("step", 1)] {
        let reason = format!("stock: retry limit {limit} reached");
        assert_eq!(scene.ended(gid).await, ("stuck".into(), Some(reason)));
        let tries = scene.participant.ops_for(gid).iter().filter(|op| *op == "stock compensate").count();
        assert_eq!(tries, limit + 1, "{gid}");
    }
    scene.healthy().await;
}
