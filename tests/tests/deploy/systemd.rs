//! What systemd hears of a worker that it started.

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Worker, eventually};

use crate::manager::{Manager, WATCHDOG};

/// Seconds that these tests can wait for, with room for a busy machine between a ping and its
/// deadline.
const WATCHDOG_USEC: (&str, &str) = ("WATCHDOG_USEC", "4000000");

#[tokio::test]
async fn ready_is_said_once_and_only_when_the_worker_may_work() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    cluster.server().kill().unwrap();
    let systemd = Manager::start();
    scene.workers.push(Worker::spawn_with_env(
        scene.db.url(),
        &["--lease-seconds", "2"],
        &[systemd.socket()],
    ));
    systemd.hears("STATUS=waiting for Postgres").await;
    systemd.hears("EXTEND_TIMEOUT_USEC=30000000").await;
    assert!(!systemd.words().contains(&"READY=1".to_owned()), "Postgres is away");

    cluster.server().start_again().unwrap();
    systemd.hears("READY=1").await;
    scene.workers[0].ready().await;
    // Not ready again is no reason to do anything; a person can see it in `systemctl status`.
    cluster.server().kill().unwrap();
    systemd.hears("STATUS=no heartbeat was acknowledged for a whole lease").await;
    cluster.server().start_again().unwrap();
    scene.workers[0].ready().await;
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    systemd.hears("STOPPING=1").await;
    let states: Vec<String> = systemd.words().into_iter().filter(|word| word.ends_with("=1")).collect();
    assert_eq!(states, ["READY=1", "STOPPING=1"]);
    assert!(systemd.pings().is_empty(), "nobody asked for them");
}

#[tokio::test]
async fn the_watchdog_is_fed_while_postgres_is_away() {
    // The shortest that there are: a loop that stood still for six times both, 18 s, would be told
    // from one that turns.
    const FLAGS: [&str; 4] = ["--lease-seconds", "2", "--database-timeout-seconds", "1"];
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    let systemd = Manager::start();
    let env = [systemd.socket(), WATCHDOG_USEC];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &FLAGS, &env));
    scene.workers[0].ready().await;
    cluster.server().kill().unwrap();
    scene.workers[0].wait_for_log("no heartbeat was acknowledged for a whole lease", PATIENCE).await;
    systemd.is_fed(11).await;
    assert!(systemd.longest_silence() < WATCHDOG, "{:?}", systemd.longest_silence());
    cluster.server().start_again().unwrap();
    scene.workers[0].ready().await;
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
}

#[tokio::test]
async fn a_frozen_worker_does_not_feed_the_watchdog() {
    let mut scene = Scene::new().await;
    let systemd = Manager::start();
    let env = [systemd.socket(), WATCHDOG_USEC];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &[], &env));
    systemd.is_fed(2).await;
    scene.workers[0].stop_signal();
    let bites = async || systemd.pings().last().is_some_and(|ping| ping.elapsed() > WATCHDOG).then_some(());
    eventually(PATIENCE, "the watchdog would bite", bites).await;
    scene.workers[0].continue_signal();
    systemd.is_fed(2).await;
}

#[tokio::test]
async fn a_drain_is_announced_with_the_time_that_it_may_take_and_feeds_the_watchdog() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).insert().await;
    let systemd = Manager::start();
    let env = [systemd.socket(), WATCHDOG_USEC];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &["--grace-seconds", "120"], &env));
    scene.participant.wait_for_calls(1, PATIENCE).await;
    systemd.hears("READY=1").await;
    scene.workers[0].terminate();
    systemd.hears("STOPPING=1").await;
    systemd.hears("EXTEND_TIMEOUT_USEC=135000000").await;
    systemd.is_fed(2).await;
    assert!(scene.workers[0].is_running(), "its call runs");
    gate.open();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    assert!(systemd.longest_silence() < WATCHDOG, "{:?}", systemd.longest_silence());
}

#[tokio::test]
async fn the_watchdog_of_another_process_is_not_fed() {
    let mut scene = Scene::new().await;
    let systemd = Manager::start();
    let env = [systemd.socket(), WATCHDOG_USEC, ("WATCHDOG_PID", "1")];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &[], &env));
    systemd.hears("READY=1").await;
    scene.workers[0].terminate();
    systemd.hears("STOPPING=1").await;
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    assert!(systemd.pings().is_empty(), "the first one comes before READY=1");
}

#[tokio::test]
async fn a_worker_whose_words_reach_nobody_works_all_the_same() {
    let mut scene = Scene::new().await;
    let env = [("NOTIFY_SOCKET", "/nowhere/notify"), WATCHDOG_USEC];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &[], &env));
    scene.workers[0].ready().await;
    scene.workers[0].wait_for_log("systemd cannot be told how this worker is", PATIENCE).await;
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    let complaints =
        scene.workers[0].log().iter().filter(|line| line.contains("systemd cannot be told")).count();
    assert_eq!(complaints, 1, "once is enough");
}

/// One of the two drains at once, and with it its heartbeats end; the other one's call takes its
/// time.
#[tokio::test]
async fn of_several_databases_the_watchdog_is_fed_until_the_last_has_drained() {
    const FLAGS: [&str; 6] =
        ["--lease-seconds", "2", "--database-timeout-seconds", "1", "--grace-seconds", "120"];
    let mut scene = Scene::new().await;
    let idle = Scene::new().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).insert().await;
    let systemd = Manager::start();
    let flags = [&FLAGS[..], &["--database-url", idle.db.url()]].concat();
    let env = [systemd.socket(), WATCHDOG_USEC];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &flags, &env));
    scene.participant.wait_for_calls(1, PATIENCE).await;
    systemd.hears("READY=1").await;
    scene.workers[0].terminate();
    systemd.hears("STOPPING=1").await;
    let words = systemd.words();
    assert!(
        words.iter().any(|word| word.starts_with("STATUS=") && word.contains("; ")),
        "one each: {words:?}"
    );
    // For longer than a loop of theirs may stand still.
    systemd.is_fed(11).await;
    gate.open();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    assert!(systemd.longest_silence() < WATCHDOG, "{:?}", systemd.longest_silence());
}
