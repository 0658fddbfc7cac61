//! A call that this worker may not make is no try: nothing follows from it, and another worker may
//! make it.

use std::time::{Duration, Instant};

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, eventually};
use serde_json::json;
use sqlx::postgres::PgListener;

use crate::participants::NO_LOOPBACK;

/// Waits until the scene's only worker was denied a call.
async fn denied(scene: &Scene) {
    eventually(PATIENCE, "a call is denied", async || {
        (scene.metric("pgsaga_denied_calls_total").await > 0.0).then_some(())
    })
    .await;
}

/// Stops the scene's workers in peace, and starts one with these flags.
async fn restart(scene: &mut Scene, flags: &[&str]) {
    for worker in &mut scene.workers {
        worker.terminate();
        worker.wait_exit(PATIENCE).await;
    }
    scene.workers.clear();
    scene.start_worker(flags).await;
}

/// Stock is reserved, and the payment is accepted and not finished.
async fn accepted(scene: &mut Scene, gid: &str, pivot: bool) {
    let saga = scene.saga(gid).column("retry_interval", "'100 milliseconds'").step("stock");
    let saga = saga.step("pay").action(Behaviour::Ongoing(usize::MAX));
    let saga = if pivot { saga.with("pivot", json!(true)) } else { saga };
    saga.insert().await;
    if scene.workers.is_empty() {
        scene.start_worker(&[]).await;
    }
    eventually(PATIENCE, "the payment is accepted", async || {
        scene.history(gid).await.contains(&"pay action 1 ongoing".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_action_is_undone_although_its_next_try_was_denied() {
    for flags in [&NO_LOOPBACK[..], &["--deny-plain-urls"]] {
        let mut scene = Scene::new().await;
        accepted(&mut scene, "s", false).await;
        restart(&mut scene, flags).await;
        denied(&scene).await;
        let tries = scene.history("s").await;
        assert!(tries.iter().all(|tried| !tried.ends_with("failure")), "{tries:?}");
        assert_eq!(scene.status("s").await.unwrap(), ("submitted".to_owned(), None));

        // What was accepted may still happen, so an abort undoes it.
        run(&scene.db, &["abort", "s", "--reason", "enough"]).fine();
        restart(&mut scene, &[]).await;
        assert_eq!(scene.ended("s").await.0, "failed");
        let ops = scene.participant.ops_for("s");
        assert_eq!(ops[ops.len() - 2..], ["pay compensate", "stock compensate"], "{ops:?}");
        scene.healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_does_not_turn_back_past_a_pivot_whose_next_try_was_denied() {
    let mut scene = Scene::new().await;
    accepted(&mut scene, "s", true).await;
    run(&scene.db, &["abort", "s", "--reason", "enough"]).fine();
    restart(&mut scene, &NO_LOOPBACK).await;
    denied(&scene).await;
    // The abort waits for the pivot's definite outcome. Its task is claimed for the abort's sake,
    // found to need the call, and left alone from then on.
    let claimed = scene.metric("pgsaga_claimed_total").await;
    for nth in 0..5 {
        let gid = format!("other-{nth}");
        scene.saga(&gid).step("a").with("action", json!("")).insert().await;
        scene.ended(&gid).await;
    }
    let claimed = scene.metric("pgsaga_claimed_total").await - claimed;
    assert!(claimed <= 5.0, "it is claimed again and again: {claimed} claims for five other sagas");
    assert_eq!(scene.status("s").await.unwrap().0, "submitted");
    assert!(!scene.participant.ops_for("s").contains(&"stock compensate".to_owned()));

    scene.participant.on("/s/pay", "action", Behaviour::Ok);
    restart(&mut scene, &[]).await;
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    scene.healthy().await;
}

/// The sibling: a request that nobody can build says as little about an accepted action.
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_action_whose_request_cannot_be_built_any_more_needs_a_person() {
    let mut scene = Scene::new().await;
    accepted(&mut scene, "s", false).await;
    // The INSERT would refuse it.
    let reserved =
        "update pgsaga.saga set steps = jsonb_set(steps, '{1,action}', '\"http://pay.example/?%67id=x\"')";
    sqlx::query(reserved).execute(scene.pool()).await.unwrap();
    let reason = "pay: the URL's query has gid, trans_type, branch_id or op, which workers add";
    assert_eq!(scene.ended("s").await, ("stuck".to_owned(), Some(reason.to_owned())));
    let tries = scene.history("s").await;
    assert!(tries.last().unwrap().ends_with(" ongoing"), "no try was made: {tries:?}");
    scene.healthy().await;
    run(&scene.db, &["abort", "s", "--reason", "enough"]).fine();
    assert_eq!(scene.ended("s").await.0, "failed");
    let ops = scene.participant.ops_for("s");
    assert_eq!(ops[ops.len() - 2..], ["pay compensate", "stock compensate"], "{ops:?}");
}

/// What a chain comes to and must not call is due at once for others, and they are woken.
#[tokio::test(flavor = "multi_thread")]
async fn workers_are_woken_for_a_step_that_another_worker_comes_to_and_may_not_call() {
    let mut scene = Scene::new().await;
    scene.start_worker(&NO_LOOPBACK).await;
    scene.saga("first").step("a").insert().await;
    denied(&scene).await;
    let mut listener = PgListener::connect(scene.db.url()).await.unwrap();
    listener.listen("pgsaga").await.unwrap();
    for (gid, after) in [("sequential", json!(["nobody"])), ("parallel", json!(["nobody"]))] {
        let saga = scene.saga(gid).step("nobody").with("action", json!("")).step("b");
        let saga = if gid == "parallel" {
            saga.with("after", after).step("c").with("after", json!([]))
        } else {
            saga
        };
        let mut silent = scene.pool().begin().await.unwrap();
        sqlx::raw_sql("set local pgsaga.notify = off").execute(&mut *silent).await.unwrap();
        let insert = sqlx::query("insert into pgsaga.saga (gid, steps) values ($1, $2)");
        insert.bind(gid).bind(saga.steps()).execute(&mut *silent).await.unwrap();
        silent.commit().await.unwrap();
        let due = "select count(*) from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id
                   where s.gid = $1 and t.step = 2 and t.worker is null and t.run_at <= clock_timestamp()";
        // A notification may still be about the saga before.
        loop {
            tokio::time::timeout(PATIENCE, listener.recv()).await.expect("somebody is woken").unwrap();
            let due: i64 = sqlx::query_scalar(due).bind(gid).fetch_one(scene.pool()).await.unwrap();
            if due == 1 {
                break;
            }
        }
    }
    // Whoever asks for the saga is told why it waits.
    eventually(PATIENCE, "show says why", async || {
        let said = run(&scene.db, &["show", "sequential"]).fine();
        said.contains("1 of 1 living worker may not call 127.0.0.1:").then_some(())
    })
    .await;
    let said = run(&scene.db, &["show", "sequential", "--json"]).fine();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["next"][0]["denied_by_workers"], 1);
    assert!(said["next"][0]["denied"].as_str().unwrap().starts_with("not called: 127.0.0.1 is loopback; "));
    scene.healthy().await;
}

const SAGAS: usize = 200;
const OTHERS: usize = 9;

/// Ends a batch of sagas, and says how long that took from the moment they were there.
async fn batch(scene: &Scene, prefix: &str) -> Duration {
    let mut open = scene.pool().begin().await.unwrap();
    for nth in 0..SAGAS {
        let steps = scene.saga(&format!("{prefix}{nth}")).step("a").step("b").steps();
        let insert = sqlx::query("insert into pgsaga.saga (gid, steps) values ($1, $2)");
        insert.bind(format!("{prefix}{nth}")).bind(steps).execute(&mut *open).await.unwrap();
    }
    open.commit().await.unwrap();
    let started = Instant::now();
    scene.all_ended(2 * PATIENCE).await;
    started.elapsed()
}

/// The one that may call is kept busy by slow calls, so that the machine's speed does not decide.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_may_not_call_leave_the_sagas_to_the_one_that_may() {
    let mut scene = Scene::new().await;
    scene.participant.ruled_by(|_| Behaviour::Slow(Duration::from_millis(40)));
    scene.start_worker(&["--concurrency", "8"]).await;
    let alone = batch(&scene, "alone").await;
    for _ in 0..OTHERS {
        scene.start_worker(&NO_LOOPBACK).await;
    }
    let together = batch(&scene, "together").await;
    assert!(together < 2 * alone, "{together:?} beside {OTHERS} others, {alone:?} alone");

    assert_eq!(scene.count("succeeded").await, 2 * SAGAS as i64);
    let others = scene.workers.iter().skip(1);
    let mut denied = 0.0;
    for other in others {
        let calls = other.metric("pgsaga_denied_calls_total").await.unwrap();
        denied += calls;
        // Each claims a saga at most once in half a minute, which is longer than the batch takes.
        assert!(together < Duration::from_secs(30), "{together:?}");
        let claimed = other.metric("pgsaga_claimed_total").await.unwrap();
        assert!(claimed <= SAGAS as f64, "{claimed} claims of {SAGAS} sagas");
        let said = other.log().iter().filter(|line| line.contains("a call was denied")).count();
        assert_eq!(said, usize::from(calls > 0.0), "it is told once a minute, whatever is denied");
    }
    assert!(denied > 0.0, "the control: no other worker claimed a saga");
    let tries: Vec<String> = sqlx::query_scalar(
        "select distinct outcome || ' ' || attempt from pgsaga.history where kind = 'attempt'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert_eq!(tries, ["success 1"], "what was denied is no try, and counts for nothing");
    scene.healthy().await;
}
