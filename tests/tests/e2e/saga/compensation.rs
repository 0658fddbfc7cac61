//! What is undone, in which order, and what is not.

use std::time::Duration;

use Behaviour::{CloseAfter, CloseBefore, Hang, Ok, Ongoing, Refuse, Sequence, Status, Unknown};
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Behaviour, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_refusal_at_any_step_undoes_the_earlier_ones_in_reverse_and_not_itself() {
    let scene = Scene::with_worker().await;
    let names = ["one", "two", "three", "four"];
    for refused in 0..names.len() {
        let gid = format!("refuse-{refused}");
        let mut saga = scene.saga(&gid);
        for (index, name) in names.iter().enumerate() {
            saga = saga.step(name);
            if index == refused {
                saga = saga.action(Refuse("sold out".into()));
            }
        }
        saga.insert().await;
        let forward = names[..=refused].iter().map(|name| format!("{name} action"));
        let backward = names[..refused].iter().rev().map(|name| format!("{name} compensate"));
        let ops: Vec<String> = forward.chain(backward).collect();
        let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
        scene.expect(&gid, "failed", Some(&format!("{}: sold out", names[refused])), &ops).await;
    }
}

/// As in DTM, where the row asks for it: sequential, parallel, and what was never called.
#[tokio::test]
async fn a_refused_step_is_undone_as_well_where_the_row_says_so() {
    let scene = Scene::with_worker().await;
    let saga = |gid| scene.saga(gid).column("compensate_failed", "true");
    let refused = saga("sequential").step("stock").step("pay").action(Refuse("no money".into())).step("ship");
    refused.insert().await;
    let ops = ["stock action", "pay action", "pay compensate", "stock compensate"];
    scene.expect("sequential", "failed", Some("pay: no money"), &ops).await;
    let parallel = saga("parallel").step("a").with("after", json!([])).action(Refuse("no".into()));
    parallel.step("b").with("after", json!([])).step("c").with("after", json!(["a", "b"])).insert().await;
    assert_eq!(scene.ended("parallel").await, ("failed".into(), Some("a: no".into())));
    let mut ops = scene.participant.ops_for("parallel");
    ops.sort();
    assert_eq!(ops, ["a action", "a compensate", "b action", "b compensate"]);
    let unsent = saga("unsent").step("pay").with("action", json!("http://127.0.0.1:1/"));
    unsent.with("retry_limit", json!(0)).insert().await;
    scene.expect("unsent", "failed", Some("pay: retry limit 0 reached"), &[]).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_retried_with_the_same_key_and_bytes() {
    let scene = Scene::with_worker().await;
    for (gid, behaviour) in [
        ("error-500", Unknown(2)),
        ("work-done-then-reset", Sequence(vec![CloseAfter, CloseAfter])),
        ("reset", Sequence(vec![CloseBefore, CloseBefore])),
        ("hang", Sequence(vec![Hang, Hang])),
    ] {
        scene
            .saga(gid)
            .step("pay")
            .action(behaviour)
            .with("payload", json!({"amount": 12.5}))
            .with("request_timeout_seconds", json!(0.2))
            .insert()
            .await;
        scene.expect(gid, "succeeded", None, &["pay action"; 3]).await;
        let calls = scene.participant.calls_for(gid);
        for (index, call) in calls.iter().enumerate() {
            assert_eq!(call.key, format!("{gid}/pay/action"));
            assert_eq!(call.body, calls[0].body);
            assert_eq!(call.header("saga-attempt"), (index + 1).to_string());
            assert_eq!(call.header("saga-timeout-ms"), "200");
        }
        let history = scene.history(gid).await;
        assert_eq!(history, ["pay action 1 unknown", "pay action 2 unknown", "pay action 3 success"]);
    }
}

#[tokio::test]
async fn a_step_that_may_have_happened_is_compensated_when_a_limit_ends_it() {
    let scene = Scene::with_worker().await;
    for (gid, behaviour) in
        [("always-500", Status(500)), ("done-and-reset", Sequence(vec![CloseAfter; 9])), ("hangs", Hang)]
    {
        let saga = scene.saga(gid).step("stock").step("pay").action(behaviour);
        saga.with("retry_limit", json!(1)).with("request_timeout_seconds", json!(0.2)).insert().await;
        let ops = ["stock action", "pay action", "pay action", "pay compensate", "stock compensate"];
        scene.expect(gid, "failed", Some("pay: retry limit 1 reached"), &ops).await;
    }
}

#[tokio::test]
async fn an_unknown_step_is_compensated_when_it_succeeded_later_and_the_next_refuses() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("pay")
        .action(Unknown(1))
        .step("ship")
        .action(Refuse("no lorry".into()))
        .insert()
        .await;
    let ops = ["pay action", "pay action", "ship action", "pay compensate"];
    scene.expect("s", "failed", Some("ship: no lorry"), &ops).await;
    let compensation = scene.participant.calls_for("s").pop().unwrap();
    assert_eq!(compensation.header("saga-action-key"), "s/pay/action");
    assert_eq!(compensation.key, "s/pay/compensate");
}

/// docs/races.md, R14: a service that answers 409 while the first try still runs.
#[tokio::test]
async fn a_refusal_after_an_unknown_try_is_asked_once_more_before_it_counts() {
    let scene = Scene::with_worker().await;
    let still_running = Sequence(vec![Status(500), Refuse("in progress".into()), Ok]);
    scene.saga("went-through").step("pay").action(still_running).insert().await;
    scene.expect("went-through", "succeeded", None, &["pay action"; 3]).await;

    let refuses = Sequence(vec![Status(500), Refuse("no money".into()), Refuse("no money".into())]);
    scene.saga("refused").step("pay").action(refuses).insert().await;
    let ops = ["pay action", "pay action", "pay action", "pay compensate"];
    scene.expect("refused", "failed", Some("pay: no money"), &ops).await;
}

#[tokio::test]
async fn a_step_that_was_never_reached_is_not_compensated() {
    let mut scene = Scene::new().await;
    let nobody = "http://127.0.0.1:1/nobody-listens";
    scene
        .saga("s")
        .step("stock")
        .step("pay")
        .with("action", json!(nobody))
        .with("retry_limit", json!(1))
        .insert()
        .await;
    scene.start_worker(&[]).await;
    let ops = ["stock action", "stock compensate"];
    scene.expect("s", "failed", Some("pay: retry limit 1 reached"), &ops).await;
    let history = scene.history("s").await;
    assert_eq!(history[1..3], ["pay action 1 unsent", "pay action 2 unsent"]);
}

#[tokio::test]
async fn a_compensation_is_retried_until_it_succeeds_whatever_the_limit_of_actions() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").column("retry_limit", "0").column("retry_interval", "'2 milliseconds'");
    saga.step("pay").compensate(Unknown(6)).step("ship").action(Refuse("no".into())).insert().await;
    let mut ops = vec!["pay action", "ship action"];
    ops.extend(["pay compensate"; 7]);
    scene.expect("s", "failed", Some("ship: no"), &ops).await;
}

#[tokio::test]
async fn a_refused_compensation_makes_the_saga_stuck_with_step_and_reason() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").step("stock").step("pay").compensate(Refuse("already shipped".into()));
    saga.step("ship").action(Refuse("no lorry".into())).insert().await;
    let ops = ["stock action", "pay action", "ship action", "pay compensate"];
    scene.expect("s", "stuck", Some("pay: already shipped"), &ops).await;
    let listed: (String, String) =
        sqlx::query_as("select step, reason from pgsaga.stuck").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(listed, ("pay".to_owned(), "pay: already shipped".to_owned()));
}

#[tokio::test]
async fn ongoing_is_asked_again_after_the_unchanged_interval_and_not_counted() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").column("retry_limit", "0").column("retry_interval", "'100 milliseconds'");
    saga.step("pay").action(Ongoing(4)).insert().await;
    scene.expect("s", "succeeded", None, &["pay action"; 5]).await;
    let calls = scene.participant.calls_for("s");
    let gaps: Vec<Duration> = calls.windows(2).map(|pair| pair[1].started - pair[0].started).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(78)), "{gaps:?}");
    // Doubled, the third would be 320 ms at least and the fourth 640; one of them may have met a
    // busy machine.
    assert!(gaps[2].min(gaps[3]) < Duration::from_millis(310), "{gaps:?}");
}

#[tokio::test]
async fn waits_double_after_an_error() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .column("retry_interval", "'50 milliseconds'")
        .step("pay")
        .action(Unknown(4))
        .insert()
        .await;
    scene.expect("s", "succeeded", None, &["pay action"; 5]).await;
    let calls = scene.participant.calls_for("s");
    for (index, pair) in calls.windows(2).enumerate() {
        let gap = pair[1].started - pair[0].started;
        let least = Duration::from_millis(40 * (1 << index));
        assert!(gap >= least, "try {} came after {gap:?}, at least {least:?} was due", index + 2);
    }
}

#[tokio::test]
async fn a_step_without_a_compensation_has_nothing_to_undo_and_an_empty_url_succeeds_without_a_call() {
    let scene = Scene::with_worker().await;
    let saga =
        scene.saga("s").step("note").with("action", json!("")).step("mail").with("compensate", Value::Null);
    saga.step("pay").with("compensate", json!("")).step("ship").action(Refuse("no".into())).insert().await;
    let ops = ["mail action", "pay action", "ship action", "note compensate"];
    scene.expect("s", "failed", Some("ship: no"), &ops).await;

    scene
        .saga("empty")
        .step("a")
        .with("action", json!(""))
        .step("b")
        .with("action", json!(""))
        .insert()
        .await;
    scene.expect("empty", "succeeded", None, &[]).await;
}

#[tokio::test]
async fn a_compensation_has_its_own_payload_when_it_is_given_one() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").step("pay").with("compensate_payload", json!({"undo": true}));
    saga.step("ship").action(Refuse("no".into())).insert().await;
    scene.expect("s", "failed", Some("ship: no"), &["pay action", "ship action", "pay compensate"]).await;
    let calls = scene.participant.calls_for("s");
    assert_eq!(&calls[0].body[..], br#"{"step": "pay"}"#);
    assert_eq!(&calls[2].body[..], br#"{"undo": true}"#);
}

#[tokio::test]
async fn a_first_failed_step_fails_the_saga_with_nothing_to_undo() {
    let scene = Scene::with_worker().await;
    scene.saga("s").step("pay").action(Refuse("closed".into())).insert().await;
    scene.expect("s", "failed", Some("pay: closed"), &["pay action"]).await;
    eventually(Duration::from_secs(1), "the saga is counted", async || {
        (scene.metric("pgsaga_sagas_finished_total{queue=\"default\",status=\"failed\"}").await == 1.0)
            .then_some(())
    })
    .await;
}
