//! Who may start a call, and who is dead: neither is read from a clock that steps.

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Worker, eventually};
use sqlx::Connection as _;

use crate::session::connect;

fn heartbeat_failures(scene: &Scene) -> usize {
    scene.workers[0].log().iter().filter(|line| line.contains("\"doing\":\"heartbeat\"")).count()
}

/// Past its own lease a worker starts no call: somebody else may have been given the task. Here
/// only its heartbeats are held up, so it could settle, chain and call.
#[tokio::test]
async fn past_its_lease_a_worker_settles_and_starts_no_call() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).step("ship").insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    // What an update takes; a claim or a settle asks for less.
    sqlx::raw_sql("select from pgsaga.worker for no key update").execute(&mut *open).await.unwrap();
    eventually(PATIENCE, "its lease ends", async || {
        scene.workers[0].get("/readyz").await.ok().filter(|(status, _)| *status == 503)
    })
    .await;
    gate.open();
    eventually(PATIENCE, "the answer is settled", async || {
        scene.history("s").await.first().is_some_and(|first| first == "pay action 1 success").then_some(())
    })
    .await;
    let before = heartbeat_failures(&scene);
    eventually(PATIENCE, "heartbeats go on failing", async || {
        (heartbeat_failures(&scene) >= before + 3).then_some(())
    })
    .await;
    assert_eq!(scene.participant.ops_for("s"), ["pay action"], "a call was started without a lease");
    open.rollback().await.unwrap();
    scene.expect("s", "succeeded", None, &["pay action", "ship action"]).await;
}

/// docs/races.md, R11: judged by the database's clock, every worker would look dead after a step
/// forward, or a restart.
#[tokio::test]
async fn a_clock_that_steps_forward_makes_no_worker_look_dead() {
    let mut scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    // As if the clock had stepped an hour after each beat.
    sqlx::raw_sql(
        "create function step() returns trigger language plpgsql as $$ begin new.seen_at := new.seen_at - interval '1 hour'; return new; end $$;
         create trigger step before update on pgsaga.worker for each row execute function step()",
    )
    .execute(scene.pool())
    .await
    .unwrap();
    scene.start_worker(&[]).await;
    let beats = "select min(beat) from pgsaga.worker";
    eventually(PATIENCE, "both look at each other", async || {
        let beats: Option<i64> = sqlx::query_scalar(beats).fetch_one(scene.pool()).await.unwrap();
        beats.filter(|beats| *beats >= 8)
    })
    .await;
    assert_eq!(scene.metric("pgsaga_rescued_total").await, 0.0, "a living worker's task was taken");
    gate.open();
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 0.0);
}

/// docs/races.md, R11: silence counts only on an unbroken connection. One worker is frozen, and
/// seen to be; then Postgres is away for longer than the lease; then the frozen one has a whole
/// lease again.
#[tokio::test]
async fn silence_from_before_an_outage_does_not_count_after_it() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    for _ in 0..2 {
        scene.start_worker(&["--lease-seconds", "8"]).await;
    }
    let beats = "pgsaga_heartbeats_total";
    let beat = async |worker: &Worker, times: f64| {
        let before = worker.metric(beats).await.unwrap();
        eventually(PATIENCE, "it beats", async || {
            worker.metric(beats).await.filter(|n| *n >= before + times)
        })
        .await;
    };
    beat(&scene.workers[1], 2.0).await;
    scene.workers[1].stop_signal();
    beat(&scene.workers[0], 2.0).await;
    cluster.server().stop().unwrap();
    eventually(PATIENCE, "the outage is longer than the lease", async || {
        scene.workers[0].get("/readyz").await.ok().filter(|(status, _)| *status == 503)
    })
    .await;
    cluster.server().start_again().unwrap();
    // More often than it has connections that broke: a statement on one of them says nothing.
    beat(&scene.workers[0], 4.0).await;
    scene.workers[1].continue_signal();
    scene.workers[1].wait_for_log("Postgres was restarted; this worker goes on", PATIENCE).await;
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 0.0, "silence before an outage was counted");
    scene.saga("after").step("pay").insert().await;
    scene.expect("after", "succeeded", None, &["pay action"]).await;
}
