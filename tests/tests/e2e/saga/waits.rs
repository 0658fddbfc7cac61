//! Steps that wait for a completion instead of calling somebody.

use std::time::{Duration, Instant};

use Behaviour::{Ok, Refuse};
use pgsaga_tests::scene::{PATIENCE, SagaSpec, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::{Value, json};

/// `stock`, then `approval`, which waits for a day, then `ship`.
fn saga<'a>(scene: &'a Scene, gid: &str) -> SagaSpec<'a> {
    scene.saga(gid).step("stock").step("approval").waits(86_400.0).step("ship")
}

/// Waits until the saga's progress stands so.
async fn stands(scene: &Scene, gid: &str, progress: &str) {
    eventually(PATIENCE, progress, async || {
        let stands: bool =
            sqlx::query_scalar("select coalesce(progress, '') = $2 from pgsaga.saga where gid = $1")
                .bind(gid)
                .bind(progress)
                .fetch_one(scene.pool())
                .await
                .unwrap();
        stands.then_some(())
    })
    .await;
}

async fn run(scene: &Scene, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(scene.pool()).await.map(drop)
}

#[tokio::test]
async fn a_step_waits_until_its_success_is_reported() {
    let scene = Scene::with_worker().await;
    saga(&scene, "s").insert().await;
    stands(&scene, "s", "da.").await;
    assert_eq!(scene.complete("'s', 'approval', 'success'").await.unwrap(), "submitted");
    scene.expect("s", "succeeded", None, &["stock action", "ship action"]).await;
    let history = ["stock action 1 success", "approval action 1 ongoing", "approval action 2 success"];
    assert_eq!(scene.history("s").await[..3], history);
}

#[tokio::test]
async fn a_reported_failure_rolls_the_saga_back_with_its_comment() {
    let scene = Scene::with_worker().await;
    saga(&scene, "s").insert().await;
    stands(&scene, "s", "da.").await;
    scene.complete("'s', 'approval', 'failure', comment => 'too expensive'").await.unwrap();
    let reason = Some("approval: too expensive");
    scene.expect("s", "failed", reason, &["stock action", "stock compensate"]).await;
}

/// The money may arrive a second later.
#[tokio::test]
async fn a_wait_that_ends_without_a_completion_is_undone() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").step("stock").step("approval").waits(0.3).step("ship");
    saga.insert().await;
    let reason = Some("approval: no completion within 0.3 seconds");
    let ops = ["stock action", "approval compensate", "stock compensate"];
    scene.expect("s", "failed", reason, &ops).await;
    assert_eq!(scene.history("s").await[2], "approval action 2 unknown");
    assert_eq!(scene.messages("s").await[2], "no completion within 0.3 seconds");
    let late = scene.complete_refused("'s', 'approval', 'success'").await;
    assert_eq!(late, ("55000".into(), "saga s has failed: nothing of it can be completed any more".into()));
}

#[tokio::test]
async fn the_first_step_of_a_saga_may_wait() {
    let mut scene = Scene::new().await;
    scene.saga("s").step("approval").waits(86_400.0).step("ship").insert().await;
    assert_eq!(scene.history("s").await, ["approval action 1 ongoing"], "it waits from the INSERT on");
    scene.complete("'s', 'approval', 'success'").await.unwrap();
    scene
        .saga("late")
        .step("approval")
        .waits(0.1)
        .column("run_at", "now() + interval '1 second'")
        .insert()
        .await;
    scene.start_worker(&[]).await;
    scene.expect("s", "succeeded", None, &["ship action"]).await;
    assert_eq!(scene.ended("late").await.0, "failed");
    let waited: f64 = sqlx::query_scalar(
        "select extract(epoch from finished_at - created_at)::float8 from pgsaga.saga where gid = 'late'",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    assert!(waited >= 1.1, "its wait begins at run_at, and not {waited} s after the INSERT");
    scene.healthy().await;
}

#[tokio::test]
async fn a_completion_before_its_steps_turn_waits_for_that_turn() {
    let scene = Scene::with_worker().await;
    for (gid, outcome) in [("well", "'success'"), ("ill", "'failure', comment => 'no'")] {
        let gate = Gate::new();
        let saga = scene.saga(gid).step("stock").action(Ok.behind(&gate)).step("approval").waits(86_400.0);
        saga.step("ship").insert().await;
        eventually(PATIENCE, "stock was called", async || {
            (!scene.participant.ops_for(gid).is_empty()).then_some(())
        })
        .await;
        scene.complete(&format!("'{gid}', 'approval', {outcome}")).await.unwrap();
        stands(&scene, gid, if gid == "well" { "ar." } else { "a.." }).await;
        gate.open();
    }
    scene.expect("well", "succeeded", None, &["stock action", "ship action"]).await;
    scene.expect("ill", "failed", Some("approval: no"), &["stock action", "stock compensate"]).await;
}

/// It has happened, although its turn never came.
#[tokio::test]
async fn what_was_reported_before_its_turn_is_undone_with_the_saga() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let stock = scene.saga("s").step("stock").action(Refuse("none left".into()).behind(&gate));
    stock.step("approval").waits(86_400.0).step("ship").insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.complete("'s', 'approval', 'success'").await.unwrap();
    gate.open();
    let ops = ["stock action", "approval compensate"];
    scene.expect("s", "failed", Some("stock: none left"), &ops).await;
}

/// Else it would have to be undone after steps before it were undone already.
#[tokio::test]
async fn once_the_saga_rolls_back_a_step_that_has_not_begun_is_over() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").step("stock").compensate(Ok.behind(&gate)).step("pay");
    saga.action(Refuse("no money".into())).step("approval").waits(86_400.0).insert().await;
    scene.participant.wait_for_calls(3, PATIENCE).await;
    let late = scene.complete_refused("'s', 'approval', 'success'").await;
    assert_eq!(
        late,
        ("55000".into(), "step \"approval\" of saga s never begins: the saga rolls back".into())
    );
    gate.open();
    scene
        .expect("s", "failed", Some("pay: no money"), &["stock action", "pay action", "stock compensate"])
        .await;
}

#[tokio::test]
async fn an_answer_flows_to_later_steps_and_into_the_result() {
    let scene = Scene::with_worker().await;
    let approval = scene.saga("s").step("approval").waits(86_400.0).step("ship");
    let saga = approval.with("payload", json!({"by": {"$from": "approval", "path": "/by"}}));
    saga.column("result_mapping", r#"'{"approved": {"$from": "approval", "path": ""}}'"#).insert().await;
    scene.saga("last").step("stock").step("approval").waits(86_400.0).insert().await;
    scene.complete(r#"'s', 'approval', 'success', '{"by": "Ann", "n": 1.10}'"#).await.unwrap();
    scene.complete("'last', 'approval', 'success', '[1.50]'").await.unwrap();
    scene.expect("s", "succeeded", None, &["ship action"]).await;
    assert_eq!(scene.participant.calls_for("s")[0].body, r#"{"by": "Ann"}"#);
    scene.expect("last", "succeeded", None, &["stock action"]).await;
    let results: Vec<String> = sqlx::query_scalar("select result::text from pgsaga.saga order by gid")
        .fetch_all(scene.pool())
        .await
        .unwrap();
    assert_eq!(results, ["[1.50]", r#"{"approved": {"n": 1.10, "by": "Ann"}}"#]);
}

#[tokio::test]
async fn the_first_completion_counts_and_the_same_again_changes_nothing() {
    let scene = Scene::with_worker().await;
    saga(&scene, "s").insert().await;
    stands(&scene, "s", "da.").await;
    scene.complete("'s', 'approval', 'success', '1'").await.unwrap();
    scene.ended("s").await;
    for again in 0..2 {
        assert_eq!(scene.complete("'s', 'approval', 'success', '1'").await.unwrap(), "succeeded", "{again}");
    }
    let said =
        "the action of step \"approval\" of saga s was completed as success: the first completion counts";
    for other in ["'success', '2'", "'success'", "'failure', comment => 'no'"] {
        let refused = scene.complete_refused(&format!("'s', 'approval', {other}")).await;
        assert_eq!(refused, ("55000".into(), said.into()), "{other}");
    }
    let reported = "select count(*) from pgsaga.history where kind = 'completion'";
    assert_eq!(sqlx::query_scalar::<_, i64>(reported).fetch_one(scene.pool()).await.unwrap(), 1);
    scene.healthy().await;
}

#[tokio::test]
async fn ongoing_makes_the_wait_begin_anew() {
    let scene = Scene::with_worker().await;
    scene.saga("s").step("approval").waits(4.0).insert().await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.complete("'s', 'approval', 'ongoing', comment => 'still looking'").await.unwrap();
    }
    assert_eq!(scene.status("s").await.unwrap().0, "submitted");
    assert_eq!(scene.ended("s").await.0, "failed");
    scene.healthy().await;
}

#[tokio::test]
async fn an_abort_a_deadline_and_a_skip_end_a_wait() {
    let scene = Scene::with_worker().await;
    for gid in ["abort", "skip", "resolve", "force"] {
        saga(&scene, gid).insert().await;
    }
    saga(&scene, "deadline").column("timeout_to_fail", "'400 milliseconds'").insert().await;
    for gid in ["abort", "skip", "resolve", "force"] {
        stands(&scene, gid, "da.").await;
    }
    run(&scene, "select pgsaga.abort('abort', 'no need')").await.unwrap();
    run(&scene, "select pgsaga.skip('skip', 'approval', 'by phone')").await.unwrap();
    run(&scene, "select pgsaga.resolve('resolve', 'succeeded', 'by hand')").await.unwrap();
    run(&scene, "select pgsaga.force('force', 'gone')").await.unwrap();
    // A wait that began may have ended well.
    let undone = ["stock action", "approval compensate", "stock compensate"];
    scene.expect("abort", "failed", Some("approval: aborted: no need"), &undone).await;
    scene.expect("deadline", "failed", Some("approval: timeout after 0.4 seconds"), &undone).await;
    scene.expect("skip", "succeeded", None, &["stock action", "ship action"]).await;
    scene.expect("resolve", "succeeded", None, &["stock action"]).await;
    let forced = Some("approval: stopped without compensating: gone");
    scene.expect("force", "failed", forced, &["stock action"]).await;
}

/// A retry does not shorten a wait, and a person learns what does.
#[tokio::test]
async fn a_wait_is_not_retried() {
    let scene = Scene::with_worker().await;
    saga(&scene, "s").insert().await;
    stands(&scene, "s", "da.").await;
    let retried = run(&scene, "select pgsaga.retry('s')").await.unwrap_err();
    assert_eq!(
        retried.as_database_error().unwrap().message(),
        "saga s is submitted: nothing of it is stuck or waits for a retry; \"approval\" waits for a completion: \
         allowed: complete or skip"
    );
    scene.complete("'s', 'approval', 'success'").await.unwrap();
    assert_eq!(scene.ended("s").await.0, "succeeded");
}

/// Whatever comes after the pivot goes forward only, and so does a pivot that waits.
#[tokio::test]
async fn a_pivot_that_waits_in_vain_is_stuck_and_goes_on_with_a_late_completion() {
    let scene = Scene::with_worker().await;
    let saga = |gid| {
        let saga = scene.saga(gid).step("stock").step("payment").waits(0.2).with("pivot", json!(true));
        saga.with("compensate", json!("")).step("ship").with("compensate", Value::Null)
    };
    for gid in ["late", "refused", "again"] {
        saga(gid).insert().await;
        let reason = Some("payment: no completion within 0.2 seconds");
        scene.expect(gid, "stuck", reason, &["stock action"]).await;
    }
    scene.complete("'late', 'payment', 'success'").await.unwrap();
    scene.expect("late", "succeeded", None, &["stock action", "ship action"]).await;
    scene.complete("'refused', 'payment', 'failure', comment => 'no money'").await.unwrap();
    let undone = ["stock action", "stock compensate"];
    assert_eq!(scene.ended("refused").await, ("failed".into(), Some("payment: no money".into())));
    assert_eq!(scene.participant.ops_for("refused"), undone);
    // It waits once more, and is stuck once more.
    run(&scene, "select pgsaga.retry('again')").await.unwrap();
    eventually(PATIENCE, "the second wait ended", async || {
        (scene.history("again").await.len() == 5).then_some(())
    })
    .await;
    assert_eq!(scene.ended("again").await.0, "stuck");
    scene.complete("'again', 'payment', 'success'").await.unwrap();
    assert_eq!(scene.ended("again").await.0, "succeeded");
    scene.healthy().await;
}

#[tokio::test]
async fn an_abort_waits_for_a_pivot_that_waits() {
    let scene = Scene::with_worker().await;
    for (gid, outcome, status) in
        [("well", "'success'", "succeeded"), ("ill", "'failure', comment => 'no'", "failed")]
    {
        let saga = scene.saga(gid).step("stock").step("payment").waits(86_400.0).with("pivot", json!(true));
        saga.step("ship").with("compensate", Value::Null).insert().await;
        stands(&scene, gid, "da.").await;
        let abort = format!("select pgsaga.abort('{gid}', 'changed my mind')");
        let stood: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(abort)).fetch_one(scene.pool()).await.unwrap();
        assert_eq!(stood, "submitted");
        eventually(PATIENCE, "its task has gone back", async || {
            let waits = "select count(*) from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id
                         where s.gid = $1 and t.worker is null and t.run_at > now() + interval '1 hour'";
            let waiting: i64 = sqlx::query_scalar(waits).bind(gid).fetch_one(scene.pool()).await.unwrap();
            (waiting == 1).then_some(())
        })
        .await;
        scene.complete(&format!("'{gid}', 'payment', {outcome}")).await.unwrap();
        assert_eq!(scene.ended(gid).await.0, status);
    }
    scene.healthy().await;
}

#[tokio::test]
async fn steps_of_a_parallel_saga_wait_at_the_same_time() {
    let scene = Scene::with_worker().await;
    for gid in ["well", "ill"] {
        let saga = scene.saga(gid).step("a").with("after", json!([])).waits(86_400.0);
        let saga = saga.step("b").with("after", json!([])).waits(86_400.0);
        let saga = saga.step("c").with("after", json!([]));
        saga.step("join").with("after", json!(["a", "b", "c"])).insert().await;
        stands(&scene, gid, "aad.").await;
        scene.complete(&format!("'{gid}', 'b', 'success'")).await.unwrap();
    }
    scene.complete("'well', 'a', 'success'").await.unwrap();
    scene.expect("well", "succeeded", None, &["c action", "join action"]).await;
    scene.complete("'ill', 'a', 'failure', comment => 'no'").await.unwrap();
    assert_eq!(scene.ended("ill").await, ("failed".into(), Some("a: no".into())));
    let mut ops = scene.participant.ops_for("ill");
    ops.sort();
    assert_eq!(ops, ["b compensate", "c action", "c compensate"]);
    scene.healthy().await;
}
