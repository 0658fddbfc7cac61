//! The whole link between a worker and Postgres stalls, breaks or half-opens, or one connection of
//! it.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Fault, Gate, Proxy, eventually};

use super::{all, marker, scene, spawn};

/// Lease and statement timeout of the workers here.
const LEASE: Duration = Duration::from_secs(2);
/// What a worker may add to them: a pause between two tries, and a busy machine.
const SLACK: Duration = Duration::from_secs(4);

async fn status_of(scene: &Scene, worker: usize, expected: u16, within: Duration) {
    eventually(within, &format!("/readyz answers {expected}"), async || {
        let (status, _) = scene.workers[worker].get("/readyz").await.ok()?;
        (status == expected).then_some(())
    })
    .await;
}

fn was_declared_dead(scene: &Scene, worker: usize) -> bool {
    scene.workers[worker].log().iter().any(|line| line.contains("this worker was declared dead"))
}

#[tokio::test]
async fn past_its_lease_a_stalled_worker_starts_no_call_another_takes_over_and_it_comes_back_by_itself() {
    let (mut scene, proxy) = scene().await;
    let gate = Gate::new();
    // Before the worker, which claims both at once: of a participant that has not answered for a
    // second it claims no more.
    for gid in ["running", "held"] {
        let saga = scene.saga(gid).column("request_timeout", "'60 seconds'").step("pay");
        let once = Behaviour::Sequence(vec![Behaviour::Gate(gate.clone())]);
        saga.action(once).step("ship").insert().await;
    }
    spawn(&mut scene, &proxy, &["--concurrency", "1"]);
    scene.participant.wait_for_calls(1, PATIENCE).await;
    eventually(PATIENCE, "the other is held", async || {
        (scene.metric("pgsaga_tasks_held").await == 2.0).then_some(())
    })
    .await;
    let (running, held) = match scene.participant.calls()[0].gid.as_str() {
        "running" => ("running", "held"),
        _ => ("held", "running"),
    };
    let stalled = Instant::now();
    let stall = proxy.inject(Fault::stall().always());
    status_of(&scene, 0, 503, LEASE + SLACK / 4).await;
    let (_, why) = scene.workers[0].get("/readyz").await.unwrap();
    assert_eq!(why, "not ready: no heartbeat was acknowledged for a whole lease\n");
    let past = Instant::now();
    assert!(past - stalled >= LEASE / 2, "a lease cannot end {:?} after the stall", past - stalled);
    // Its only turn is free from here on, and it holds a task: only the lease keeps it from
    // calling.
    gate.open();
    let direct = Instant::now();
    scene.start_worker(&[]).await;
    scene.all_ended(PATIENCE).await;
    let took = direct.elapsed();
    assert!(took < LEASE + 2 * SLACK, "taken over only after {took:?}");
    assert_eq!(scene.participant.ops_for(running), ["pay action", "pay action", "ship action"]);
    assert_eq!(scene.participant.ops_for(held), ["pay action", "ship action"], "its lease was over");
    assert!(!was_declared_dead(&scene, 0));
    scene.healthy().await;

    stall.lift();
    let whole = Instant::now();
    status_of(&scene, 0, 200, SLACK).await;
    scene.workers[0].wait_for_log("this worker was declared dead", PATIENCE).await;
    scene.workers.remove(1);
    scene.saga("after").step("pay").insert().await;
    scene.expect("after", "succeeded", None, &["pay action"]).await;
    assert!(whole.elapsed() < 2 * SLACK, "back only after {:?}", whole.elapsed());
    let history = ["pay action 1 unknown", "pay action 2 success", "ship action 1 success"];
    assert_eq!(scene.history(running).await, history, "what was stalled came late, and changed nothing");
    scene.healthy().await;
}

/// A heartbeat that waited as long as any statement would cost the lease.
#[tokio::test]
async fn a_stalled_heartbeat_is_tried_on_another_connection_before_the_lease_ends() {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &["--database-timeout-seconds", "30"]);
    scene.workers[0].ready().await;
    scene.start_worker(&[]).await;
    for fault in
        [Fault::stall().on(marker("heartbeat")).now(), Fault::server_gone().on(marker("heartbeat")).now()]
    {
        let log_before = scene.workers[0].log().len();
        let beats = scene.workers[1].metric("pgsaga_heartbeats_total").await.unwrap();
        let stalled = proxy.inject(fault);
        assert_eq!(stalled.struck(), 1);
        let again = "heartbeats are acknowledged again";
        eventually(LEASE, again, async || {
            scene.workers[0].log()[log_before..].iter().any(|line| line.contains(again)).then_some(())
        })
        .await;
        // Another worker looks on for longer than a lease.
        eventually(PATIENCE, "another lease", async || {
            (scene.workers[1].metric("pgsaga_heartbeats_total").await.unwrap() > beats + 8.0).then_some(())
        })
        .await;
        stalled.lift();
    }
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 0.0);
    assert!(!was_declared_dead(&scene, 0));
}

async fn replaces_what_falls_silent_after(statement: &str) {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &["--database-connections", "2"]);
    scene.workers[0].ready().await;
    let silent = proxy.inject(Fault::server_gone().after(marker(statement)).times(3));
    silent.wait_until_struck(3, PATIENCE).await;
    let beats = scene.workers[0].metric("pgsaga_heartbeats_total").await.unwrap();
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    eventually(SLACK, "heartbeats go on", async || {
        (scene.workers[0].metric("pgsaga_heartbeats_total").await.unwrap() > beats + 3.0).then_some(())
    })
    .await;
    assert_eq!(scene.workers[0].get("/readyz").await.unwrap().0, 200, "{statement}");
}

/// sqlx asks for a sign of life before it keeps a connection, and would wait for it for ever.
#[tokio::test]
async fn a_connection_that_falls_silent_after_its_statement_is_replaced() {
    let statements = ["heartbeat", "peek", "held"];
    all(statements.map(|name| (name.to_owned(), replaces_what_falls_silent_after(name))).into_iter()).await;
}

/// A worker under load: all its connections are open.
async fn under_load() -> (Scene, Proxy) {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &["--concurrency", "8"]);
    scene.workers[0].ready().await;
    for n in 0..50 {
        let saga =
            scene.saga(&format!("s-{n}")).step("stock").action(Behaviour::Slow(Duration::from_millis(50)));
        let saga = saga.step("pay");
        if n % 5 == 0 { saga.action(Behaviour::Refuse("no".into())) } else { saga }.insert().await;
    }
    scene.participant.wait_for_calls(10, PATIENCE).await;
    (scene, proxy)
}

async fn goes_on(fault: Fault, name: &str) {
    let (scene, proxy) = under_load().await;
    let struck = proxy.inject(fault.now());
    assert!(struck.struck() >= 4, "{name}: only {} connections", struck.struck());
    let broken = Instant::now();
    scene.all_ended(PATIENCE).await;
    let took = broken.elapsed();
    eprintln!("{name}: over after {took:?}");
    assert!(took < 2 * SLACK, "{name}: {took:?}");
    assert_eq!((scene.count("succeeded").await, scene.count("failed").await), (40, 10), "{name}");
    assert_eq!(scene.participant.calls().len(), 110, "{name}: each once, and nobody else could have rescued");
    assert!(!was_declared_dead(&scene, 0), "{name}");
    scene.healthy().await;
    struck.lift();
}

#[tokio::test]
async fn fifty_sagas_survive_that_all_connections_are_reset_or_lose_one_of_their_ends_without_a_word() {
    let faults = [
        ("reset", Fault::reset()),
        ("server gone", Fault::server_gone()),
        ("client gone", Fault::client_gone()),
    ];
    all(faults.map(|(name, fault)| (name.to_owned(), goes_on(fault, name))).into_iter()).await;
}

#[tokio::test]
async fn on_a_slow_link_everything_is_slower_and_right() {
    let (mut scene, proxy) = scene().await;
    let slow = proxy.inject(Fault::delay(Duration::from_millis(50)).always());
    spawn(&mut scene, &proxy, &[]);
    scene.workers[0].ready().await;
    for n in 0..20 {
        let saga = scene.saga(&format!("s-{n}")).step("stock").step("pay");
        if n % 5 == 0 { saga.action(Behaviour::Refuse("no".into())) } else { saga }.insert().await;
    }
    scene.all_ended(PATIENCE).await;
    assert_eq!((scene.count("succeeded").await, scene.count("failed").await), (16, 4));
    assert_eq!(scene.participant.calls().len(), 44);
    assert!(slow.struck() > 20);
    let series = "pgsaga_database_errors_total{class=\"connection\"}";
    assert_eq!(scene.metric(series).await, 0.0, "slow is not broken");
    scene.healthy().await;
}

/// A NAT that forgot the connection: no FIN, no RST, and the wake-ups are gone.
#[tokio::test]
async fn a_listening_connection_without_a_server_is_noticed_within_two_leases() {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &[]);
    scene.workers[0].ready().await;
    eventually(PATIENCE, "LISTEN stands", async || {
        (scene.metric("pgsaga_listener_up").await == 1.0).then_some(())
    })
    .await;
    let gone = proxy.inject(Fault::server_gone().on("LISTEN").now());
    assert_eq!(gone.struck(), 1);
    // Polls keep it working meanwhile.
    let inserted = Instant::now();
    scene.saga("polled").step("pay").insert().await;
    scene.expect("polled", "succeeded", None, &["pay action"]).await;
    assert!(inserted.elapsed() < SLACK, "{:?}", inserted.elapsed());
    scene.workers[0].wait_for_log("\"doing\":\"listen\"", 2 * LEASE + SLACK).await;
    eventually(PATIENCE, "LISTEN stands again", async || {
        (scene.metric("pgsaga_listener_up").await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_on_a_stalled_link_ends_within_the_grace_and_ten_seconds() {
    let at_work = ("at work".to_owned(), stops_at_work().boxed_local());
    let registering = ("registering".to_owned(), stops_while_it_registers().boxed_local());
    all([at_work, registering].into_iter()).await;
}

async fn stops_at_work() {
    let (mut scene, proxy) = scene().await;
    // As most run: statements may take long.
    spawn(&mut scene, &proxy, &["--database-timeout-seconds", "30", "--grace-seconds", "1"]);
    scene.workers[0].ready().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let _stall = proxy.inject(Fault::stall().always());
    gate.open();
    scene.workers[0].terminate();
    let told = Instant::now();
    let exit = scene.workers[0].wait_exit(Duration::from_secs(1 + 10) + SLACK).await;
    eprintln!("ended after {:?}", told.elapsed());
    assert_eq!(exit.code(), Some(0));
}

/// The heartbeat loop declares the dead: it must not cost its own lease.
#[tokio::test]
async fn a_stalled_declaration_of_a_death_does_not_cost_the_lease_of_the_living() {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &["--database-timeout-seconds", "30"]);
    scene.workers[0].ready().await;
    let stalled = proxy.inject(Fault::stall().on(marker("declare_dead")));
    sqlx::query("insert into pgsaga.worker (lease_ms, host, pid, version) values (300, 'gone', 1, '0')")
        .execute(scene.pool())
        .await
        .unwrap();
    stalled.wait_until_struck(1, PATIENCE).await;
    eventually(PATIENCE, "the dead worker is buried", async || {
        let dead: i64 = sqlx::query_scalar("select count(*) from pgsaga.worker where host = 'gone'")
            .fetch_one(scene.pool())
            .await
            .unwrap();
        (dead == 0).then_some(())
    })
    .await;
    let ended = "no heartbeat was acknowledged for a whole lease";
    assert!(!scene.workers[0].log().iter().any(|line| line.contains(ended)));
    stalled.lift();
}

async fn stops_while_it_registers() {
    let (mut scene, proxy) = scene().await;
    let stalled = proxy.inject(Fault::stall().on(marker("register")));
    spawn(&mut scene, &proxy, &["--database-timeout-seconds", "30"]);
    stalled.wait_until_struck(1, PATIENCE).await;
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(Duration::from_secs(10) + SLACK).await.code(), Some(0));
    // What was stalled arrives: a registration of nobody, which others bury.
    stalled.lift();
    scene.start_worker(&[]).await;
    eventually(PATIENCE, "nobody is buried", async || {
        let workers: i64 =
            sqlx::query_scalar("select count(*) from pgsaga.worker").fetch_one(scene.pool()).await.unwrap();
        (workers == 1).then_some(())
    })
    .await;
}

/// All connections are gone at once and without a word: that costs one timeout, not one for each of
/// them.
#[tokio::test]
async fn a_link_that_died_without_a_word_costs_one_timeout_and_not_one_for_each_connection() {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &["--database-timeout-seconds", "3"]);
    scene.workers[0].ready().await;
    let load = async |name: &str| {
        for n in 0..30 {
            let saga = scene.saga(&format!("{name}-{n}")).step("stock");
            saga.action(Behaviour::Slow(Duration::from_millis(20))).step("pay").insert().await;
        }
    };
    load("before").await;
    scene.all_ended(PATIENCE).await;
    let gone = proxy.inject(Fault::server_gone().now());
    assert!(gone.struck() >= 5, "only {} connections are open", gone.struck());
    let died = Instant::now();
    load("after").await;
    scene.all_ended(PATIENCE).await;
    let took = died.elapsed();
    eprintln!("over {took:?} after the link died");
    assert!(took < Duration::from_secs(3 + 3), "{took:?}");
    assert_eq!(scene.participant.calls().len(), 120);
}

/// Only Linux shows the timers of others' sockets.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_server_asks_whether_its_workers_are_still_there_after_half_a_minute_of_silence() {
    let (mut scene, proxy) = scene().await;
    spawn(&mut scene, &proxy, &[]);
    scene.workers[0].ready().await;
    let address = scene.db.tcp_url().unwrap().split_once('@').unwrap().1.split_once('/').unwrap().0;
    let port: u16 = address.split_once(':').unwrap().1.parse().unwrap();
    let sessions = "select client_port::int from pg_stat_activity
        where datname = current_database() and application_name = 'pgsaga' and client_port > 0";
    eventually(PATIENCE, "a keepalive timer below half a minute runs for each", async || {
        let clients: Vec<i32> = sqlx::query_scalar(sessions).fetch_all(scene.pool()).await.unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // sl local_address rem_address st tx_queue:rx_queue tr:tm->when; timer 2 is keepalive, in
        // hundredths.
        let timed = clients.iter().filter(|client| {
            table.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields[1].ends_with(&format!(":{port:04X}"))
                    && fields[2].ends_with(&format!(":{client:04X}"))
                    && fields[5].split_once(':').is_some_and(|(timer, when)| {
                        timer == "02" && u32::from_str_radix(when, 16).is_ok_and(|when| when <= 3000)
                    })
            })
        });
        (clients.len() >= 3 && timed.count() == clients.len()).then_some(())
    })
    .await;
}
