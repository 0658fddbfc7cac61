//! The connection of a handler's transaction is cut or stalled at each of its statements: the
//! handler's effect and the record of its attempt agree.

use std::time::Duration;

use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Fault, Proxy};
use pgsaga_worker::{Builder, Call, HandlerError, HandlerTransaction, TransactionalParticipant};
use serde_json::json;

use super::{all, marker, scene};

async fn work(call: Call<()>, mut transaction: HandlerTransaction) -> Result<(), HandlerError> {
    let note = sqlx::query("insert into effect (key) values ($1)").bind(call.key());
    note.execute(&mut *transaction).await?;
    Ok(())
}

/// A worker behind the proxy, whose handler has been called once: its statements are prepared.
async fn start(scene: &Scene, proxy: &Proxy) -> LocalWorker {
    sqlx::raw_sql("create table effect (key text not null)").execute(scene.pool()).await.unwrap();
    let t = TransactionalParticipant::new("t").action("work", work).limit(1);
    let builder: Builder = LocalWorker::builder(proxy.url()).database_timeout(Duration::from_secs(1));
    let worker = LocalWorker::start(builder.participant(t)).await;
    insert(scene, "first").await;
    assert_eq!(scene.ended("first").await.0, "succeeded");
    worker
}

async fn insert(scene: &Scene, gid: &str) {
    let steps = json!([{"name": "work", "action": "participant:t/work"}]);
    let insert = "insert into pgsaga.saga (gid, retry_interval, request_timeout, steps)
                  values ($1, '20 milliseconds', '300 milliseconds', $2)";
    sqlx::query(insert).bind(gid).bind(steps).execute(scene.pool()).await.unwrap();
}

/// The saga has succeeded, with one effect, after attempts with these outcomes.
async fn agrees(scene: &Scene, outcomes: &[&str]) {
    assert_eq!(scene.ended("s").await.0, "succeeded");
    let history = scene.history("s").await;
    let found: Vec<&str> = history.iter().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(found, outcomes);
    let effects = "select count(*) from effect where key = 's/work/action'";
    let effects: i64 = sqlx::query_scalar(effects).fetch_one(scene.pool()).await.unwrap();
    assert_eq!(effects, 1);
    scene.healthy().await;
}

/// A statement of the transaction, whether its reply is lost or its request, and what the history
/// says of it.
fn cuts() -> Vec<(&'static str, bool, &'static [&'static str])> {
    vec![
        // Nobody was called.
        ("begin isolation level", false, &["success"]),
        ("begin isolation level", true, &["success"]),
        ("insert into effect", false, &["unsent", "success"]),
        ("insert into effect", true, &["unsent", "success"]),
        ("set constraints all immediate", false, &["unsent", "success"]),
        ("set constraints all immediate", true, &["unsent", "success"]),
        (marker("settle"), false, &["unsent", "success"]),
        (marker("settle"), true, &["unsent", "success"]),
        ("COMMIT", false, &["unsent", "success"]),
        // It has committed, and nobody repeats it.
        ("COMMIT", true, &["success"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_handlers_connection_is_cut_its_effect_and_its_record_agree() {
    all(cuts().into_iter().map(|(statement, reply, outcomes)| {
        let name = format!("{statement} {}", if reply { "reply" } else { "request" });
        (name, async move {
            let (scene, proxy) = scene().await;
            let worker = start(&scene, &proxy).await;
            let fault =
                if reply { Fault::cut_before_reply(statement) } else { Fault::cut_before_request(statement) };
            let cut = proxy.inject(fault);
            insert(&scene, "s").await;
            agrees(&scene, outcomes).await;
            assert_eq!(cut.struck(), 1, "{statement}");
            worker.ended().await;
        })
    }))
    .await;
}

/// A statement stalls, and the attempt is repeated. What is stalled goes on later, and changes
/// nothing.
async fn stalls_at(statement: &str) {
    let (scene, proxy) = scene().await;
    let worker = start(&scene, &proxy).await;
    let stall = proxy.inject(Fault::stall().on(statement));
    insert(&scene, "s").await;
    agrees(&scene, &["unsent", "success"]).await;
    assert_eq!(stall.struck(), 1);
    stall.lift();
    agrees(&scene, &["unsent", "success"]).await;
    worker.ended().await;
}

/// The worker is frozen between the settle and the COMMIT, as far as Postgres can see. Postgres
/// ends the session after a lease, and what it had locked is free.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_commit_never_arrives_everything_is_free_after_a_lease() {
    stalls_at("COMMIT").await;
}

/// The handler waits for an answer that never comes. It is dropped a second after it was asked to
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_statement_gets_no_answer_is_dropped() {
    stalls_at("insert into effect").await;
}
