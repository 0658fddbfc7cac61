//! HTTP/2 participants behind TLS. One connection carries all calls, so what happens to it happens
//! to all of them.

use std::collections::HashSet;
use std::time::Duration;

use pgsaga_tests::http2::{Balancer, Http2, Tls};
use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::{Value, json};
use sqlx::query_scalar;

/// A scene whose worker trusts the participants of `tls`.
async fn scene_of(tls: &Tls, flags: &[&str]) -> Scene {
    let mut scene = Scene::new().await;
    let ca = tls.ca();
    let trust = ["--participant-ca", &ca, "--allow-address", "127.0.0.0/8,::1"];
    scene.start_worker(&[&trust[..], flags].concat()).await;
    scene
}

/// Inserts sagas of one step in one statement.
async fn insert(scene: &Scene, name: &str, count: i32, url: &str, mut columns: Value) {
    let mut step = json!({"name": "a", "action": url, "compensate": url});
    if let Some(payload) = columns.get("payload") {
        step["payload"] = payload.clone();
    }
    let steps = json!([step]);
    (columns["name"], columns["count"]) = (name.into(), count.into());
    sqlx::query(
        "insert into pgsaga.saga (gid, steps, retry_limit, retry_interval, request_timeout)
         select $1->>'name' || '-' || n, $2, ($1->>'retry_limit')::int,
           coalesce($1->>'retry_interval', '10 seconds')::interval,
           coalesce($1->>'request_timeout', '3 seconds')::interval
         from generate_series(1, ($1->>'count')::int) n",
    )
    .bind(columns)
    .bind(steps)
    .execute(scene.pool())
    .await
    .unwrap();
}

/// Every saga has succeeded, and nothing was undone.
async fn all_succeed(scene: &Scene, count: i64, patience: Duration) {
    scene.all_ended(patience).await;
    let others: Vec<String> = query_scalar(
        "select distinct outcome || ' ' || attempt || ': ' || coalesce(message, '')
         from pgsaga.saga_timeline where kind = 'attempt' and outcome <> 'success'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert_eq!(scene.count("succeeded").await, count, "{others:?}");
    scene.healthy().await;
}

async fn attempts(scene: &Scene, outcome: &str) -> i64 {
    query_scalar("select count(*) from pgsaga.saga_timeline where kind = 'attempt' and outcome = $1")
        .bind(outcome)
        .fetch_one(scene.pool())
        .await
        .unwrap()
}

fn once_each(calls: &[String], count: usize) {
    let keys: HashSet<&String> = calls.iter().collect();
    assert_eq!((calls.len(), keys.len()), (count, count), "each call reached the handler once");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_frozen_connection_gets_no_new_calls() {
    let tls = Tls::new();
    let servers = [Http2::start(&tls, json!({})), Http2::start(&tls, json!({}))];
    let balancer = Balancer::start(&[servers[0].address(), servers[1].address()]).await;
    let scene = scene_of(&tls, &["--connection-idle-seconds", "600"]).await;
    let quick = json!({"retry_interval": "200 ms", "request_timeout": "1 second"});
    insert(&scene, "first", 1, &balancer.url("/pay"), quick.clone()).await;
    all_succeed(&scene, 1, PATIENCE).await;
    let frozen = servers.iter().find(|server| !server.calls().is_empty()).unwrap();
    frozen.freeze();
    insert(&scene, "next", 5, &balancer.url("/pay"), quick.clone()).await;
    all_succeed(&scene, 6, PATIENCE).await;
    // Pings would end the connection too, but only after ten seconds and many more calls.
    let lost = attempts(&scene, "unknown").await;
    assert!((1..=9).contains(&lost), "{lost} calls on the frozen connection");
    insert(&scene, "then", 50, &balancer.url("/pay"), quick).await;
    all_succeed(&scene, 56, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn calls_leave_a_server_that_names_no_longer_lead_to_within_the_age_of_a_connection() {
    let tls = Tls::new();
    let (old, new) = (Http2::start(&tls, json!({"status": 503})), Http2::start(&tls, json!({})));
    let balancer = Balancer::start(&[old.address()]).await;
    let idle_long = ["--connection-idle-seconds", "600"];
    let scene = scene_of(&tls, &[&["--connection-age-seconds", "2"][..], &idle_long].concat()).await;
    let quick = json!({"retry_interval": "100 ms", "request_timeout": "1 second"});
    insert(&scene, "s", 100, &balancer.url("/pay"), quick).await;
    pgsaga_tests::eventually(PATIENCE, "the old server answers", async || {
        (!old.calls().is_empty()).then_some(())
    })
    .await;
    balancer.point_to(new.address());
    all_succeed(&scene, 100, PATIENCE).await;
    once_each(&new.calls(), 100);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn what_a_server_did_not_process_is_sent_again_within_the_try() {
    let tls = Tls::new();
    let refusing = Http2::start(&tls, json!({"refuseEvery": 10}));
    let closing = Http2::start(&tls, json!({"goawayEvery": 200, "answerAfterMs": 5}));
    let scene = scene_of(&tls, &[]).await;
    let once = json!({"retry_limit": 0});
    for (name, server) in [("refused", &refusing), ("closed", &closing)] {
        let balancer = Balancer::start(&[server.address()]).await;
        insert(&scene, name, 1000, &balancer.url("/pay"), once.clone()).await;
        scene.all_ended(PATIENCE).await;
        once_each(&server.calls(), 1000);
    }
    all_succeed(&scene, 2000, PATIENCE).await;
    assert_eq!(attempts(&scene, "success").await, 2000);
    assert!(scene.metric("pgsaga_calls_sent_again_total").await >= 100.0);
    // A few calls look for a connection at once, and the others wait for theirs.
    let connections = closing.connections();
    assert!((5..=30).contains(&connections), "{connections} connections for five GOAWAYs");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_call_that_waits_for_a_stream_has_not_begun() {
    let tls = Tls::new();
    let server = Http2::start(&tls, json!({"streams": 8, "answerAfterMs": 1000}));
    let balancer = Balancer::start(&[server.address()]).await;
    let scene = scene_of(&tls, &[]).await;
    // Eight calls at a time: the last of 80 waits for longer than it may take.
    let once = json!({"retry_limit": 0});
    insert(&scene, "body", 40, &balancer.url("/pay"), json!({"retry_limit": 0, "payload": {"cents": 990}}))
        .await;
    insert(&scene, "none", 40, &balancer.url("/pay"), once).await;
    all_succeed(&scene, 80, PATIENCE).await;
    once_each(&server.calls(), 80);
    assert_eq!(attempts(&scene, "success").await, 80, "no wait was a try");
    assert_eq!(scene.metric("pgsaga_breakers_open").await, 0.0);
}
