//! Queues, classes of priority, limits, and participants that are dead or hang.

use std::time::{Duration, Instant};

use Behaviour::{Hang, Ok, Sequence, Status};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, Participant, eventually, sized};
use serde_json::json;

async fn run(scene: &Scene, statement: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(scene.pool()).await.unwrap();
}

/// Inserts `count` sagas of one step at `url` in one statement.
async fn insert_many(scene: &Scene, prefix: &str, count: usize, url: &str, columns: &str, values: &str) {
    let statement = format!(
        "insert into pgsaga.saga (gid, steps{columns}) select '{prefix}' || n, jsonb_build_array(jsonb_build_object('name', 'pay', 'action', '{url}')){values} from generate_series(1, {count}) n"
    );
    run(scene, &statement).await;
}

async fn succeeded(scene: &Scene, prefix: &str) -> i64 {
    sqlx::query_scalar("select count(*) from pgsaga.saga where gid like $1 || '%' and status = 'succeeded'")
        .bind(prefix)
        .fetch_one(scene.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_worker_serves_the_queues_that_it_was_given_and_no_others() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--queue", "red", "--queue", "blue=2"]).await;
    for queue in ["red", "blue", "green"] {
        scene.saga(queue).step("pay").column("queue", &format!("'{queue}'")).insert().await;
    }
    scene.saga("default").step("pay").insert().await;
    for gid in ["red", "blue"] {
        scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }
    for gid in ["green", "default"] {
        assert_eq!(scene.status(gid).await.unwrap().0, "submitted", "{gid}");
    }
    scene.start_worker(&[]).await;
    for gid in ["green", "default"] {
        scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }
}

#[tokio::test]
async fn a_queues_limit_bounds_its_calls_at_once_and_nobody_elses() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--queue", "bulk=3", "--queue", "default"]).await;
    let gate = Gate::new();
    for n in 0..20 {
        scene
            .saga(&format!("bulk{n}"))
            .step("pay")
            .action(Ok.behind(&gate))
            .column("queue", "'bulk'")
            .insert()
            .await;
    }
    scene.participant.wait_for_calls(3, PATIENCE).await;
    for n in 0..20 {
        let gid = format!("quick{n}");
        scene.saga(&gid).step("pay").insert().await;
        assert_eq!(scene.ended(&gid).await.0, "succeeded");
    }
    assert_eq!(scene.participant.calls().iter().filter(|call| call.gid.starts_with("bulk")).count(), 3);
    gate.open();
    scene.all_ended(PATIENCE).await;
    scene.healthy().await;
}

#[tokio::test]
async fn a_paused_queue_is_neither_claimed_nor_chained() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    scene
        .saga("running")
        .step("a")
        .action(Ok.behind(&gate))
        .step("b")
        .column("queue", "'bulk'")
        .insert()
        .await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    run(&scene, "select pgsaga.pause('bulk')").await;
    scene.saga("new").step("a").column("queue", "'bulk'").insert().await;
    gate.open();
    eventually(PATIENCE, "the call is settled", async || {
        (scene.history("running").await.len() == 1).then_some(())
    })
    .await;
    scene.saga("other").step("a").insert().await;
    scene.expect("other", "succeeded", None, &["a action"]).await;
    let waiting: i64 =
        sqlx::query_scalar("select due from pgsaga.queues where queue = 'bulk' and paused_at is not null")
            .fetch_one(scene.pool())
            .await
            .unwrap();
    assert_eq!(waiting, 2, "both wait in the queue");
    assert_eq!(scene.participant.ops_for("running"), ["a action"]);
    assert!(scene.participant.calls_for("new").is_empty());
    run(&scene, "select pgsaga.resume('bulk')").await;
    scene.expect("running", "succeeded", None, &["a action", "b action"]).await;
    scene.expect("new", "succeeded", None, &["a action"]).await;
    let unknown = sqlx::query("select pgsaga.pause('nope')").execute(scene.pool()).await.unwrap_err();
    let unknown = unknown.as_database_error().unwrap();
    assert_eq!(unknown.code().unwrap(), "P0002");
    assert_eq!(unknown.message(), "no saga was ever in the queue \"nope\"; queues: \"bulk\", \"default\"");
}

/// A class comes before the next, and none is starved: with a steady flood of the first, the last
/// still goes on.
#[tokio::test]
async fn higher_classes_come_first_and_lower_ones_are_not_starved() {
    let mut scene = Scene::new().await;
    let url = scene.participant.url("/pay");
    insert_many(&scene, "low", 200, &url, ", priority", ", 3").await;
    insert_many(&scene, "high", 2000, &url, ", priority", ", 0").await;
    scene.start_worker(&["--concurrency", "4"]).await;
    eventually(PATIENCE, "some of the low class", async || {
        (succeeded(&scene, "low").await > 0).then_some(())
    })
    .await;
    assert!(succeeded(&scene, "high").await < 2000, "the low class did not wait for the end of the high one");
    scene.all_ended(Duration::from_secs(60)).await;
    let (mut high, mut low) = (0, 0);
    for call in scene.participant.calls().iter().take(400) {
        if call.gid.starts_with("high") { high += 1 } else { low += 1 }
    }
    assert!(high > 4 * low, "of the first 400 calls {high} were of the high class, {low} of the low one");
    assert!(low > 0);
}

/// Also with one queue that is flooded and one that is not, of the same class.
#[tokio::test]
async fn queues_of_one_class_take_turns() {
    let mut scene = Scene::new().await;
    let url = scene.participant.url("/pay");
    insert_many(&scene, "flood", 3000, &url, ", queue", ", 'flood'").await;
    insert_many(&scene, "few", 50, &url, ", queue", ", 'few'").await;
    scene.start_worker(&["--concurrency", "4"]).await;
    eventually(PATIENCE, "the few are done", async || (succeeded(&scene, "few").await == 50).then_some(()))
        .await;
    assert!(succeeded(&scene, "flood").await < 2500, "they did not wait for the flood");
}

#[tokio::test]
async fn a_participants_limit_bounds_its_calls_at_once() {
    let mut scene = Scene::new().await;
    let limited = Participant::start().await;
    let limit = format!("{}=2", limited.address());
    scene.start_worker(&["--participant-limit", &limit]).await;
    let gate = Gate::new();
    limited.on("/pay", "action", Ok.behind(&gate));
    // Longer than the others may take on a busy machine: a call that times out is followed by
    // another.
    let patient = (", request_timeout", ", '1 minute'");
    insert_many(&scene, "limited", 30, &limited.url("/pay"), patient.0, patient.1).await;
    limited.wait_for_calls(2, PATIENCE).await;
    insert_many(&scene, "free", 100, &scene.participant.url("/pay"), "", "").await;
    eventually(PATIENCE, "the others are done", async || {
        (succeeded(&scene, "free").await == 100).then_some(())
    })
    .await;
    assert_eq!(limited.calls().len(), 2);
    gate.open();
    scene.all_ended(PATIENCE).await;
    scene.healthy().await;
}

/// A backlog for a participant at its limit is neither claimed again and again nor waits longer
/// than it must.
#[tokio::test]
async fn a_limit_costs_no_claims() {
    let mut scene = Scene::new().await;
    let limited = Participant::start().await;
    let limit = format!("{}=2", limited.address());
    limited.on("/pay", "action", Behaviour::Slow(Duration::from_millis(20)));
    insert_many(&scene, "limited", 300, &limited.url("/pay"), "", "").await;
    scene.start_worker(&["--participant-limit", &limit]).await;
    scene.all_ended(PATIENCE).await;
    let claimed = scene.metric("pgsaga_claimed_total").await;
    // The first claim, which knows nothing of the limit yet, may bring all of them.
    assert!(claimed < 700.0, "{claimed} claims of 300 tasks");
    scene.healthy().await;
}

/// Opens only after 20 calls in a row without a sign of life; lets one call a second through; an
/// answer closes it.
#[tokio::test]
async fn a_breaker_opens_after_twenty_silent_calls_and_probes_once_a_second() {
    let mut scene = Scene::with_worker().await;
    let mut dead = Participant::start().await;
    dead.refuse_connections().await;
    insert_many(&scene, "dead", 200, &dead.url("/pay"), ", retry_interval", ", '100 milliseconds'::interval")
        .await;
    let worker = &scene.workers[0];
    worker.wait_for_log("its breaker opens", PATIENCE).await;
    eventually(PATIENCE, "the gauge says so", async || {
        (scene.metric("pgsaga_breakers_open").await == 1.0).then_some(())
    })
    .await;
    let tries = || async {
        let sum: i64 =
            sqlx::query_scalar("select count(*) from pgsaga.history").fetch_one(scene.pool()).await.unwrap();
        sum
    };
    // What was in flight when it opened ends and is settled: a second then adds one try.
    eventually(PATIENCE, "only probes are left", async || {
        let before = tries().await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        (tries().await - before <= 2).then_some(())
    })
    .await;
    let (before, started) = (tries().await, Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (probes, seconds) = (tries().await - before, started.elapsed().as_secs_f64());
    assert!((3.0..=seconds + 1.5).contains(&(probes as f64)), "{probes} tries in {seconds} s");
    dead.accept_again().await;
    scene.all_ended(Duration::from_secs(90)).await;
    scene.workers[0].wait_for_log("its breaker closes", PATIENCE).await;
    assert_eq!(succeeded(&scene, "dead").await, 200);
    scene.healthy().await;
    scene.workers.clear();
}

/// An answer, even a bad one, is no reason to open it.
#[tokio::test]
async fn bad_answers_do_not_open_a_breaker_nor_does_a_healthy_participant_wait() {
    let scene = Scene::with_worker().await;
    scene.participant.on("/bad", "action", Sequence(vec![Status(500), Status(503), Status(404)]));
    insert_many(
        &scene,
        "bad",
        100,
        &scene.participant.url("/bad"),
        ", retry_interval",
        ", '20 milliseconds'::interval",
    )
    .await;
    scene.all_ended(PATIENCE).await;
    assert_eq!(succeeded(&scene, "bad").await, 100);
    assert_eq!(scene.metric("pgsaga_breakers_open").await, 0.0);
    assert_eq!(scene.participant.calls().len(), 400);
    scene.healthy().await;
}

/// 50,000 due tasks for a participant that is dead, and as many for one that hangs: other sagas go
/// on. A small run has 10,000.
#[tokio::test]
async fn a_backlog_for_a_dead_or_hanging_participant_does_not_slow_sagas_that_do_not_need_it() {
    let mut scene = Scene::new().await;
    let mut dead = Participant::start().await;
    dead.refuse_connections().await;
    let hanging = Participant::start().await;
    hanging.on("/pay", "action", Hang);
    let backlog = sized(10_000, 50_000);
    insert_many(&scene, "dead", backlog, &dead.url("/pay"), "", "").await;
    insert_many(&scene, "hang", backlog, &hanging.url("/pay"), "", "").await;
    scene.start_worker(&[]).await;
    let mut slowest = Duration::ZERO;
    for n in 0..60 {
        let gid = format!("well{n}");
        let started = Instant::now();
        scene.saga(&gid).step("pay").insert().await;
        assert_eq!(scene.ended(&gid).await.0, "succeeded");
        slowest = slowest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the slowest of 60 sagas beside the backlog took {slowest:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert!(scene.metric("pgsaga_breakers_open").await >= 1.0);
}

/// The deadline rolls a saga back also while its participant's breaker is open.
#[tokio::test]
async fn a_deadline_passes_while_a_breaker_is_open() {
    let scene = Scene::with_worker().await;
    let mut dead = Participant::start().await;
    dead.refuse_connections().await;
    insert_many(&scene, "dead", 100, &dead.url("/pay"), "", "").await;
    scene.workers[0].wait_for_log("its breaker opens", PATIENCE).await;
    let saga = scene.saga("s").step("stock").step("pay").with("action", json!(dead.url("/pay")));
    saga.column("timeout_to_fail", "'2 seconds'").insert().await;
    scene
        .expect("s", "failed", Some("pay: timeout after 2 seconds"), &["stock action", "stock compensate"])
        .await;
}

/// Behind one gateway, one path hangs and another one answers.
#[tokio::test]
async fn the_queues_behind_one_open_breaker_probe_in_turns() {
    let scene = Scene::with_worker().await;
    scene.participant.ruled_by(|call| if call.path.contains("hang") { Hang } else { Ok });
    let (hang, ok) = (scene.participant.url("/hang"), scene.participant.url("/ok"));
    let quick = (", request_timeout, retry_interval", ", interval '1 second', interval '1 second'");
    insert_many(&scene, "hang", 300, &hang, quick.0, quick.1).await;
    scene.workers[0].wait_for_log("its breaker opens", PATIENCE).await;
    // A call that is answered closes the breaker, and the hanging calls open it again.
    for nth in 0..5 {
        let gid = format!("ok{nth}");
        insert_many(&scene, &gid, 1, &ok, ", queue", ", 'fast'").await;
        assert_eq!(scene.ended(&format!("{gid}1")).await.0, "succeeded");
    }
    assert_eq!(succeeded(&scene, "hang").await, 0);
}
