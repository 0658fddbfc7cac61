//! SIGTERM: no call is cut off within the grace, no task stays claimed.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, Worker, eventually};

async fn claimed(scene: &Scene) -> i64 {
    sqlx::query_scalar("select count(*) from pgsaga.task where worker is not null")
        .fetch_one(scene.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stopped_worker_finishes_its_calls_hands_the_rest_back_and_exits_with_0() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    for n in 0..20 {
        let saga = scene.saga(&format!("s-{n}")).column("request_timeout", "'60 seconds'").step("pay");
        saga.action(Behaviour::Gate(gate.clone())).step("ship").insert().await;
    }
    scene.start_worker(&["--concurrency", "4"]).await;
    scene.participant.wait_for_calls(4, PATIENCE).await;
    scene.workers[0].terminate();
    scene.workers[0].wait_for_log("draining", PATIENCE).await;
    assert_eq!(scene.workers[0].get("/readyz").await.unwrap().0, 503);
    gate.open();
    let exit = scene.workers[0].wait_exit(PATIENCE).await;
    assert_eq!(exit.code(), Some(0));
    assert_eq!(claimed(&scene).await, 0);
    let workers: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.worker").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(workers, 0, "it signed off");
    let calls = scene.participant.calls();
    assert_eq!(calls.len(), 4, "no new call was started");
    assert!(calls.iter().all(|call| call.status == Some(200)), "no call was cut off");
    scene.healthy().await;
    scene.workers.clear();
    scene.start_worker(&[]).await;
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.participant.calls().len(), 40, "nothing ran twice");
    scene.healthy().await;
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_is_recorded_as_unknown_by_whoever_rescues_it() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--grace-seconds", "1"]).await;
    let once = Behaviour::Sequence(vec![Behaviour::Hang]);
    scene.saga("s").column("request_timeout", "'60 seconds'").step("pay").action(once).insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.start_worker(&[]).await;
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    scene.workers.remove(0);
    scene.expect("s", "succeeded", None, &["pay action"; 2]).await;
    assert_eq!(scene.history("s").await, ["pay action 1 unknown", "pay action 2 success"]);
}

#[tokio::test]
async fn a_second_signal_ends_it_now() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--grace-seconds", "600"]).await;
    scene
        .saga("s")
        .column("request_timeout", "'60 seconds'")
        .step("pay")
        .action(Behaviour::Hang)
        .insert()
        .await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.workers[0].terminate();
    scene.workers[0].wait_for_log("draining", PATIENCE).await;
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(130));
}

/// From before `main` on, in steps of a few hundred microseconds. A signal that comes before our
/// first instruction kills the process by the kernel's default, and then nothing of ours ran; from
/// `main` on it is held and honoured.
#[tokio::test]
async fn a_signal_in_the_first_milliseconds_is_a_clean_exit() {
    let scene = Scene::new().await;
    let mut clean = 0;
    for n in 0..60u64 {
        let mut worker = Worker::spawn(scene.db.url(), &["--lease-seconds", "2"]);
        tokio::time::sleep(Duration::from_micros(n * 400)).await; // the moment is what is varied
        worker.terminate();
        let exit = worker.wait_exit(PATIENCE).await;
        match exit.code() {
            Some(0) => clean += 1,
            code => {
                assert!(code.is_none() && worker.log().is_empty(), "after {n}: {exit:?}, {:?}", worker.log())
            }
        }
    }
    assert!(clean > 0, "no signal came late enough to be handled");
    assert_eq!(claimed(&scene).await, 0);
    let alive: i64 = eventually(PATIENCE, "workers are counted", async || {
        sqlx::query_scalar("select count(*) from pgsaga.worker where not dead")
            .fetch_one(scene.pool())
            .await
            .ok()
    })
    .await;
    assert_eq!(alive, 0, "whoever registered has signed off");
}

/// A server that accepts and never answers, such as a half-dead proxy.
#[tokio::test]
async fn a_worker_that_gets_no_answer_from_postgres_says_so_and_stops_at_once() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://postgres@{}/none", silent.local_addr().unwrap());
    let mut worker = Worker::spawn(&url, &[]);
    worker.wait_for_log("no answer from the database", PATIENCE).await;
    worker.terminate();
    assert_eq!(worker.wait_exit(Duration::from_secs(4)).await.code(), Some(0));
}

#[tokio::test]
async fn a_worker_that_waits_for_postgres_stops_at_once() {
    let scene = Scene::new().await;
    let nowhere = scene.db.url().replace("host=", "host=%2Fnowhere");
    let mut worker = Worker::spawn(&nowhere, &[]);
    worker.wait_for_log("waiting for Postgres", PATIENCE).await;
    worker.terminate();
    assert_eq!(worker.wait_exit(Duration::from_secs(5)).await.code(), Some(0));
}
