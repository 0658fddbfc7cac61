//! A handler of a long call runs while Postgres is away.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Cluster, Pair, Replication};
use pgsaga_worker::{Call, HandlerError, Participant};
use serde_json::json;
use tokio::sync::Notify;

/// Ends when it may, or, where it `obeys`, as soon as it is asked to.
fn long(obeys: bool) -> (Arc<Notify>, Arc<Notify>, Participant) {
    let (began, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&began), Arc::clone(&may_end));
    let work = move |call: Call<()>| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            if call.attempt() > 1 {
                return Ok(());
            }
            tell.notify_one();
            tokio::select! {
                () = wait.notified() => Ok(()),
                () = call.cancellation().cancelled(), if obeys => Err(HandlerError::from("asked to end")),
            }
        }
    };
    let quick = |_: Call<()>| std::future::ready(Ok::<(), HandlerError>(()));
    (began, may_end, Participant::new("long").action("work", work).action("quick", quick))
}

async fn insert(scene: &Scene, gid: &str, path: &str) {
    let steps = json!([{"name": "work", "action": format!("participant:long/{path}")}]);
    let insert = "insert into pgsaga.saga (gid, retry_interval, request_timeout, steps) values ($1, '20 milliseconds', '6 hours', $2)";
    sqlx::query(insert).bind(gid).bind(steps).execute(scene.pool()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_runs_on_while_postgres_restarts_and_its_attempt_is_the_only_one() {
    let cluster = Cluster::own(true, false).await;
    let scene = Scene::on(&cluster).await;
    let (began, may_end, participant) = long(false);
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(participant)).await;
    insert(&scene, "s", "work").await;
    began.notified().await;
    cluster.server().kill().unwrap();
    // Longer than the lease.
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.server().start_again().unwrap();
    insert(&scene, "t", "quick").await;
    assert_eq!(scene.ended("t").await.0, "succeeded");
    may_end.notify_one();
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    assert_eq!(scene.history("s").await, ["work action 1 success"]);
    scene.healthy().await;
    worker.ended().await;
}

/// The promoted server continues another history. There the attempt is unknown, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_asked_to_end_when_a_standby_is_promoted_and_the_saga_goes_on_there() {
    let pair = Pair::new(Replication::Synchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    let (began, _may_end, participant) = long(true);
    let builder = LocalWorker::builder(&pair.url(&scene.db)).participant(participant);
    let worker = LocalWorker::start(builder).await;
    insert(&scene, "s", "work").await;
    began.notified().await;
    pair.kill_primary();
    pair.promote().await;
    scene.db.move_to(&pair.standby);
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    assert_eq!(scene.history("s").await, ["work action 1 unknown", "work action 2 success"]);
    scene.healthy().await;
    worker.ended().await;
}
