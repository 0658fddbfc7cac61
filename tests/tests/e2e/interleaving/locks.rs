//! Settles and rescues wait for no row (docs/races.md, R8): what somebody has locked is left out,
//! and done a moment later.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::json;
use sqlx::Connection as _;

use crate::session::{Claims, claims, connect, declare_dead, rescue};

/// One open psql holds the saga, or its task, while the answer of its last step comes.
async fn one_that_is_locked_holds_up_nobody(parallel: bool, lock: &'static str) {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = |gid: &str| {
        let saga = scene.saga(gid).column("request_timeout", "'60 seconds'").step("a").step("b");
        if parallel { saga.with("after", json!([])) } else { saga }
    };
    saga("locked").action(Behaviour::Gate(gate.clone())).insert().await;
    scene.participant.wait_for_calls(2, PATIENCE).await;
    eventually(PATIENCE, "one step is settled", async || {
        (scene.history("locked").await.len() == 1).then_some(())
    })
    .await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql(lock).execute(&mut *open).await.unwrap();
    gate.open();
    eventually(Duration::from_secs(8), "a settle goes round the lock", async || {
        (scene.metric("pgsaga_settled_total{result=\"locked\"}").await > 0.0).then_some(())
    })
    .await;
    saga("free").insert().await;
    assert_eq!(scene.ended("free").await.0, "succeeded");
    assert_eq!(scene.history("locked").await, ["a action 1 success"]);
    open.rollback().await.unwrap();
    assert_eq!(scene.ended("locked").await.0, "succeeded");
    assert_eq!(scene.participant.calls().len(), 4);
    scene.healthy().await;
}

const SAGA: &str = "select from pgsaga.saga where gid = 'locked' for update";
const TASK: &str = "select from pgsaga.task where worker is not null for update";

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
