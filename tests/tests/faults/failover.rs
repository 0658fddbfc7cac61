//! A standby is promoted, and a URL that names both hosts leads to it.

mod handlers;
mod history;
#[path = "../e2e/session.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgsaga_tests::command::run_as;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Pair, Replication, Worker, eventually};
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _};
use tokio::task::JoinSet;

/// From the promotion until every worker is ready again.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const SAGAS: usize = 300;

/// A saga as a producer inserts it.
type Order = (String, Value);

/// An application with two hosts: it asks for the primary when a connection fails, and says what it
/// was not told the fate of once more.
async fn produce(url: String, orders: Arc<Mutex<Vec<Order>>>, acknowledged: Arc<Mutex<HashSet<String>>>) {
    let mut pool: Option<PgPool> = None;
    while let Some((gid, steps)) = { orders.lock().unwrap().pop() } {
        loop {
            let to = match &pool {
                Some(pool) => pool.clone(),
                None => match pgsaga_worker::db::choose(&url).await {
                    Ok(options) => {
                        let options = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
                        pool.insert(options).clone()
                    }
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let insert = "insert into pgsaga.saga (gid, steps, retry_interval) values ($1, $2, '20 milliseconds') on conflict (gid) do nothing";
            match sqlx::query(insert).bind(&gid).bind(&steps).execute(&to).await {
                Ok(_) => break,
                Err(_) => pool = None,
            }
        }
        acknowledged.lock().unwrap().insert(gid);
    }
}

fn orders(scene: &Scene) -> Vec<Order> {
    let order = |n: usize| {
        let gid = format!("order-{n}");
        let slow = Behaviour::Slow(Duration::from_millis(30));
        let saga = scene.saga(&gid).step("stock").action(slow).step("pay");
        let saga = match n % 5 {
            0 => saga.action(Behaviour::Refuse("no".into())),
            1 => saga.action(Behaviour::Unknown(1)),
            _ => saga,
        };
        let steps = saga.step("ship").steps();
        (gid, steps)
    };
    (0..SAGAS).map(order).collect()
}

async fn is_ready(worker: &Worker) -> bool {
    worker.get("/readyz").await.is_ok_and(|(status, _)| status == 200)
}

/// How often a worker logged this.
fn logged(worker: &Worker, text: &str) -> usize {
    worker.log().iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_ends_when_a_synchronous_standby_is_promoted_under_load() {
    let pair = Pair::new(Replication::Synchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    let url = pair.url(&scene.db);
    for _ in 0..2 {
        scene.workers.push(Worker::spawn(&url, &["--lease-seconds", "2", "--concurrency", "32"]));
    }
    for worker in &scene.workers {
        worker.ready().await;
    }
    let orders = Arc::new(Mutex::new(orders(&scene)));
    let acknowledged = Arc::new(Mutex::new(HashSet::new()));
    let mut producers = JoinSet::new();
    for _ in 0..4 {
        producers.spawn(produce(url.clone(), Arc::clone(&orders), Arc::clone(&acknowledged)));
    }
    scene.participant.wait_for_calls(SAGAS / 2, PATIENCE).await;
    pair.kill_primary();
    let before = acknowledged.lock().unwrap().len();
    assert!(before < SAGAS, "the load ended before the fault");

    for worker in &scene.workers {
        eventually(PATIENCE, "a worker without a primary is not ready", async || {
            (!is_ready(worker).await).then_some(())
        })
        .await;
        worker.wait_for_log("is a standby", PATIENCE).await;
    }
    pair.promote().await;
    let promoted = Instant::now();
    scene.db.move_to(&pair.standby);
    for worker in &scene.workers {
        eventually(BACK_WITHIN, "a worker is ready again", async || is_ready(worker).await.then_some(()))
            .await;
    }
    let took = promoted.elapsed();
    producers.join_all().await;
    scene.all_ended(PATIENCE).await;
    scene.healthy().await;
    println!("{before} acknowledged before the kill, ready again {took:?} after the promotion");
    let acknowledged = acknowledged.lock().unwrap().clone();
    judge(&scene, &acknowledged).await;
    let (_, standby) = pair.ports();
    for worker in &mut scene.workers {
        assert!(worker.is_running());
        assert_eq!(logged(worker, "this host takes writes"), 2, "the first, and once the other");
        worker.wait_for_log(&format!("\"host\":\"127.0.0.1:{standby}\""), PATIENCE).await;
        assert_eq!(logged(worker, "\"level\":\"ERROR\""), 0);
    }
    for command in [vec!["list"], vec!["doctor"], vec!["show", "order-0"]] {
        run_as(&url, &command).fine();
    }
}

/// Every acknowledged saga is all done or all undone, and every call is in the history.
async fn judge(scene: &Scene, acknowledged: &HashSet<String>) {
    assert_eq!(acknowledged.len(), SAGAS);
    let sagas: HashMap<String, String> = sqlx::query_as("select gid, status from pgsaga.saga")
        .fetch_all(scene.pool())
        .await
        .unwrap()
        .into_iter()
        .collect();
    let tries: Vec<(String, String, String, i64)> = sqlx::query_as(
        "select gid, step, op, count(*) from pgsaga.saga_timeline where kind = 'attempt' group by 1, 2, 3",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    let tries: HashMap<_, _> =
        tries.into_iter().map(|(gid, step, op, count)| ((gid, step, op), count)).collect();
    let (mut calls, mut worked) = (HashMap::new(), HashSet::new());
    for call in scene.participant.calls() {
        let key = (call.gid, call.branch_id, call.op);
        *calls.entry(key.clone()).or_insert(0i64) += 1;
        if call.worked {
            worked.insert(key);
        }
    }
    for (key, count) in &calls {
        let recorded = tries.get(key).copied().unwrap_or(0);
        assert!(*count <= recorded, "{key:?} was called {count} times, and {recorded} tries are recorded");
    }
    for gid in acknowledged {
        let did = |step: &str, op: &str| worked.contains(&(gid.clone(), step.to_owned(), op.to_owned()));
        match sagas.get(gid).map(String::as_str) {
            Some("succeeded") => {
                assert!(["stock", "pay", "ship"].iter().all(|step| did(step, "action")), "{gid}");
            }
            Some("failed") => {
                let undone = |step: &str| !did(step, "action") || did(step, "compensate");
                assert!(["stock", "pay", "ship"].into_iter().all(undone), "{gid}");
            }
            other => panic!("{gid} was acknowledged and is {other:?}"),
        }
    }
    assert_eq!(sagas.len(), SAGAS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_passes_over_a_standby_and_waits_where_there_is_nothing_else() {
    let pair = Pair::new(Replication::Asynchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    pair.caught_up().await;
    let url = pair.url_backwards(&scene.db);
    let (_, standby) = pair.ports();
    let only_standbys = format!(
        "postgres://postgres@127.0.0.1:{standby},localhost:{standby}/{}?sslmode=disable",
        scene.db.name()
    );
    scene.workers.push(Worker::spawn(&url, &["--lease-seconds", "2"]));
    scene.workers.push(Worker::spawn(&only_standbys, &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    scene.saga("first").step("pay").insert().await;
    scene.expect("first", "succeeded", None, &["pay action"]).await;
    pair.caught_up().await;

    scene.workers[1].wait_for_log("every host is a standby, none takes writes: 127.0.0.1:", PATIENCE).await;
    let (status, why) = scene.workers[1].get("/readyz").await.unwrap();
    assert_eq!((status, why.as_str()), (503, "not ready: waiting for Postgres\n"));
    let said = run_as(&only_standbys, &["list"]);
    assert_eq!(said.code, Some(5), "{}", said.err);
    assert!(said.err.contains("every host is a standby"), "{}", said.err);
    for fine in [&url, &format!("{only_standbys}&target_session_attrs=any")] {
        assert!(run_as(fine, &["list"]).fine().contains("first"));
        run_as(fine, &["doctor"]).fine();
    }

    pair.kill_primary();
    pair.promote().await;
    scene.db.move_to(&pair.standby);
    scene.workers[1].ready().await;
    // Its lease may hold until after the change: being ready says nothing yet.
    let changed = scene.workers[0].wait_for_log("continues another history", BACK_WITHIN).await;
    eventually(BACK_WITHIN, "it has registered there", async || {
        let log = scene.workers[0].log();
        let after = log.iter().skip_while(|line| **line != changed);
        after.into_iter().any(|line| line.contains("\"registered\"")).then_some(())
    })
    .await;
    assert_eq!(logged(&scene.workers[0], "this host takes writes"), 2);
    scene.saga("second").step("pay").insert().await;
    scene.expect("second", "succeeded", None, &["pay action"]).await;

    // The promoted one is killed and comes back: the same server, so nobody has to forget anything.
    let again = Behaviour::Slow(Duration::from_secs(2));
    scene.saga("third").step("pay").action(again).step("ship").insert().await;
    scene.participant.wait_for_calls(3, PATIENCE).await;
    tokio::task::block_in_place(|| pair.standby.restart_immediate()).unwrap();
    for worker in &scene.workers {
        worker.wait_for_log("goes on with what it holds", PATIENCE).await;
    }
    eventually(PATIENCE, "Postgres answers", async || scene.pool().execute("select 1").await.ok()).await;
    scene.expect("third", "succeeded", None, &["pay action", "ship action"]).await;
}

/// Nothing breaks here: the old primary's connections stay open, and whatever is said to it waits
/// for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_left_for_the_one_that_was_promoted() {
    let pair = Pair::new(Replication::Asynchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    scene.workers.push(Worker::spawn(&pair.url(&scene.db), &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    let gate = Gate::new();
    let held = Behaviour::Sequence(vec![Behaviour::Ok.behind(&gate)]);
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay").action(held);
    saga.step("ship").insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    pair.caught_up().await;
    let frozen = pair.freeze_primary();
    pair.promote().await;
    let promoted = Instant::now();
    scene.db.move_to(&pair.standby);
    // The statement timeout is 30 s: nothing may wait for it.
    eventually(BACK_WITHIN * 2, "the worker is ready again", async || {
        (logged(&scene.workers[0], "this host takes writes") == 2 && is_ready(&scene.workers[0]).await)
            .then_some(())
    })
    .await;
    println!("ready again {:?} after the promotion", promoted.elapsed());
    scene.saga("after").step("pay").insert().await;
    scene.expect("after", "succeeded", None, &["pay action"]).await;
    gate.open();
    assert_eq!(scene.ended("s").await.0, "succeeded");
    assert_eq!(
        scene.history("s").await,
        ["pay action 1 unknown", "pay action 2 success", "ship action 1 success"],
        "the call that was open when the other history began counts as unknown"
    );
    scene.healthy().await;
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_read_only_by_default_is_passed_over_where_writes_are_wanted() {
    let cluster = Cluster::own(true, true).await;
    let mut scene = Scene::on(&cluster).await;
    let plain = scene.db.tcp_url().unwrap().to_owned();
    let mut admin = PgConnection::connect(&plain).await.unwrap();
    admin.execute("alter system set default_transaction_read_only = on").await.unwrap();
    admin.execute("select pg_reload_conf()").await.unwrap();
    let url = format!("{plain}&target_session_attrs=read-write");
    scene.workers.push(Worker::spawn(&url, &["--lease-seconds", "2"]));
    scene.workers[0].wait_for_log("is read-only (default_transaction_read_only)", PATIENCE).await;
    assert!(!is_ready(&scene.workers[0]).await);
    assert_eq!(run_as(&url, &["list"]).code, Some(5));
    run_as(&format!("{plain}&target_session_attrs=primary"), &["list"]).fine();

    admin.execute("alter system reset default_transaction_read_only").await.unwrap();
    admin.execute("select pg_reload_conf()").await.unwrap();
    scene.workers[0].ready().await;
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
}
