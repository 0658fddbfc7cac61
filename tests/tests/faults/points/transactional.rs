//! A process dies with transactional handlers in it: at each statement of theirs and of the worker.

use std::fs::File;

use nix::sys::signal::Signal;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Cluster, Vault, binary, eventually, sized};
use tokio::task::spawn_blocking;

/// Where the process dies.
const POINTS: [&str; 14] = [
    "claim:before",
    "claim:after",
    "handler_begin:before",
    "handler_begin:after",
    "handler:written",
    "handler_settle:before",
    "handler_settle:after",
    "handler_commit:before",
    "handler_commit:after",
    "settle:before",
    "settle:after",
    "rescue:before",
    "rescue:after",
    "heartbeat:before",
];

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_process_dies_a_transactional_handler_took_effect_once_or_not_at_all() {
    spawn_blocking(binary::failing).await.unwrap();
    let cluster = Cluster::own(true, false).await;
    let scene = Scene::on(&cluster).await;
    Vault::found(scene.pool()).await;
    let sagas = sized(60, 200);
    for point in POINTS {
        let folder = tempfile::tempdir().unwrap();
        let armed = folder.path().join("armed");
        let mortal = Vault::start(scene.db.url(), Some((point, &armed)));
        // There is something to rescue.
        let killed = point.starts_with("rescue").then(|| Vault::start(scene.db.url(), None));
        Vault::insert(scene.pool(), &point.replace(':', "-"), sagas as i32, 20).await;
        eventually(PATIENCE, "some sagas have ended", async || {
            let ended = "select count(*) from pgsaga.saga where finished_at is not null and gid like $1";
            let pattern = format!("{}-%", point.replace(':', "-"));
            let ended: i64 = sqlx::query_scalar(ended).bind(pattern).fetch_one(scene.pool()).await.unwrap();
            (ended > 3).then_some(())
        })
        .await;
        drop(killed);
        File::create(&armed).unwrap();
        spawn_blocking(move || mortal.died()).await.unwrap();
        let next = Vault::start(scene.db.url(), None);
        scene.all_ended(PATIENCE).await;
        Vault::audit(scene.pool()).await;
        scene.healthy().await;
        drop(next);
    }
    // What was lost with a worker is known to have had no effect.
    let outcomes: Vec<String> =
        sqlx::query_scalar("select distinct outcome from pgsaga.history where kind = 'attempt' order by 1")
            .fetch_all(scene.pool())
            .await
            .unwrap();
    assert_eq!(outcomes, ["failure", "success", "unsent"]);
}

/// Frozen in their handlers, a worker's transactions keep the rows that they have locked, and its
/// sagas go to another worker. Postgres ends them after `request_timeout` and a lease. When the
/// worker thaws, it can record nothing, so nothing of what it did takes effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_frozen_in_its_handlers_changes_nothing_when_it_thaws() {
    spawn_blocking(binary::failing).await.unwrap();
    let cluster = Cluster::own(true, false).await;
    let scene = Scene::on(&cluster).await;
    Vault::found(scene.pool()).await;
    let frozen = Vault::start(scene.db.url(), None);
    Vault::insert(scene.pool(), "s", 40, 500).await;
    eventually(PATIENCE, "handlers run", async || {
        let open = "select count(*) from pg_stat_activity where application_name = 'pgsaga handler' and state = 'idle in transaction'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(scene.pool()).await.unwrap();
        (open > 3).then_some(())
    })
    .await;
    frozen.signal(Signal::SIGSTOP);
    let next = Vault::start(scene.db.url(), None);
    scene.all_ended(2 * PATIENCE).await;
    Vault::audit(scene.pool()).await;
    frozen.signal(Signal::SIGCONT);
    // It registers anew, and works on.
    drop(next);
    Vault::insert(scene.pool(), "t", 8, 0).await;
    scene.all_ended(PATIENCE).await;
    Vault::audit(scene.pool()).await;
    scene.healthy().await;
}
