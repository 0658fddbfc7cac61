//! The sequence of saga ids jumps, or gives ids that no saga gets. History partitions are made for
//! ids that sagas have.

use std::time::{Duration, Instant};

use pgsaga_sql::query;
use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Cluster, eventually, sized};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::task::block_in_place;

use super::retention::{DROPPED, eventually_counts, partitions, sql};
use crate::session::connect;

const MISSING: &str = "pgsaga_history_partition_missing";
const FIRST: std::ops::RangeInclusive<i64> = 0..=8;

async fn jump(scene: &Scene, to: i64) {
    sql(scene, &format!("select setval('pgsaga.saga_id_seq', {to})")).await;
}

#[tokio::test]
async fn a_jump_costs_a_running_worker_and_a_new_one_nothing_that_grows_with_it() {
    let mut scene = Scene::with_worker().await;
    for (gid, to) in [("far", 3_000_000_000), ("farthest", 9_223_372_036_854_775_000)] {
        jump(&scene, to).await;
        scene.saga(gid).step("a").step("b").insert().await;
        scene.expect(gid, "succeeded", None, &["a action", "b action"]).await;
    }
    scene.workers[0].wait_for_log("the history has no partition for a saga", PATIENCE).await;
    let expected = [Vec::from_iter(FIRST), Vec::from_iter(3000..=3008), vec![9_223_372_036_854]].concat();
    assert_eq!(partitions(&scene).await, expected);
    assert_eq!(scene.workers[0].get("/readyz").await.unwrap().0, 200);
    assert_eq!(scene.metric(MISSING).await, 0.0);
    run(&scene.db, &["doctor"]).fine();
    run(&scene.db, &["show", "farthest"]).fine();

    // A new worker, which also deletes what no saga needs any more.
    scene.workers[0].terminate();
    scene.workers[0].wait_exit(PATIENCE).await;
    scene.workers.clear();
    sql(&scene, "update pgsaga.saga set created_at = created_at - interval '3 days', finished_at = finished_at - interval '3 days'").await;
    scene.start_worker(&["--retention", "1m"]).await;
    eventually_counts(&scene, "pgsaga_purged_history_rows_total", 2.0).await;
    eventually_counts(&scene, DROPPED, 18.0).await;
    assert_eq!(partitions(&scene).await, [9_223_372_036_854]);
    assert_eq!(scene.metric("pgsaga_database_errors_total{class=\"data\"}").await, 0.0);
}

#[tokio::test]
async fn ids_that_no_saga_got_need_no_partition() {
    let scene = Scene::new().await;
    sql(
        &scene,
        "insert into pgsaga.saga (gid, steps) select 'same', '[{\"action\": \"\"}]' from generate_series(1, 1000)
         on conflict (gid) do nothing",
    )
    .await;
    let drawn = "select last_value from pgsaga.saga_id_seq";
    let drawn: i64 = sqlx::query_scalar(drawn).fetch_one(scene.pool()).await.unwrap();
    assert_eq!(drawn, 1000, "a repeat burns an id");
    // As after so many repeats.
    jump(&scene, 15_000_000).await;
    let made: i32 = sqlx::query_scalar(query::MAKE_HISTORY_PARTITIONS).fetch_one(scene.pool()).await.unwrap();
    assert_eq!((made, partitions(&scene).await), (0, Vec::from_iter(FIRST)));
}

/// Somebody holds a lock on the history: the worker says so, and goes on once the lock is gone.
#[tokio::test]
async fn a_worker_that_cannot_make_a_partition_says_so() {
    let mut scene = Scene::with_worker().await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    open.execute("lock table pgsaga.history in share update exclusive mode").await.unwrap();
    jump(&scene, 3_000_000_000).await;
    scene.saga("far").step("a").insert().await;
    scene.workers[0].wait_for_log("history partitions cannot be made", PATIENCE).await;
    let (code, why) = scene.workers[0].get("/readyz").await.unwrap();
    assert!(code == 503 && why.contains("the history has no partition for a saga"), "{code} {why}");
    assert_eq!(scene.metric(MISSING).await, 1.0);
    // Others start, and work on sagas that need no new partition.
    jump(&scene, 1000).await;
    scene.start_worker(&[]).await;
    scene.saga("near").step("a").insert().await;
    assert_eq!(scene.ended("near").await.0, "succeeded");
    open.rollback().await.unwrap();
    assert_eq!(scene.ended("far").await.0, "succeeded");
    for worker in &scene.workers {
        eventually(PATIENCE, "each worker is ready", async || {
            (worker.get("/readyz").await.unwrap().0 == 200).then_some(())
        })
        .await;
    }
    assert_eq!(scene.metric(MISSING).await, 0.0);
}

/// No worker has made the partition of the saga that a person decides about.
#[tokio::test]
async fn a_decision_needs_no_worker_for_its_partition() {
    let scene = Scene::new().await;
    jump(&scene, 3_000_000_000).await;
    scene.saga("far").step("a").insert().await;
    run(&scene.db, &["abort", "far", "--reason", "no longer needed"]).fine();
    assert_eq!(partitions(&scene).await, [Vec::from_iter(FIRST), Vec::from_iter(3000..=3008)].concat());
    scene.healthy().await;
}

/// Planned for every partition, the checks took three minutes beside 2,009 of them. What the plans
/// open stays locked until the transaction ends.
#[tokio::test]
async fn the_checks_open_only_partitions_that_hold_rows() {
    let scene = Scene::with_worker().await;
    scene.saga("one").step("a").insert().await;
    scene.expect("one", "succeeded", None, &["a action"]).await;
    jump(&scene, 7_000_000).await;
    scene.saga("seven").step("a").insert().await;
    scene.expect("seven", "succeeded", None, &["a action"]).await;
    let mut snapshot = scene.pool().begin().await.unwrap();
    snapshot.execute("set transaction isolation level repeatable read, read only").await.unwrap();
    let filled: Vec<i64> =
        sqlx::query_scalar(query::FILLED_HISTORY_PARTITIONS).fetch_all(&mut *snapshot).await.unwrap();
    assert_eq!(filled, [0, 7]);
    for check in pgsaga_sql::CHECKS {
        snapshot.execute(AssertSqlSafe(check.among(&filled))).await.unwrap();
    }
    let opened = "select c.relname::text from pg_locks l join pg_class c on c.oid = l.relation
        where l.pid = pg_backend_pid() and c.relname ~ '^history_[0-9]+$' order by 1";
    let opened: Vec<String> = sqlx::query_scalar(opened).fetch_all(&mut *snapshot).await.unwrap();
    assert_eq!(opened, ["history_0", "history_7"]);
}

/// A small run has 209 partitions.
#[tokio::test]
async fn doctor_is_quick_beside_many_partitions() {
    let scene = Scene::new().await;
    let most = sized(208, 2008);
    // A few at a time, because a transaction holds its locks to the end.
    for first in (9..=most).step_by(100) {
        let last = most.min(first + 99);
        let make = format!(
            "do $$ begin
               for n in {first}..{last} loop
                 execute format('create table pgsaga.history_%s partition of pgsaga.history for values from (%s) to (%s)',
                                n, n::bigint * 1000000, (n + 1)::bigint * 1000000);
               end loop;
             end $$"
        );
        sql(&scene, &make).await;
    }
    assert_eq!(partitions(&scene).await.len(), most + 1);
    let started = Instant::now();
    run(&scene.db, &["doctor"]).fine();
    let took = started.elapsed();
    println!("doctor took {took:?} beside {} partitions", most + 1);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

/// Found by the chaos test: the copy gave the number of a lane twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_template_gives_no_number_again_after_a_crash() {
    let cluster = Cluster::own(false, false).await;
    let db = cluster.database().await;
    let insert = |queue: &str| {
        format!(r#"insert into pgsaga.saga (queue, steps) values ('{queue}', '[{{"action": ""}}]')"#)
    };
    for queue in ["one", "two"] {
        sqlx::raw_sql(AssertSqlSafe(insert(queue))).execute(db.pool()).await.unwrap();
    }
    block_in_place(|| cluster.server().restart_immediate()).unwrap();
    eventually(PATIENCE, "the server is back", async || {
        sqlx::raw_sql("select").execute(db.pool()).await.ok().map(drop)
    })
    .await;
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
    sqlx::raw_sql(AssertSqlSafe(insert("three"))).execute(db.pool()).await.unwrap();
    let lanes: i64 =
        sqlx::query_scalar("select count(distinct id) from pgsaga.lane").fetch_one(db.pool()).await.unwrap();
    assert_eq!(lanes, 4);
}
