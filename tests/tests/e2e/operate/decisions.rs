//! What people decide: abort, force, retry, skip, resolve. Each takes effect before it returns, and
//! is in the history.

use std::time::Duration;

use Behaviour::{Ok, Refuse, Sequence, Status, Unknown};
use pgsaga_producer::{Saga, Step};
use pgsaga_tests::scene::{DECISIONS, PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::json;

async fn decide(scene: &Scene, call: &str) -> Result<String, (String, String)> {
    let statement = sqlx::AssertSqlSafe(format!("select coalesce(({call})::text, '')"));
    sqlx::query_scalar(statement).fetch_one(scene.pool()).await.map_err(|error| {
        let error = error.into_database_error().unwrap();
        (error.code().unwrap().into_owned(), error.message().to_owned())
    })
}

async fn decisions(scene: &Scene, gid: &str) -> Vec<(String, String, Option<String>)> {
    sqlx::query_as(
        "select decision, decided_by, message from pgsaga.saga_timeline where gid = $1 and kind = 'decision' order by seq",
    )
    .bind(gid)
    .fetch_all(scene.pool())
    .await
    .unwrap()
}

fn by(decision: &str, comment: &str) -> (String, String, Option<String>) {
    (decision.to_owned(), "postgres".to_owned(), (!comment.is_empty()).then(|| comment.to_owned()))
}

#[tokio::test]
async fn an_abort_takes_effect_at_every_moment_of_a_sagas_life() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    // Waiting for its start, in flight, waiting for a retry, and between branches.
    scene.saga("future").step("a").column("run_at", "clock_timestamp() + interval '1 hour'").insert().await;
    scene.saga("in-flight").step("a").action(Ok.behind(&gate)).step("b").insert().await;
    scene
        .saga("retrying")
        .step("a")
        .step("b")
        .action(Unknown(99))
        .column("retry_interval", "'5 minutes'")
        .insert()
        .await;
    let saga = scene.saga("parallel").step("a").with("after", json!([])).action(Ok.behind(&gate));
    saga.step("b")
        .with("after", json!([]))
        .action(Unknown(99))
        .column("retry_interval", "'5 minutes'")
        .insert()
        .await;
    scene.participant.wait_for_calls(5, PATIENCE).await;
    eventually(PATIENCE, "the tries are settled", async || {
        (scene.history("retrying").await.len() == 2 && scene.history("parallel").await.len() == 1)
            .then_some(())
    })
    .await;
    for gid in ["future", "in-flight", "retrying", "parallel"] {
        assert_eq!(
            decide(&scene, &format!("pgsaga.abort('{gid}', 'enough')")).await,
            Result::Ok("aborting".into())
        );
        let status = scene.status(gid).await.unwrap().0;
        assert!(["aborting", "failed"].contains(&status.as_str()), "{gid}: {status}");
    }
    for (gid, step) in [("future", "a"), ("retrying", "b")] {
        assert_eq!(scene.ended(gid).await, ("failed".into(), Some(format!("{step}: aborted: enough"))));
    }
    assert!(scene.participant.calls_for("future").is_empty());
    assert_eq!(
        scene.participant.ops_for("retrying"),
        ["a action", "b action", "b compensate", "a compensate"]
    );
    // A call in flight ends first.
    assert_eq!(scene.participant.ops_for("in-flight"), ["a action"]);
    gate.open();
    for gid in ["in-flight", "parallel"] {
        assert_eq!(scene.ended(gid).await, ("failed".into(), Some("a: aborted: enough".into())), "{gid}");
        assert_eq!(decisions(&scene, gid).await, [by("abort", "enough")]);
    }
    assert_eq!(scene.participant.ops_for("in-flight"), ["a action", "a compensate"]);
    let mut parallel = scene.participant.ops_for("parallel");
    parallel.sort();
    assert_eq!(parallel, ["a action", "a compensate", "b action", "b compensate"]);
    scene.healthy().await;
}

#[tokio::test]
async fn aborting_twice_is_one_unwind_and_of_a_finished_or_unknown_saga_an_error() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    scene
        .saga("s")
        .step("a")
        .compensate(Ok.behind(&gate))
        .step("b")
        .action(Refuse("no".into()))
        .insert()
        .await;
    scene.participant.wait_for_calls(3, PATIENCE).await;
    for _ in 0..2 {
        assert_eq!(decide(&scene, "pgsaga.abort('s', 'again')").await, Result::Ok("aborting".into()));
    }
    gate.open();
    scene.expect("s", "failed", Some("b: no"), &["a action", "b action", "a compensate"]).await;
    assert_eq!(decisions(&scene, "s").await, []);
    let finished =
        ("55000".to_owned(), "saga s has failed: nothing can be decided about it any more".to_owned());
    let unknown = ("P0002".to_owned(), "no saga has the gid \"nope\"".to_owned());
    for function in
        ["abort(%, 'x')", "force(%, 'x')", "retry(%)", "skip(%, 'a', 'x')", "resolve(%, 'failed', 'x')"]
    {
        let call = |gid: &str| format!("pgsaga.{}", function.replace('%', &format!("'{gid}'")));
        assert_eq!(decide(&scene, &call("s")).await, Err(finished.clone()), "{function}");
        assert_eq!(decide(&scene, &call("nope")).await, Err(unknown.clone()), "{function}");
    }
    for call in [
        "abort('s', '')",
        "force('s', ' ')",
        "skip('s', 'a', '')",
        "resolve('s', 'failed', null)",
        "resolve('s', 'done', 'x')",
    ] {
        assert_eq!(decide(&scene, &format!("pgsaga.{call}")).await.unwrap_err().0, "22023", "{call}");
    }
    for word in DECISIONS {
        assert_eq!(
            decide(&scene, &format!("pgsaga.decide('nope', '{word}', 'a', 'x')")).await,
            Err(unknown.clone())
        );
    }
    let refused = |found: &str| {
        Err(("22023".to_owned(), format!("decision: found {found}; allowed: {}", DECISIONS.join(", "))))
    };
    assert_eq!(decide(&scene, "pgsaga.decide('s', 'undo', null, 'x')").await, refused("\"undo\""));
    assert_eq!(decide(&scene, "pgsaga.decide('s', null, null, 'x')").await, refused("nothing"));
}

#[tokio::test]
async fn the_crate_aborts_as_well() {
    let scene = Scene::with_worker().await;
    let url = scene.participant.url("/s/a");
    scene.participant.on("/s/a", "action", Status(500));
    let saga = Saga::new().gid("s").unwrap().step(Step::new("a").action(&url).compensate(&url));
    let saga = saga.retry_interval(Duration::from_secs(300));
    saga.submit(scene.pool()).await.unwrap();
    eventually(PATIENCE, "the first try is settled", async || {
        (scene.history("s").await.len() == 1).then_some(())
    })
    .await;
    pgsaga_producer::abort(scene.pool(), "s", "changed my mind").await.unwrap();
    scene.expect("s", "failed", Some("a: aborted: changed my mind"), &["a action", "a compensate"]).await;
}

/// docs/races.md, R5 and R6, with real workers: aborts at random moments against advances, retries
/// and ends; nothing is lost.
#[tokio::test]
async fn aborts_race_with_advances_retries_and_ends_and_every_saga_is_all_done_or_all_undone() {
    let mut scene = Scene::new().await;
    scene.start_worker(&[]).await;
    scene.start_worker(&[]).await;
    for n in 0..300 {
        let gid = format!("s{n}");
        let mut saga = scene.saga(&gid);
        for (nth, name) in ["a", "b", "c"].into_iter().enumerate() {
            saga = saga.step(name).action(if n % 3 == nth { Unknown(1) } else { Ok });
            if n % 2 == 0 {
                saga = saga.with("after", if name == "c" { json!(["a", "b"]) } else { json!([]) });
            }
        }
        saga.insert().await;
        if n >= 5 {
            let _ = decide(&scene, &format!("pgsaga.abort('s{}', 'race')", n - n % 5)).await;
        }
    }
    scene.all_ended(Duration::from_secs(60)).await;
    let (succeeded, failed) = (scene.count("succeeded").await, scene.count("failed").await);
    assert_eq!(succeeded + failed, 300);
    assert!(failed > 0, "no abort came in time");
    scene.healthy().await;
}

/// docs/races.md, R5, the control: a settle whose fence lacks the interrupt advances an aborted
/// saga.
#[tokio::test]
async fn a_fence_without_the_interrupt_would_advance_an_aborted_saga() {
    use crate::session::{Claims, Ends, claims, settle, settle_with, step_of, without};
    let Claims { scene, mut session, worker, tasks } = claims(1, 2).await;
    assert_eq!(decide(&scene, "pgsaga.abort('s000', 'x')").await, Result::Ok("aborting".into()));
    assert!(settle(&mut session, worker, &tasks, Ends::Advances).await.is_empty());
    assert_eq!(step_of(&scene, &tasks[0]).await, 1);
    let blind =
        without(pgsaga_sql::query::Settle::SQL, " and interrupt is not distinct from i.interrupt", "");
    assert_eq!(settle_with(&mut session, &blind, worker, &tasks, Ends::Advances).await.len(), 1);
    assert_eq!(step_of(&scene, &tasks[0]).await, 2, "control: the aborted saga goes forward");
}

#[tokio::test]
async fn force_stops_without_compensating_and_the_history_says_so() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    scene
        .saga("waiting")
        .step("a")
        .step("b")
        .action(Unknown(99))
        .column("retry_interval", "'5 minutes'")
        .insert()
        .await;
    scene.saga("in-flight").step("a").action(Ok.behind(&gate)).step("b").insert().await;
    scene
        .saga("stuck")
        .step("a")
        .compensate(Refuse("never".into()))
        .step("b")
        .action(Refuse("no".into()))
        .insert()
        .await;
    eventually(PATIENCE, "the try is settled", async || {
        (scene.history("waiting").await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(scene.ended("stuck").await.0, "stuck");
    for (gid, status) in [("waiting", "failed"), ("stuck", "failed"), ("in-flight", "aborting")] {
        assert_eq!(
            decide(&scene, &format!("pgsaga.force('{gid}', 'by hand')")).await,
            Result::Ok(status.into()),
            "{gid}"
        );
    }
    gate.open();
    for (gid, step) in [("waiting", "b"), ("stuck", "a"), ("in-flight", "a")] {
        let reason = format!("{step}: stopped without compensating: by hand");
        assert_eq!(scene.ended(gid).await, ("failed".into(), Some(reason)), "{gid}");
        assert_eq!(decisions(&scene, gid).await, [by("force", "by hand")]);
    }
    assert_eq!(scene.participant.ops_for("waiting"), ["a action", "b action"]);
    assert_eq!(
        scene.history("in-flight").await,
        ["a action 1 success"],
        "the answer is recorded, and nothing follows"
    );
    scene.healthy().await;
}

#[tokio::test]
async fn a_stuck_compensation_is_retried_skipped_or_resolved() {
    let scene = Scene::with_worker().await;
    for gid in ["retry", "skip", "done", "undone"] {
        let refuse = Sequence(vec![Refuse("locked".into())]);
        scene
            .saga(gid)
            .step("a")
            .step("b")
            .compensate(refuse)
            .step("c")
            .action(Refuse("no".into()))
            .insert()
            .await;
        assert_eq!(scene.ended(gid).await, ("stuck".into(), Some("b: locked".into())));
    }
    let forward = ["a action", "b action", "c action", "b compensate"];
    assert_eq!(decide(&scene, "pgsaga.retry('retry', 'unlocked')").await, Result::Ok("aborting".into()));
    scene
        .expect("retry", "failed", Some("c: no"), &[&forward[..], &["b compensate", "a compensate"]].concat())
        .await;
    assert_eq!(decisions(&scene, "retry").await, [by("retry", "unlocked")]);
    assert_eq!(
        decide(&scene, "pgsaga.skip('skip', 'b', 'refunded by hand')").await,
        Result::Ok("aborting".into())
    );
    scene.expect("skip", "failed", Some("c: no"), &[&forward[..], &["a compensate"]].concat()).await;
    assert_eq!(decisions(&scene, "skip").await, [by("skip", "refunded by hand")]);
    assert_eq!(
        decide(&scene, "pgsaga.resolve('done', 'succeeded', 'shipped anyway')").await,
        Result::Ok("succeeded".into())
    );
    scene.expect("done", "succeeded", None, &forward).await;
    assert_eq!(
        decide(&scene, "pgsaga.resolve('undone', 'failed', 'by hand')").await,
        Result::Ok("failed".into())
    );
    scene.expect("undone", "failed", Some("b: resolved: by hand"), &forward).await;
    let left: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.stuck").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_refusal_after_the_pivot_is_repaired_the_same_way() {
    let scene = Scene::with_worker().await;
    for gid in ["retry", "skip"] {
        let saga = scene
            .saga(gid)
            .step("pay")
            .with("pivot", json!(true))
            .step("ship")
            .with("compensate", json!(null));
        let saga =
            saga.action(Sequence(vec![Refuse("no".into())])).step("mail").with("compensate", json!(null));
        saga.insert().await;
        assert_eq!(scene.ended(gid).await, ("stuck".into(), Some("ship: no".into())));
    }
    assert_eq!(decide(&scene, "pgsaga.retry('retry')").await, Result::Ok("submitted".into()));
    scene
        .expect("retry", "succeeded", None, &["pay action", "ship action", "ship action", "mail action"])
        .await;
    assert_eq!(
        decide(&scene, "pgsaga.skip('skip', 'ship', 'sent by hand')").await,
        Result::Ok("submitted".into())
    );
    scene.expect("skip", "succeeded", None, &["pay action", "ship action", "mail action"]).await;
}

/// docs/races.md, R22: a participant that remembers its refusal under the key answers it again for
/// ever.
#[tokio::test]
async fn a_fresh_key_is_given_only_where_every_try_was_definitely_refused() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("refused").step("a").compensate(Sequence(vec![Refuse("locked".into())]));
    saga.step("b").action(Refuse("no".into())).insert().await;
    let saga = scene.saga("unknown").step("a").compensate(Sequence(vec![
        Status(500),
        Refuse("x".into()),
        Refuse("x".into()),
    ]));
    saga.step("b").action(Refuse("no".into())).insert().await;
    for gid in ["refused", "unknown"] {
        assert_eq!(scene.ended(gid).await.0, "stuck");
    }
    let refused = decide(&scene, "pgsaga.retry('unknown', fresh_key => true)").await.unwrap_err();
    assert_eq!(refused.0, "55000");
    assert_eq!(
        refused.1,
        "step \"a\": some compensate of it was not definitely refused: a fresh key could do it twice"
    );
    // It would refuse the old key for ever.
    scene.participant.on("/refused/a", "compensate", Ok);
    decide(&scene, "pgsaga.retry('refused', fresh_key => true)").await.unwrap();
    scene
        .expect("refused", "failed", Some("b: no"), &["a action", "b action", "a compensate", "a compensate"])
        .await;
    let keys: Vec<String> =
        scene.participant.calls_for("refused").iter().map(|call| call.key.clone()).collect();
    assert_eq!(keys[2..], ["refused/a/compensate", "refused/a/compensate/1"]);
    assert_eq!(scene.participant.calls_for("refused")[3].header("saga-action-key"), "refused/a/action");
}

/// docs/races.md, R23: a call is in flight when a person decides; its answer is recorded first,
/// then the decision applies.
#[tokio::test]
async fn a_late_answer_is_recorded_and_then_the_decision_applies() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    for gid in ["skip", "resolve"] {
        let saga = scene.saga(gid).step("a").compensate(Status(500).behind(&gate));
        saga.step("b").action(Refuse("no".into())).column("request_timeout", "'30 seconds'").insert().await;
    }
    scene.participant.wait_for_calls(6, PATIENCE).await;
    assert_eq!(decide(&scene, "pgsaga.skip('skip', 'a', 'by hand')").await, Result::Ok("aborting".into()));
    assert_eq!(
        decide(&scene, "pgsaga.resolve('resolve', 'succeeded', 'by hand')").await,
        Result::Ok("aborting".into())
    );
    gate.open();
    assert_eq!(scene.ended("skip").await, ("failed".into(), Some("b: no".into())));
    assert_eq!(scene.ended("resolve").await, ("succeeded".into(), None));
    for gid in ["skip", "resolve"] {
        let history = scene.history(gid).await;
        assert_eq!(history, ["a action 1 success", "b action 1 failure", "a compensate 1 unknown"], "{gid}");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn a_step_that_neither_runs_nor_is_stuck_cannot_be_skipped() {
    let scene = Scene::with_worker().await;
    scene
        .saga("s")
        .step("a")
        .step("b")
        .action(Unknown(99))
        .step("c")
        .column("retry_interval", "'5 minutes'")
        .insert()
        .await;
    eventually(PATIENCE, "the try is settled", async || (scene.history("s").await.len() == 2).then_some(()))
        .await;
    for step in ["a", "c"] {
        let refused = decide(&scene, &format!("pgsaga.skip('s', '{step}', 'x')")).await.unwrap_err();
        let words = format!("step \"{step}\" of saga s neither runs nor is stuck; allowed: \"b\"");
        assert_eq!(refused, ("55000".into(), words));
    }
    assert_eq!(decide(&scene, "pgsaga.skip('s', 'x', 'x')").await.unwrap_err().0, "P0002");
    assert_eq!(decide(&scene, "pgsaga.skip('s', 'b', 'x')").await, Result::Ok("submitted".into()));
    scene.expect("s", "succeeded", None, &["a action", "b action", "c action"]).await;
}

/// What waits for its next try is tried now when a person says so.
#[tokio::test]
async fn retry_of_a_waiting_saga_does_not_wait_any_longer() {
    let scene = Scene::with_worker().await;
    scene.saga("s").step("a").action(Unknown(1)).column("retry_interval", "'5 minutes'").insert().await;
    eventually(PATIENCE, "the try is settled", async || (scene.history("s").await.len() == 1).then_some(()))
        .await;
    assert_eq!(decide(&scene, "pgsaga.retry('s')").await, Result::Ok("submitted".into()));
    scene.expect("s", "succeeded", None, &["a action", "a action"]).await;
}

/// The other decisions about a saga that ends already, or rolls back already, say so.
#[tokio::test]
async fn a_decision_is_neither_taken_twice_nor_undone_by_another() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    for gid in ["ends", "turns"] {
        let saga = scene.saga(gid).step("a").action(Ok.behind(&gate)).step("b");
        saga.column("request_timeout", "'30 seconds'").insert().await;
    }
    scene.participant.wait_for_calls(2, PATIENCE).await;
    assert_eq!(decide(&scene, "pgsaga.force('ends', 'once')").await, Result::Ok("aborting".into()));
    let ends = "saga ends ends as failed as soon as its last call has ended".to_owned();
    for call in ["force('ends', 'twice')", "resolve('ends', 'succeeded', 'x')", "skip('ends', 'a', 'x')"] {
        let refused = decide(&scene, &format!("pgsaga.{call}")).await.unwrap_err();
        assert_eq!(refused, ("55000".into(), ends.clone()), "{call}");
    }
    assert_eq!(decide(&scene, "pgsaga.abort('turns', 'x')").await, Result::Ok("aborting".into()));
    let refused = decide(&scene, "pgsaga.skip('turns', 'a', 'x')").await.unwrap_err();
    assert_eq!(
        refused,
        ("55000".into(), "step \"a\" of saga turns is not tried again: the saga rolls back".into())
    );
    gate.open();
    assert_eq!(scene.ended("ends").await.0, "failed");
    scene.expect("turns", "failed", Some("a: aborted: x"), &["a action", "a compensate"]).await;
}

/// A skip of a call in flight, and then an abort: the abort holds.
#[tokio::test]
async fn an_abort_after_a_skip_holds() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").step("a").action(Ok.behind(&gate)).step("b");
    saga.column("request_timeout", "'30 seconds'").insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    for _ in 0..2 {
        assert_eq!(decide(&scene, "pgsaga.skip('s', 'a', 'x')").await, Result::Ok("submitted".into()));
    }
    assert_eq!(decide(&scene, "pgsaga.abort('s', 'y')").await, Result::Ok("aborting".into()));
    gate.open();
    scene.expect("s", "failed", Some("a: aborted: y"), &["a action", "a compensate"]).await;
}

/// An abort commits between a rescue's snapshot and its locks: the lost try is recorded once, and
/// has one successor.
#[tokio::test]
async fn a_rescue_that_races_an_abort_takes_a_task_once() {
    use crate::session::{claim, connect, insert, register, rescue, rescue_sleeps, slow_rescue, without};
    use sqlx::Row as _;
    for control in [false, true] {
        let scene = Scene::new().await;
        insert(&scene, 1, 1).await;
        let mut rescuer = connect(&scene).await;
        let worker = register(&mut rescuer).await;
        claim(&mut rescuer, worker, 1).await;
        let mut sleeping = slow_rescue();
        if control {
            sleeping = without(&sleeping, "\n      and k.interrupt is not distinct from i.interrupt", "");
        }
        let aborting = async {
            rescue_sleeps(&scene).await;
            decide(&scene, "pgsaga.abort('s000', 'x')").await.unwrap();
        };
        let racing =
            sqlx::query(sqlx::AssertSqlSafe(sleeping)).bind(worker).bind(100i64).bind(pgsaga_sql::FORMAT);
        let (row, ()) = tokio::join!(async { racing.fetch_one(&mut rescuer).await.unwrap() }, aborting);
        assert_eq!(row.get::<i64, _>("rescued"), i64::from(control));
        rescue(&mut rescuer, worker).await;
        let tasks: i64 =
            sqlx::query_scalar("select count(*) from pgsaga.task").fetch_one(scene.pool()).await.unwrap();
        assert_eq!(
            (tasks, scene.history("s000").await.len()),
            if control { (2, 2) } else { (1, 1) },
            "control: {control}"
        );
    }
}
