//! What the database refuses to delete costs retention itself only: the others go, and it is named
//! and counted.

use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};

use super::retention::{eventually_counts, partitions, sql, succeeded};

const PURGED_SAGAS: &str = "pgsaga_purged_sagas_total";
const PURGED_ROWS: &str = "pgsaga_purged_history_rows_total";

fn refused(what: &str) -> String {
    format!("pgsaga_retention_refused{{what=\"{what}\"}}")
}

async fn count(scene: &Scene, from: &str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("select count(*) from {from}"));
    sqlx::query_scalar(count).fetch_one(scene.pool()).await.unwrap()
}

/// Also one that is checked at the commit only.
#[tokio::test]
async fn a_foreign_key_keeps_its_own_sagas_only() {
    for deferred in ["", "deferrable initially deferred"] {
        let mut scene = Scene::new().await;
        succeeded(&scene, 1, 2000, "3 days").await;
        let table = format!("create table public.orders (gid text references pgsaga.saga (gid) {deferred})");
        sql(&scene, &table).await;
        sql(&scene, "insert into orders select 'old-' || n from generate_series(100, 900, 100) n").await;
        scene.start_worker(&["--retention", "1m"]).await;
        eventually_counts(&scene, PURGED_SAGAS, 1991.0).await;
        eventually_counts(&scene, PURGED_ROWS, 1991.0).await;
        eventually_counts(&scene, &refused("saga"), 9.0).await;
        assert_eq!((count(&scene, "pgsaga.saga").await, count(&scene, "pgsaga.history").await), (9, 9));
        let said = scene.workers[0].wait_for_log("the database refuses to delete", PATIENCE).await;
        assert!(said.contains("saga old-100") && said.contains("orders_gid_fkey"), "{said}");
        assert_eq!(scene.metric("pgsaga_database_errors_total{class=\"data\"}").await, 0.0);

        sql(&scene, "drop table orders").await;
        eventually_counts(&scene, PURGED_SAGAS, 2000.0).await;
        eventually_counts(&scene, &refused("saga"), 0.0).await;
        scene.healthy().await;
    }
}

/// One raises, one keeps a saga without a word, and one keeps rows of the history.
#[tokio::test]
async fn a_trigger_keeps_its_own_rows_only() {
    let mut scene = Scene::new().await;
    succeeded(&scene, 1, 50, "3 days").await;
    sql(
        &scene,
        "create function public.keep() returns trigger language plpgsql as $$ begin
           if old.gid = 'old-7' then raise exception 'an auditor forbids it'; end if;
           return case when old.gid = 'old-9' then null else old end;
         end $$;
         create trigger keep before delete on pgsaga.saga for each row execute function public.keep();
         create function public.keep_history() returns trigger language plpgsql as $$ begin
           if old.saga_id = 20 then raise exception 'the history stays'; end if;
           return case when old.saga_id = 30 then null else old end;
         end $$;
         create trigger keep before delete on pgsaga.history for each row execute function public.keep_history()",
    )
    .await;
    scene.start_worker(&["--retention", "1m"]).await;
    eventually_counts(&scene, PURGED_SAGAS, 48.0).await;
    eventually_counts(&scene, PURGED_ROWS, 46.0).await;
    eventually_counts(&scene, &refused("saga"), 2.0).await;
    let said = scene.workers[0].wait_for_log("the database refuses to delete", PATIENCE).await;
    assert!(said.contains("saga old-7") && said.contains("an auditor forbids it"), "{said}");

    sql(&scene, "drop trigger keep on pgsaga.saga").await;
    eventually_counts(&scene, PURGED_SAGAS, 50.0).await;
    eventually_counts(&scene, &refused("saga"), 0.0).await;
    assert!(scene.metric(&refused("history")).await >= 1.0);
    sql(&scene, "drop trigger keep on pgsaga.history").await;
    eventually(PATIENCE, "the history is gone", async || {
        (count(&scene, "pgsaga.history").await == 0).then_some(())
    })
    .await;
    eventually_counts(&scene, &refused("history"), 0.0).await;
}

#[tokio::test]
async fn a_partition_that_somebody_depends_on_holds_up_no_other() {
    let mut scene = Scene::new().await;
    sql(&scene, "select setval('pgsaga.saga_id_seq', 3000000, false)").await;
    sql(&scene, "create view public.mine as select saga_id from pgsaga.history_0").await;
    scene.start_worker(&["--retention", "1m"]).await;
    eventually_counts(&scene, super::retention::DROPPED, 2.0).await;
    assert_eq!(partitions(&scene).await, [vec![0], Vec::from_iter(3..=8)].concat());
    let said = scene.workers[0].wait_for_log("the database refuses to delete", PATIENCE).await;
    assert!(said.contains("partition history_0") && said.contains("other objects depend on it"), "{said}");
    eventually_counts(&scene, &refused("partition"), 1.0).await;
    sql(&scene, "drop view public.mine").await;
    eventually_counts(&scene, super::retention::DROPPED, 3.0).await;
    eventually_counts(&scene, &refused("partition"), 0.0).await;
}
