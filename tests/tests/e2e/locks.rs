//! Settles and rescues wait for no row (RACES 8): what somebody has locked is left out, and done a moment later.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::json;
use sqlx::Connection as _;

use crate::session::{Claims, claims, connect, declare_dead, rescue};

/// One open psql holds the saga, or its task, while the answer comes.
async fn one_that_is_locked_holds_up_nobody(parallel: bool, lock: &str) {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = |gid: &str| {
        let saga = scene.saga(gid).column("request_timeout", "'60 seconds'").step("a");
        let saga = if parallel { saga.with("after", json!([])) } else { saga };
        if gid == "locked" { saga.action(Behaviour::Gate(gate.clone())) } else { saga }
    };
    saga("locked").step("b").with("after", json!(["a"])).insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock.to_owned())).execute(&mut *open).await.unwrap();
    gate.open();
    eventually(Duration::from_secs(8), "a settle goes round the lock", async || {
        (scene.metric("pgsaga_settled_total{answer=\"locked\"}").await > 0.0).then_some(())
    })
    .await;
    saga("free").insert().await;
    scene.expect("free", "succeeded", None, &["a action"]).await;
    assert_eq!(scene.history("locked").await, Vec::<String>::new());
    open.rollback().await.unwrap();
    scene.expect("locked", "succeeded", None, &["a action", "b action"]).await;
}

const SAGA: &str = "select from pgsaga.saga where gid = 'locked' for update";
const TASK: &str = "select from pgsaga.task for update";

#[tokio::test]
async fn a_settle_waits_for_no_task() {
    one_that_is_locked_holds_up_nobody(false, TASK).await;
}

#[tokio::test]
async fn a_settle_of_a_parallel_saga_waits_for_no_saga() {
    one_that_is_locked_holds_up_nobody(true, SAGA).await;
}

#[tokio::test]
async fn a_settle_of_a_parallel_saga_waits_for_no_task() {
    one_that_is_locked_holds_up_nobody(true, TASK).await;
}

#[tokio::test]
async fn a_rescue_waits_for_neither_saga_nor_task() {
    let Claims { scene, mut session, worker, .. } = claims(3, 1).await;
    assert_eq!(declare_dead(&mut session, worker).await, 1);
    sqlx::raw_sql("set lock_timeout = '5s'").execute(&mut session).await.unwrap();
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql("select from pgsaga.saga where gid = 's000' for update").execute(&mut *open).await.unwrap();
    let lock =
        "select from pgsaga.task where saga_id = (select id from pgsaga.saga where gid = 's001') for update";
    sqlx::raw_sql(lock).execute(&mut *open).await.unwrap();
    assert_eq!(rescue(&mut session, worker).await, 1, "the third");
    open.rollback().await.unwrap();
    assert_eq!(rescue(&mut session, worker).await, 2);
    scene.healthy().await;
}
