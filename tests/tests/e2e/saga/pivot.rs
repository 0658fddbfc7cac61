//! The point of no return.

use std::time::Duration;

use Behaviour::{Hang, Ok, Ongoing, Refuse, Sequence, Status, Unknown};
use pgsaga_tests::scene::{PATIENCE, SagaSpec, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::{Value, json};

/// `stock`, then the pivot `pay`, then `ship`, which needs no compensation.
fn saga<'a>(scene: &'a Scene, gid: &str, pay: Behaviour, ship: Behaviour) -> SagaSpec<'a> {
    let saga = scene.saga(gid).step("stock").step("pay").with("pivot", json!(true)).action(pay);
    saga.step("ship").with("compensate", Value::Null).action(ship)
}

async fn abort(scene: &Scene, gid: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select pgsaga.abort($1, 'changed my mind')").bind(gid).fetch_one(scene.pool()).await
}

#[tokio::test]
async fn a_pivot_that_refuses_rolls_the_saga_back() {
    let scene = Scene::with_worker().await;
    saga(&scene, "s", Refuse("no money".into()), Ok).insert().await;
    scene
        .expect("s", "failed", Some("pay: no money"), &["stock action", "pay action", "stock compensate"])
        .await;
}

#[tokio::test]
async fn after_the_pivot_steps_are_retried_for_ever_and_deadlines_are_void() {
    let scene = Scene::with_worker().await;
    let saga = saga(&scene, "s", Ok, Unknown(5))
        .with("retry_limit", json!(1))
        .with("retry_interval_seconds", json!(0.2));
    saga.column("timeout_to_fail", "'300 milliseconds'").insert().await;
    assert_eq!(scene.ended("s").await, ("succeeded".into(), None));
    assert_eq!(scene.participant.ops_for("s").iter().filter(|op| *op == "ship action").count(), 6);
    scene.healthy().await;
}

#[tokio::test]
async fn a_refusal_after_the_pivot_is_stuck_and_nothing_is_undone() {
    let scene = Scene::with_worker().await;
    saga(&scene, "s", Ok, Refuse("address unknown".into())).insert().await;
    let ops = ["stock action", "pay action", "ship action"];
    scene.expect("s", "stuck", Some("ship: address unknown"), &ops).await;
}

#[tokio::test]
async fn an_abort_after_the_pivot_is_refused() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    saga(&scene, "s", Ok, Ok.behind(&gate)).insert().await;
    eventually(PATIENCE, "the saga is past its pivot", async || {
        (scene.history("s").await.len() == 2).then_some(())
    })
    .await;
    let refused = abort(&scene, "s").await.unwrap_err();
    let refused = refused.as_database_error().unwrap();
    assert_eq!(refused.code().unwrap(), "55000");
    assert_eq!(refused.message(), r#"saga s is past its pivot "pay": it only goes forward"#);
    gate.open();
    scene.expect("s", "succeeded", None, &["stock action", "pay action", "ship action"]).await;
}

/// Also where an earlier abort had waited for the pivot, which then succeeded.
#[tokio::test]
async fn an_abort_that_waited_for_the_pivot_is_over_when_the_pivot_stands() {
    let scene = Scene::with_worker().await;
    let (pay, ship) = (Gate::new(), Gate::new());
    saga(&scene, "s", Ok.behind(&pay), Ok.behind(&ship)).insert().await;
    scene.participant.wait_for_calls(2, PATIENCE).await;
    assert_eq!(abort(&scene, "s").await.unwrap(), "submitted");
    pay.open();
    scene.participant.wait_for_calls(3, PATIENCE).await;
    assert_eq!(abort(&scene, "s").await.unwrap_err().as_database_error().unwrap().code().unwrap(), "55000");
    ship.open();
    scene.expect("s", "succeeded", None, &["stock action", "pay action", "ship action"]).await;
}

/// The steps behind the pivot are called: the saga goes forward.
#[tokio::test]
async fn an_abort_that_waited_for_the_pivot_of_a_parallel_saga_is_over_when_the_pivot_stands() {
    let scene = Scene::with_worker().await;
    let pay = Gate::new();
    let saga = scene.saga("s").step("a").with("after", json!([])).step("b").with("after", json!([]));
    let saga = saga.step("pay").with("after", json!(["a", "b"])).with("pivot", json!(true));
    let saga = saga.action(Ok.behind(&pay)).step("ship").with("compensate", Value::Null);
    saga.insert().await;
    scene.participant.wait_for_calls(3, PATIENCE).await;
    assert_eq!(abort(&scene, "s").await.unwrap(), "submitted");
    pay.open();
    assert_eq!(scene.ended("s").await, ("succeeded".into(), None));
    assert_eq!(scene.participant.ops_for("s")[2..], ["pay action", "ship action"]);
    scene.healthy().await;
}

/// A person's retry after the pivot, before a deadline that is void: the step is called until it
/// answers.
#[tokio::test]
async fn a_retry_after_the_pivot_knows_no_deadline() {
    let scene = Scene::with_worker().await;
    let ship = Sequence(vec![Refuse("closed".into()), Status(503), Status(503), Status(503), Ok]);
    let saga = saga(&scene, "s", Ok, ship).with("retry_interval_seconds", json!(0.5));
    saga.column("timeout_to_fail", "'1500 milliseconds'").insert().await;
    assert_eq!(scene.ended("s").await, ("stuck".into(), Some("ship: closed".into())));
    sqlx::query("select pgsaga.retry('s')").execute(scene.pool()).await.unwrap();
    assert_eq!(scene.ended("s").await, ("succeeded".into(), None));
    assert_eq!(scene.participant.ops_for("s").iter().filter(|op| *op == "ship action").count(), 5);
    scene.healthy().await;
}

/// docs/races.md, R13: the pivot's outcome is unknown when the abort or the deadline comes.
#[tokio::test]
async fn an_abort_or_deadline_waits_for_the_definite_outcome_of_a_pivot_that_was_called() {
    let scene = Scene::with_worker().await;
    for (kind, pay, status) in [
        ("stands", Sequence(vec![Status(500), Status(500), Ok]), "succeeded"),
        ("ongoing", Ongoing(3), "succeeded"),
        ("hangs", Sequence(vec![Hang, Hang, Ok]), "succeeded"),
        ("refuses", Sequence(vec![Status(500), Refuse("no".into()), Refuse("no".into())]), "failed"),
    ] {
        for how in ["abort", "deadline"] {
            let gid = format!("{kind}-{how}");
            let saga = saga(&scene, &gid, pay.clone(), Ok);
            let saga = saga
                .column("request_timeout", "'500 milliseconds'")
                .column("retry_interval", "'400 milliseconds'");
            let saga = saga.column("retry_limit", "0");
            if how == "deadline" {
                saga.column("timeout_to_fail", "'200 milliseconds'").insert().await;
                continue;
            }
            saga.insert().await;
            eventually(PATIENCE, "the pivot was called", async || {
                scene.participant.ops_for(&gid).contains(&"pay action".to_owned()).then_some(())
            })
            .await;
            assert_eq!(abort(&scene, &gid).await.unwrap(), "submitted", "{gid}: the pivot decides");
        }
        for how in ["abort", "deadline"] {
            let gid = format!("{kind}-{how}");
            let (ended, reason) = scene.ended(&gid).await;
            assert_eq!(ended, status, "{gid}: {reason:?} {:?}", scene.history(&gid).await);
            let ops = scene.participant.ops_for(&gid);
            if status == "failed" {
                let expected = if how == "abort" {
                    "pay: aborted: changed my mind"
                } else {
                    "pay: timeout after 0.2 seconds"
                };
                assert_eq!(reason.as_deref(), Some(expected), "{gid}");
                // It was unknown once, so it is undone itself, too.
                assert_eq!(ops[ops.len() - 2..], ["pay compensate", "stock compensate"], "{gid}: {ops:?}");
            } else {
                assert!(ops.iter().all(|op| !op.ends_with("compensate")), "{gid}: {ops:?}");
            }
        }
    }
    scene.healthy().await;
}

/// A pivot that never left this worker can be rolled back like any step.
#[tokio::test]
async fn a_pivot_that_was_never_called_does_not_hold_up_an_abort() {
    let scene = Scene::with_worker().await;
    let saga = scene
        .saga("s")
        .step("stock")
        .step("pay")
        .with("pivot", json!(true))
        .with("action", json!("http://127.0.0.1:1/"));
    saga.with("retry_interval_seconds", json!(300)).insert().await;
    eventually(PATIENCE, "the pivot could not be reached", async || {
        (scene.history("s").await.len() == 2).then_some(())
    })
    .await;
    abort(&scene, "s").await.unwrap();
    assert_eq!(scene.ended("s").await, ("failed".into(), Some("pay: aborted: changed my mind".into())));
    assert_eq!(scene.participant.ops_for("s"), ["stock action", "stock compensate"]);
    scene.healthy().await;
}

#[tokio::test]
async fn a_parallel_saga_has_a_pivot_too() {
    let scene = Scene::with_worker().await;
    for (gid, pay, ship) in
        [("well", Ok, Ok), ("refused", Refuse("no".into()), Ok), ("later", Ok, Refuse("never".into()))]
    {
        let saga = scene.saga(gid).step("a").with("after", json!([])).step("b").with("after", json!([]));
        let saga = saga.step("pay").with("after", json!(["a", "b"])).with("pivot", json!(true)).action(pay);
        let saga =
            saga.step("ship").with("after", json!(["pay"])).with("compensate", Value::Null).action(ship);
        saga.step("mail").with("after", json!(["pay"])).with("compensate", Value::Null).insert().await;
    }
    assert_eq!(scene.ended("well").await.0, "succeeded");
    assert_eq!(scene.ended("refused").await, ("failed".into(), Some("pay: no".into())));
    assert_eq!(scene.ended("later").await, ("stuck".into(), Some("ship: never".into())));
    eventually(Duration::from_secs(10), "the other branch goes on", async || {
        scene.participant.ops_for("later").contains(&"mail action".to_owned()).then_some(())
    })
    .await;
    assert!(scene.participant.ops_for("later").iter().all(|op| !op.ends_with("compensate")));
    scene.healthy().await;
}
