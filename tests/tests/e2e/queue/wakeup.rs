//! Producers pay for NOTIFY only while a worker is idle.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, eventually};
use serde_json::json;
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgPool};

async fn insert(pool: &PgPool, gid: &str) {
    let steps = json!([{"action": ""}]);
    sqlx::query("insert into pgsaga.saga (gid, steps) values ($1, $2)")
        .bind(gid)
        .bind(steps)
        .execute(pool)
        .await
        .unwrap();
}

/// Whether inserting this saga notified. A notification of our own behind it shows that the queue
/// was delivered that far.
async fn notifies(listener: &mut PgListener, pool: &PgPool, gid: &str) -> bool {
    insert(pool, gid).await;
    sqlx::query("select pg_notify('pgsaga', $1)").bind(gid).execute(pool).await.unwrap();
    let mut notified = false;
    loop {
        let notification = tokio::time::timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        match notification.payload() {
            "" => notified = true,
            payload if payload == gid => return notified,
            _ => {}
        }
    }
}

async fn someone_is_idle(pool: &PgPool) -> Option<()> {
    let held: i64 = sqlx::query_scalar("select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database())")
        .fetch_one(pool)
        .await
        .unwrap();
    (held > 0).then_some(())
}

#[tokio::test]
async fn an_insert_notifies_only_while_a_worker_is_idle() {
    let mut scene = Scene::new().await;
    let mut listener = PgListener::connect(scene.db.url()).await.unwrap();
    listener.listen("pgsaga").await.unwrap();
    assert!(!notifies(&mut listener, scene.pool(), "nobody").await, "nobody would be woken");

    scene.start_worker(&[]).await;
    scene.ended("nobody").await;
    eventually(PATIENCE, "the worker is idle", async || someone_is_idle(scene.pool()).await).await;
    assert!(notifies(&mut listener, scene.pool(), "idle").await);
    scene.ended("idle").await;

    // Both of its places are taken by calls that do not end: it is not idle. (Killed, its last
    // claim could still be run, and bring one of them to a worker that is gone.)
    scene.workers[0].terminate();
    scene.workers[0].wait_exit(PATIENCE).await;
    scene.workers.clear();
    let gate = Gate::new();
    for gid in ["busy-1", "busy-2"] {
        scene
            .saga(gid)
            .column("request_timeout", "'60 seconds'")
            .step("a")
            .action(Behaviour::Gate(gate.clone()))
            .insert()
            .await;
    }
    scene.start_worker(&["--concurrency", "1"]).await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    eventually(PATIENCE, "both are held", async || {
        (scene.metric("pgsaga_tasks_held").await == 2.0).then_some(())
    })
    .await;
    eventually(PATIENCE, "the worker is not idle", async || {
        someone_is_idle(scene.pool()).await.is_none().then_some(())
    })
    .await;
    assert!(!notifies(&mut listener, scene.pool(), "busy").await);
    gate.open();
    scene.all_ended(PATIENCE).await;
}

/// docs/races.md, R19: an INSERT that was open when the worker looked is not announced. So the
/// first looks follow each other at 2, 4, 8 … ms: eight take half a second, and eight seconds where
/// each came a second after the last.
#[tokio::test]
async fn a_worker_that_has_just_become_idle_looks_again_soon() {
    let scene = Scene::with_worker().await;
    eventually(Duration::from_secs(5), "eight polls", async || {
        (scene.metric("pgsaga_wakeups_total{source=\"poll\"}").await >= 8.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_worker_is_woken_at_once() {
    let scene = Scene::with_worker().await;
    let mut waits = Vec::new();
    for n in 0..15 {
        eventually(PATIENCE, "the worker is idle", async || someone_is_idle(scene.pool()).await).await;
        let gid = format!("s-{n}");
        let saga = scene.saga(&gid).step("a");
        let inserted = std::time::Instant::now();
        saga.insert().await;
        let call = scene.participant.wait_for_calls(n + 1, PATIENCE).await.pop().unwrap();
        waits.push(call.started - inserted);
        scene.ended(&gid).await;
    }
    waits.sort();
    // The poll of an idle worker comes only once a second: its median would be half of that.
    assert!(waits[waits.len() / 2] < Duration::from_millis(250), "{waits:?}");
    assert!(scene.metric("pgsaga_wakeups_total{source=\"notify\"}").await > 0.0);
}

/// As an INSERT does.
#[tokio::test]
async fn a_completion_wakes_an_idle_worker_at_once() {
    let scene = Scene::with_worker().await;
    let mut waits = Vec::new();
    for n in 0..15 {
        let gid = format!("s-{n}");
        scene.saga(&gid).step("approval").waits(86_400.0).step("ship").insert().await;
        eventually(PATIENCE, "the worker is idle", async || someone_is_idle(scene.pool()).await).await;
        let completed = std::time::Instant::now();
        scene.complete(&format!("'{gid}', 'approval', 'success'")).await.unwrap();
        let call = scene.participant.wait_for_calls(n + 1, PATIENCE).await.pop().unwrap();
        waits.push(call.started - completed);
        scene.ended(&gid).await;
    }
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_millis(250), "{waits:?}");
    assert!(scene.metric("pgsaga_wakeups_total{source=\"notify\"}").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_uses_two_phase_commit_switches_notify_off() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    sqlx::raw_sql("alter system set max_prepared_transactions = 4").execute(scene.pool()).await.unwrap();
    tokio::task::block_in_place(|| cluster.server().restart_immediate()).unwrap();
    scene.start_worker(&[]).await;
    eventually(PATIENCE, "the worker is idle", async || someone_is_idle(scene.pool()).await).await;
    let insert = |gid: &str, off: &str| {
        AssertSqlSafe(format!(
            "begin; {off} insert into pgsaga.saga (gid, steps) values ('{gid}', '[{{\"action\": \"\"}}]'); prepare transaction '{gid}'"
        ))
    };
    let mut session = scene.pool().acquire().await.unwrap();
    let refused = sqlx::raw_sql(insert("notifies", "")).execute(&mut *session).await.unwrap_err();
    assert!(refused.to_string().contains("NOTIFY"), "{refused}");
    sqlx::raw_sql("rollback").execute(&mut *session).await.unwrap();
    sqlx::raw_sql(insert("quiet", "set local pgsaga.notify = off;")).execute(&mut *session).await.unwrap();
    sqlx::raw_sql("commit prepared 'quiet'").execute(&mut *session).await.unwrap();
    scene.expect("quiet", "succeeded", None, &[]).await;
    assert_eq!(scene.status("notifies").await, None);
}

/// A frozen process reads no notifications. Its session would hold back vacuum, and fill the queue
/// of notifications until no producer's INSERT could commit.
#[tokio::test]
async fn the_server_ends_the_listening_session_of_a_frozen_worker_and_no_other() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--lease-seconds", "2"]).await;
    let listening = "select pid, state_change - backend_start > interval '5 seconds' as lasts from pg_stat_activity
        where datname = current_database() and application_name = 'pgsaga listen' and wait_event = 'ClientRead'";
    let session = async || -> Option<(i32, bool)> {
        sqlx::query_as(listening).fetch_optional(scene.pool()).await.unwrap()
    };
    let (first, _) = eventually(PATIENCE, "it listens", session).await;
    let lasting =
        eventually(PATIENCE, "an idle worker keeps its session beyond the limit of 3 s", async || {
            session().await.filter(|(_, lasts)| *lasts)
        });
    assert_eq!(lasting.await.0, first);
    let pool = scene.pool().clone();
    scene.workers[0].stop_signal();
    eventually(PATIENCE, "the server ends the session", async || {
        let session: Option<(i32, bool)> = sqlx::query_as(listening).fetch_optional(&pool).await.unwrap();
        session.is_none().then_some(())
    })
    .await;
    assert!(someone_is_idle(&pool).await.is_none(), "producers still notify");
    scene.workers[0].continue_signal();
    eventually(PATIENCE, "it listens again", async || {
        (scene.metric("pgsaga_listener_up").await == 1.0).then_some(())
    })
    .await;
}
