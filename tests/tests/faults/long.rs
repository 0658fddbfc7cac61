//! Long transactions under load: one that has written and sits idle, and four that read and hold
//! their snapshots. Vacuum can remove nothing that died since; nothing may stall. `LONG_SECONDS=600
//! cargo test -p pgsaga-tests --test faults long --
//! --nocapture` is the long run.

use std::time::{Duration, Instant};

use pgsaga_tests::scene::{PATIENCE, SAMPLE_PATIENCE, Scene};
use pgsaga_tests::{Cluster, eventually, setting, sized};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection as _, raw_sql};

/// How often a batch of sagas comes.
const BATCH_EVERY: Duration = Duration::from_millis(100);
const BATCH: i32 = 20;
/// A debug build on a busy machine; without the watermark's progress a claim takes longer than that
/// after a while.
const SAGA_MAX: Duration = Duration::from_secs(5);

async fn open(scene: &Scene, begin: &'static str) -> PgConnection {
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    raw_sql(begin).execute(&mut session).await.unwrap();
    session
}

/// Pages of the hot table that were read so far, and claims made.
async fn cost(scene: &Scene) -> (f64, f64) {
    let pages: i64 = sqlx::query_scalar(
        "select heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read from pg_statio_user_tables
         where schemaname = 'pgsaga' and relname = 'task'",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    let claims = scene.metric("pgsaga_claims_total{result=\"hit\"}").await
        + scene.metric("pgsaga_claims_total{result=\"empty\"}").await;
    (pages as f64, claims)
}

async fn insert(pool: &PgPool, url: &str) {
    sqlx::query(
        "insert into pgsaga.saga (steps) select jsonb_build_array(jsonb_build_object('action', $1::text),
           jsonb_build_object('action', $1::text)) from generate_series(1, $2)",
    )
    .bind(url)
    .bind(BATCH)
    .execute(pool)
    .await
    .unwrap();
}

/// Age in seconds of the oldest saga that has not ended.
async fn oldest(scene: &Scene) -> f64 {
    sqlx::query_scalar(
        "select coalesce(max(date_part('epoch', clock_timestamp() - created_at)), 0) from pgsaga.saga where finished_at is null",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stalls_beside_transactions_that_stay_open() {
    let seconds = setting("LONG_SECONDS", sized(20, 60));
    let cluster = Cluster::own(true, false).await;
    let mut scene = Scene::on(&cluster).await;
    for _ in 0..2 {
        // The lease as it comes: once in it a worker looks through all that it holds.
        scene.start_worker(&["--lease-seconds", "15"]).await;
    }
    let holder = "begin; insert into pgsaga.saga (gid, steps) values ('late', '[{\"action\": \"\"}]')";
    let mut holder = open(&scene, holder).await;
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(
            open(&scene, "begin isolation level repeatable read; select count(*) from pgsaga.task").await,
        );
    }
    let url = scene.participant.url("/s");
    let began = Instant::now();
    let duration = Duration::from_secs(seconds);
    let mut tick = tokio::time::interval(BATCH_EVERY);
    let (mut windows, mut slowest): (Vec<f64>, f64) = (Vec::new(), 0.0);
    let mut before = cost(&scene).await;
    while began.elapsed() < duration {
        tick.tick().await;
        insert(scene.pool(), &url).await;
        let window = (began.elapsed().as_secs_f64() * 10.0 / seconds as f64) as usize;
        if windows.len() < window {
            let now = cost(&scene).await;
            windows.push((now.0 - before.0) / (now.1 - before.1).max(1.0));
            before = now;
            slowest = slowest.max(oldest(&scene).await);
        }
    }
    println!("pages of the task table and its indexes a claim, in tenths of {seconds} s: {windows:.0?}");
    println!("the oldest open saga was {slowest:.2} s old");
    assert!(slowest < SAGA_MAX.as_secs_f64(), "a saga was open for {slowest} s");
    let (early, late) = (windows[1], windows[windows.len() - 1]);
    assert!(
        late < early * 2.0 + 100.0,
        "a claim read {early:.0} pages in the beginning, and {late:.0} at the end"
    );
    scene.all_ended(PATIENCE).await;

    // What cannot be bounded while they are open has a name.
    let dead = "pgsaga_dead_rows{table=\"task\"}";
    let kept = eventually(SAMPLE_PATIENCE, "the dead rows are counted", async || {
        let age = scene.metric("pgsaga_oldest_transaction_seconds").await;
        let kept = scene.metric(dead).await;
        (kept > 1000.0 && age > seconds as f64 / 2.0).then_some(kept)
    })
    .await;
    // What the holder wrote before all this is found at once, although every watermark has passed
    // it.
    let committed = Instant::now();
    raw_sql("commit").execute(&mut holder).await.unwrap();
    assert_eq!(scene.ended("late").await.0, "succeeded");
    assert!(committed.elapsed() < SAGA_MAX, "the late saga took {:?}", committed.elapsed());
    for reader in &mut readers {
        raw_sql("commit").execute(reader).await.unwrap();
    }
    // Sessions say a little later what they did before, and a vacuum that began before the last
    // commit removes nothing.
    eventually(SAMPLE_PATIENCE, "the dead rows are gone", async || {
        raw_sql("vacuum pgsaga.task").execute(scene.pool()).await.unwrap();
        (scene.metric(dead).await < kept / 10.0).then_some(())
    })
    .await;
    scene.healthy().await;
}
