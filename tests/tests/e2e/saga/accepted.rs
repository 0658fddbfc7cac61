//! Calls that a participant accepts, with 202 and `Saga-Wait-Seconds`, and whose end is reported
//! later.

use std::time::Duration;

use Behaviour::{Ok, Raw, Refuse, Sequence, Status};
use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use pgsaga_worker::{Call, HandlerError, Participant};
use serde_json::{Value, json};
use sqlx::Connection as _;

/// 202: the end is reported within so many seconds.
fn accepts(seconds: &str) -> Behaviour {
    let headers = vec![("saga-wait-seconds".to_owned(), seconds.to_owned())];
    Raw { status: 202, headers, body: b"queued".to_vec() }
}

/// Waits until the saga has so many events.
async fn has_events(scene: &Scene, gid: &str, count: i64) {
    eventually(PATIENCE, &format!("{count} events of {gid}"), async || {
        let events = "select count(*) from pgsaga.saga_timeline where gid = $1";
        let found: i64 = sqlx::query_scalar(events).bind(gid).fetch_one(scene.pool()).await.unwrap();
        (found == count).then_some(())
    })
    .await;
}

async fn waits(scene: &Scene, gid: &str) {
    eventually(PATIENCE, &format!("{gid} waits"), async || {
        let waits = "select count(*) from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id
                     where s.gid = $1 and t.worker is null and t.wait_ends_at > now()";
        let waiting: i64 = sqlx::query_scalar(waits).bind(gid).fetch_one(scene.pool()).await.unwrap();
        (waiting == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_accepted_is_not_asked_again_before_its_wait_has_ended() {
    let scene = Scene::with_worker().await;
    scene.saga("told").step("label").action(accepts("86400")).step("ship").insert().await;
    waits(&scene, "told").await;
    scene.complete("'told', 'label', 'success'").await.unwrap();
    scene.expect("told", "succeeded", None, &["label action", "ship action"]).await;
    let asked = Sequence(vec![accepts("1.2"), Ok]);
    scene.saga("asked").step("label").action(asked).insert().await;
    scene.expect("asked", "succeeded", None, &["label action", "label action"]).await;
    let calls = scene.participant.calls_for("asked");
    let pause = calls[1].started - calls[0].started;
    assert!(pause >= Duration::from_millis(1200), "{pause:?}");
    let history = ["label action 1 ongoing", "label action 2 success"];
    assert_eq!(scene.history("asked").await, history);
}

#[tokio::test]
async fn a_compensation_may_be_accepted_as_well() {
    let scene = Scene::with_worker().await;
    for (gid, outcome, status) in
        [("well", "'success'", "failed"), ("ill", "'failure', comment => 'it is gone'", "stuck")]
    {
        let saga = scene.saga(gid).step("stock").compensate(accepts("86400")).step("pay");
        saga.action(Refuse("no money".into())).insert().await;
        waits(&scene, gid).await;
        let complete = format!("'{gid}', 'stock', {outcome}, op => 'compensate'");
        scene.complete(&complete).await.unwrap();
        let reason = if gid == "well" { "pay: no money" } else { "stock: it is gone" };
        scene.expect(gid, status, Some(reason), &["stock action", "pay action", "stock compensate"]).await;
    }
    // Asked again after a person's retry, which forgets what was reported, and completed again.
    sqlx::query("select pgsaga.retry('ill')").execute(scene.pool()).await.unwrap();
    eventually(PATIENCE, "it is called again", async || {
        (scene.participant.calls_for("ill").len() == 4).then_some(())
    })
    .await;
    waits(&scene, "ill").await;
    scene.complete("'ill', 'stock', 'success', op => 'compensate'").await.unwrap();
    assert_eq!(scene.ended("ill").await, ("failed".into(), Some("pay: no money".into())));
    scene.healthy().await;
}

/// The report is there before the response, whatever the response says.
#[tokio::test]
async fn a_report_overtakes_the_response_and_decides() {
    let scene = Scene::with_worker().await;
    let reported = [("success", "'success'"), ("failure", "'failure', comment => 'no'")];
    let responses = [
        ("accepted", accepts("86400")),
        ("success", Ok),
        ("refused", Refuse("never".into())),
        ("unknown", Status(500)),
        ("unsent", Status(429)),
        ("ongoing", Status(425)),
    ];
    for (said, response) in responses {
        for (outcome, arguments) in reported {
            let gid = format!("{said}-{outcome}");
            let gate = Gate::new();
            let saga = scene.saga(&gid).step("label").action(response.clone().behind(&gate)).step("ship");
            saga.insert().await;
            eventually(PATIENCE, "the call is made", async || {
                (!scene.participant.calls_for(&gid).is_empty()).then_some(())
            })
            .await;
            scene.complete(&format!("'{gid}', 'label', {arguments}")).await.unwrap();
            gate.open();
            let (status, reason, ops): (_, _, &[&str]) = match (outcome, said) {
                ("success", _) => ("succeeded", None, &["label action", "ship action"]),
                // Nobody knows which of the two is right, or what the call did.
                (_, "success" | "unknown") => {
                    ("failed", Some("label: no"), &["label action", "label compensate"])
                }
                _ => ("failed", Some("label: no"), &["label action"]),
            };
            scene.expect(&gid, status, reason, ops).await;
        }
    }
}

#[tokio::test]
async fn a_pivot_whose_call_and_report_disagree_is_stuck() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").step("stock").step("pay").with("pivot", json!(true));
    let saga = saga.action(Ok.behind(&gate)).step("ship").with("compensate", Value::Null);
    saga.insert().await;
    scene.participant.wait_for_calls(2, PATIENCE).await;
    scene.complete("'s', 'pay', 'failure', comment => 'no money'").await.unwrap();
    gate.open();
    let reason = Some("pay: the call succeeded, and its completion is a failure: no money");
    scene.expect("s", "stuck", reason, &["stock action", "pay action"]).await;
    // A person has seen to it that the participant did it.
    sqlx::query("select pgsaga.skip('s', 'pay', 'it was paid')").execute(scene.pool()).await.unwrap();
    scene.expect("s", "succeeded", None, &["stock action", "pay action", "ship action"]).await;
}

/// It was called before, and what that came to is not known.
#[tokio::test]
async fn a_reported_failure_after_an_unknown_try_is_undone() {
    let scene = Scene::with_worker().await;
    let label = Sequence(vec![Status(500), accepts("86400")]);
    scene.saga("s").step("label").action(label).step("ship").insert().await;
    waits(&scene, "s").await;
    scene.complete("'s', 'label', 'failure', comment => 'no'").await.unwrap();
    let ops = ["label action", "label action", "label compensate"];
    scene.expect("s", "failed", Some("label: no"), &ops).await;
}

#[tokio::test]
async fn an_op_is_completed_from_its_first_call_on() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").step("label").with("retry_interval_seconds", json!(300));
    saga.action(Status(500)).step("ship").insert().await;
    has_events(&scene, "s", 1).await;
    let early = scene.complete("'s', 'ship', 'success'").await.unwrap_err();
    assert_eq!(early.as_database_error().unwrap().code().unwrap(), "55000");
    scene.complete("'s', 'label', 'success'").await.unwrap();
    scene.expect("s", "succeeded", None, &["label action", "ship action"]).await;
    let late = scene.complete("'s', 'ship', 'success'").await.unwrap_err();
    assert_eq!(late.as_database_error().unwrap().code().unwrap(), "55000");
}

#[tokio::test]
async fn a_bad_header_counts_as_none_and_the_history_says_so() {
    let scene = Scene::with_worker().await;
    for (gid, header) in [("words", "a day"), ("zero", "0"), ("long", "31536001"), ("endless", "inf")] {
        scene.saga(gid).step("label").action(Sequence(vec![accepts(header), Ok])).insert().await;
        scene.expect(gid, "succeeded", None, &["label action", "label action"]).await;
        let said = format!(
            "Saga-Wait-Seconds: found \"{header}\"; allowed: from 0.001 to 31,536,000 seconds; queued"
        );
        assert_eq!(scene.messages(gid).await[0], said);
    }
}

#[tokio::test]
async fn an_abort_or_a_deadline_ends_the_wait_of_what_was_accepted() {
    let scene = Scene::with_worker().await;
    scene.saga("abort").step("label").action(accepts("86400")).insert().await;
    let saga = scene.saga("deadline").step("label").action(accepts("86400"));
    saga.column("timeout_to_fail", "'500 milliseconds'").insert().await;
    waits(&scene, "abort").await;
    sqlx::query("select pgsaga.abort('abort', 'no need')").execute(scene.pool()).await.unwrap();
    let ops = ["label action", "label compensate"];
    scene.expect("abort", "failed", Some("label: aborted: no need"), &ops).await;
    scene.expect("deadline", "failed", Some("label: timeout after 0.5 seconds"), &ops).await;
}

/// It holds up its own saga, and nobody else.
#[tokio::test]
async fn a_report_in_an_open_transaction_counts_with_its_commit() {
    let scene = Scene::with_worker().await;
    for (gid, commits) in [("committed", true), ("rolled-back", false)] {
        let gate = Gate::new();
        scene.saga(gid).step("label").action(Ok.behind(&gate)).step("ship").insert().await;
        eventually(PATIENCE, "the call is made", async || {
            (!scene.participant.calls_for(gid).is_empty()).then_some(())
        })
        .await;
        let mut open = scene.pool().begin().await.unwrap();
        let complete = format!("select pgsaga.complete('{gid}', 'label', 'failure', comment => 'no')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(complete)).execute(&mut *open).await.unwrap();
        gate.open();
        for nth in 0..20 {
            let other = format!("{gid}-{nth}");
            scene.saga(&other).step("a").step("b").insert().await;
            assert_eq!(scene.ended(&other).await.0, "succeeded");
        }
        assert_eq!(scene.participant.ops_for(gid), ["label action"], "nothing is settled before the end");
        if commits {
            open.commit().await.unwrap();
            scene.expect(gid, "failed", Some("label: no"), &["label action", "label compensate"]).await;
        } else {
            open.rollback().await.unwrap();
            scene.expect(gid, "succeeded", None, &["label action", "ship action"]).await;
        }
    }
}

#[tokio::test]
async fn under_repeatable_read_a_report_that_missed_a_change_is_repeated() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").step("label").action(Ok.behind(&gate)).step("ship").action(accepts("86400"));
    saga.insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let mut session = sqlx::PgConnection::connect(scene.db.url()).await.unwrap();
    let begin = "begin isolation level repeatable read; select from pgsaga.saga";
    sqlx::raw_sql(begin).execute(&mut session).await.unwrap();
    gate.open();
    // The next step's call is made in the row of the step before it, which this snapshot does not
    // see.
    waits(&scene, "s").await;
    let complete = "select pgsaga.complete('s', 'ship', 'success')";
    let refused = sqlx::raw_sql(complete).execute(&mut session).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "40001");
    sqlx::raw_sql("rollback; begin isolation level repeatable read").execute(&mut session).await.unwrap();
    sqlx::raw_sql(complete).execute(&mut session).await.unwrap();
    sqlx::raw_sql("commit").execute(&mut session).await.unwrap();
    scene.expect("s", "succeeded", None, &["label action", "ship action"]).await;
}

/// What it held was called; nobody knows what came of it, and then somebody reports it.
#[tokio::test]
async fn a_report_reaches_the_saga_of_a_worker_that_died() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    for gid in ["well", "ill"] {
        scene.saga(gid).step("label").action(Ok.behind(&gate)).step("ship").insert().await;
    }
    scene.saga("waits").step("approval").waits(86_400.0).step("ship").insert().await;
    scene.start_worker(&[]).await.kill9();
    scene.start_worker(&[]).await;
    scene.participant.wait_for_calls(2, PATIENCE).await;
    scene.workers.last_mut().unwrap().kill9();
    scene.complete("'well', 'label', 'success'").await.unwrap();
    scene.complete("'ill', 'label', 'failure', comment => 'no'").await.unwrap();
    scene.complete("'waits', 'approval', 'success'").await.unwrap();
    gate.open();
    scene.start_worker(&[]).await;
    for (gid, status) in [("well", "succeeded"), ("ill", "failed"), ("waits", "succeeded")] {
        assert_eq!(scene.ended(gid).await.0, status, "{gid}: {:?}", scene.history(gid).await);
    }
    let history = ["label action 1 unknown", "label action 2 failure", "label compensate 1 success"];
    assert_eq!(scene.history("ill").await, history);
    let history = ["approval action 1 ongoing", "approval action 2 success", "ship action 1 success"];
    assert_eq!(scene.history("waits").await, history);
    scene.healthy().await;
}

#[tokio::test]
async fn a_handler_in_the_process_accepts_as_well() {
    let scene = Scene::new().await;
    let participant = Participant::new("press").action("label", |_: Call<()>| async {
        Err::<(), _>(HandlerError::accepted(Duration::from_secs(86_400)))
    });
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(participant)).await;
    let saga = scene.saga("s").step("label").with("action", json!("participant:press/label"));
    saga.with("payload", Value::Null).insert().await;
    waits(&scene, "s").await;
    scene.complete("'s', 'label', 'success', '\"L-17\"'").await.unwrap();
    assert_eq!(scene.ended("s").await.0, "succeeded");
    let result: String =
        sqlx::query_scalar("select result::text from pgsaga.saga").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(result, "\"L-17\"");
    worker.ended().await;
    scene.healthy().await;
}
