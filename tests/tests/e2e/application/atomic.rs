//! A saga exists if and only if its transaction committed.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::json;
use sqlx::postgres::PgPoolCopyExt as _;

#[tokio::test]
async fn a_committed_saga_runs_and_a_rolled_back_one_never_calls_anyone() {
    let scene = Scene::with_worker().await;
    let steps = |gid: &str| scene.saga(gid).step("stock").step("pay").steps();
    let insert = "insert into pgsaga.saga (gid, steps) values ($1, $2)";

    let mut rolled_back = scene.pool().begin().await.unwrap();
    sqlx::query(insert).bind("never").bind(steps("never")).execute(&mut *rolled_back).await.unwrap();
    let mut committed = scene.pool().begin().await.unwrap();
    sqlx::raw_sql("create table business (order_no int)").execute(&mut *committed).await.unwrap();
    sqlx::query(insert).bind("order-1").bind(steps("order-1")).execute(&mut *committed).await.unwrap();
    sqlx::raw_sql("insert into business values (1)").execute(&mut *committed).await.unwrap();
    assert!(scene.participant.calls().is_empty(), "nothing runs before the commit");
    rolled_back.rollback().await.unwrap();
    committed.commit().await.unwrap();

    scene.expect("order-1", "succeeded", None, &["stock action", "pay action"]).await;
    // A later saga has been through the whole queue: what was rolled back would have been before
    // it.
    scene.saga("later").step("one").insert().await;
    scene.expect("later", "succeeded", None, &["one action"]).await;
    assert!(scene.participant.calls_for("never").is_empty());
    assert_eq!(scene.status("never").await, None);
}

#[tokio::test]
async fn on_conflict_do_nothing_makes_no_second_task() {
    let scene = Scene::with_worker().await;
    let steps = scene.saga("twice").step("one").steps();
    for created in [1, 0, 0] {
        let done = sqlx::query(
            "insert into pgsaga.saga (gid, steps) values ('twice', $1) on conflict (gid) do nothing",
        )
        .bind(&steps)
        .execute(scene.pool())
        .await
        .unwrap();
        assert_eq!(done.rows_affected(), created);
    }
    scene.expect("twice", "succeeded", None, &["one action"]).await;
    let error = sqlx::query("insert into pgsaga.saga (gid, steps) values ('twice', $1)")
        .bind(&steps)
        .execute(scene.pool())
        .await
        .unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23505");
    let tasks: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.task").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(tasks, 0);
}

#[tokio::test]
async fn copy_of_a_thousand_sagas_runs_them() {
    let scene = Scene::with_worker().await;
    let url = scene.participant.url("/copied");
    let mut copy = scene.pool().copy_in_raw("copy pgsaga.saga (gid, steps) from stdin").await.unwrap();
    for n in 0..1000 {
        let steps = json!([{"action": url, "payload": {"n": n}}]);
        copy.send(format!("copied-{n}\t{steps}\n").into_bytes()).await.unwrap();
    }
    assert_eq!(copy.finish().await.unwrap(), 1000);
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("succeeded").await, 1000);
    assert_eq!(scene.participant.calls().len(), 1000);
    scene.healthy().await;
}

/// Large and legal: what a worker holds in memory is bounded by bytes, not only by count.
#[tokio::test]
async fn many_large_sagas_do_not_fill_a_workers_memory() {
    let mut scene = Scene::new().await;
    let url = scene.participant.url("/large");
    sqlx::query(
        "insert into pgsaga.saga (gid, steps) select 'large-' || n, jsonb_build_array(jsonb_build_object('action', $1::text, 'payload', repeat('x', 1000000)))
         from generate_series(1, 300) n",
    )
    .bind(&url)
    .execute(scene.pool())
    .await
    .unwrap();
    scene.start_worker(&[]).await;
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("succeeded").await, 300);
    let status = std::fs::read_to_string(format!("/proc/{}/status", scene.workers[0].pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak_kb: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kb < 300 * 1024, "300 MB of sagas took {peak_kb} kB");
}

#[tokio::test]
async fn a_gid_left_out_is_a_time_ordered_uuid() {
    let scene = Scene::new().await;
    let steps = json!([{"action": ""}]);
    let mut gids: Vec<String> = Vec::new();
    for _ in 0..3 {
        gids.push(
            sqlx::query_scalar("insert into pgsaga.saga (steps) values ($1) returning gid")
                .bind(&steps)
                .fetch_one(scene.pool())
                .await
                .unwrap(),
        );
        tokio::time::sleep(Duration::from_millis(2)).await; // the clock of a version 7 UUID has milliseconds
    }
    assert!(gids.is_sorted(), "{gids:?}");
    assert!(gids.iter().all(|gid| gid.len() == 36 && gid.as_bytes()[14] == b'7'), "{gids:?}");
}

#[tokio::test]
async fn a_thousand_sagas_take_a_constant_number_of_claims_and_settles() {
    let mut scene = Scene::new().await;
    let url = scene.participant.url("/many");
    sqlx::query("insert into pgsaga.saga (gid, steps) select 'many-' || n, jsonb_build_array(jsonb_build_object('action', $1::text), jsonb_build_object('action', $1::text)) from generate_series(1, 1000) n")
        .bind(&url)
        .execute(scene.pool())
        .await
        .unwrap();
    scene.start_worker(&["--concurrency", "1000"]).await;
    scene.all_ended(PATIENCE).await;
    let claims = scene.metric("pgsaga_claims_total{result=\"hit\"}").await;
    assert!(claims <= 2.0, "1,000 due sagas are one claim; their second steps are chained");
    let settles = scene.metric("pgsaga_settle_group_tasks_count").await;
    assert!(settles < 500.0, "2,000 outcomes were settled by {settles} statements");
    assert_eq!(scene.metric("pgsaga_settled_total{result=\"applied\"}").await, 2000.0);
    scene.healthy().await;
}
