//! Killed, frozen and cut-off workers; a Postgres that crashes under load.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Worker, eventually};
use serde_json::json;

#[tokio::test]
async fn four_workers_share_the_work_and_no_task_runs_twice_at_once() {
    let mut scene = Scene::new().await;
    for _ in 0..4 {
        scene.start_worker(&["--concurrency", "8"]).await;
    }
    // One transaction, so that all is due at once: far more than one worker may hold.
    let slow = Behaviour::Slow(Duration::from_millis(20));
    let mut transaction = scene.pool().begin().await.unwrap();
    for n in 0..200 {
        let gid = format!("share-{n}");
        let saga = scene.saga(&gid).step("one").action(slow.clone()).step("two").action(slow.clone());
        let insert =
            sqlx::query("insert into pgsaga.saga (gid, steps) values ($1, $2)").bind(&gid).bind(saga.steps());
        insert.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("succeeded").await, 200);
    scene.participant.assert_never_twice_at_once();
    assert_eq!(scene.participant.calls().len(), 400, "each step was called once");
    for worker in &scene.workers {
        let done = worker.metric("pgsaga_attempts_total{op=\"action\",outcome=\"success\"}").await.unwrap();
        assert!(done > 0.0, "a worker got nothing to do");
    }
    scene.healthy().await;
}

/// docs/races.md, R4: the lost try is recorded as unknown, so the step is compensated although its
/// second try was refused.
#[tokio::test]
async fn what_a_killed_worker_held_goes_on_elsewhere_within_the_lease_and_two_seconds() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    scene.start_worker(&[]).await;
    let paid_then_refused = Behaviour::Sequence(vec![
        Behaviour::CloseAfter.behind(&gate),
        Behaviour::Refuse("already charged".into()),
        Behaviour::Refuse("already charged".into()),
    ]);
    scene
        .saga("s")
        .column("request_timeout", "'60 seconds'")
        .step("pay")
        .action(paid_then_refused)
        .insert()
        .await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.start_worker(&[]).await;
    scene.workers[0].kill9();
    let killed = Instant::now();
    let calls = scene.participant.wait_for_calls(2, PATIENCE).await;
    let took = calls[1].started - killed;
    assert!(took <= Duration::from_secs(4), "a lease of 2 s and 2 s more, but it took {took:?}");
    gate.open();
    let killed_worker = scene.workers.remove(0);
    drop(killed_worker);
    scene
        .expect(
            "s",
            "failed",
            Some("pay: already charged"),
            &["pay action", "pay action", "pay action", "pay compensate"],
        )
        .await;
    assert_eq!(scene.history("s").await[0], "pay action 1 unknown");
    assert_eq!(scene.metric("pgsaga_rescued_total").await, 1.0);
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 1.0);
}

#[tokio::test]
async fn a_frozen_workers_late_answer_changes_nothing_and_it_works_on_under_a_new_id() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    scene.start_worker(&["--concurrency", "4"]).await;
    let slow_then_ok = Behaviour::Sequence(vec![Behaviour::Ok.behind(&gate)]);
    scene
        .saga("s")
        .column("request_timeout", "'60 seconds'")
        .step("pay")
        .action(slow_then_ok)
        .step("ship")
        .insert()
        .await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.workers[0].stop_signal();
    scene.start_worker(&[]).await;
    // The other worker rescues it and finishes the saga, while the first call is still open.
    assert_eq!(scene.ended("s").await.0, "succeeded");
    gate.open();
    scene.workers[0].continue_signal();
    scene.workers[0].wait_for_log("declared dead", PATIENCE).await;
    let history = scene.history("s").await;
    assert_eq!(history, ["pay action 1 unknown", "pay action 2 success", "ship action 1 success"]);
    // The thawed worker works again: alone, it must take this one.
    scene.workers[1].terminate();
    scene.workers[1].wait_exit(PATIENCE).await;
    scene.saga("after").step("pay").insert().await;
    scene.expect("after", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.history("s").await, history, "a finished saga does not change");
    assert_eq!(scene.participant.calls_for("s").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_under_load_loses_nothing_and_workers_come_back_by_themselves() {
    let cluster = Cluster::own(true, false).await;
    let mut scene = Scene::on(&cluster).await;
    for _ in 0..2 {
        scene.start_worker(&["--concurrency", "16"]).await;
    }
    let mut committed = HashSet::new();
    for n in 0..400 {
        let gid = format!("load-{n}");
        let mut saga =
            scene.saga(&gid).step("one").action(Behaviour::Slow(Duration::from_millis(10))).step("two");
        if n % 5 == 0 {
            saga = saga.action(Behaviour::Refuse("no".into()));
        }
        saga.insert().await;
        committed.insert(gid);
        if n == 200 || n == 300 {
            scene.participant.wait_for_calls(n / 4, PATIENCE).await;
            let server = cluster.server();
            tokio::task::block_in_place(|| server.restart_immediate()).unwrap();
            eventually(PATIENCE, "Postgres answers", async || {
                sqlx::query("select 1").execute(scene.pool()).await.ok()
            })
            .await;
        }
    }
    scene.all_ended(PATIENCE * 2).await;
    assert_eq!((scene.count("succeeded").await, scene.count("failed").await), (320, 80));
    for gid in &committed {
        let ops = scene.participant.ops_for(gid);
        assert!(
            ops.iter().any(|op| op == "one action") && ops.iter().any(|op| op == "two action"),
            "{gid}: {ops:?}"
        );
    }
    scene.healthy().await;
    for worker in &mut scene.workers {
        assert!(worker.is_running(), "a worker never exits because of Postgres");
    }
}

/// docs/races.md, R11: silence counts only on an unbroken connection, so an outage longer than the
/// lease makes nobody look dead.
#[tokio::test]
async fn an_outage_longer_than_the_lease_makes_no_worker_look_dead() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    for _ in 0..3 {
        scene.start_worker(&[]).await;
    }
    cluster.server().stop().unwrap();
    for worker in &scene.workers {
        eventually(PATIENCE, "the worker is not ready", async || {
            worker
                .get("/readyz")
                .await
                .ok()
                .filter(|(status, text)| *status == 503 && text.contains("heartbeat"))
        })
        .await;
        assert_eq!(worker.get("/healthz").await.unwrap().0, 200, "alive, whatever Postgres does");
    }
    cluster.server().start_again().unwrap();
    for worker in &scene.workers {
        worker.ready().await;
        worker.wait_for_log("heartbeats are acknowledged again", PATIENCE).await;
    }
    scene.saga("after").step("pay").insert().await;
    scene.expect("after", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 0.0);
    let workers: i64 = sqlx::query_scalar("select count(*) from pgsaga.worker where not dead")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert_eq!(workers, 3, "each under its first id");
}

#[tokio::test]
async fn a_worker_started_before_postgres_waits_and_says_so() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    cluster.server().stop().unwrap();
    let worker = Worker::spawn(scene.db.url(), &["--lease-seconds", "2"]);
    worker.wait_for_log("waiting for Postgres", PATIENCE).await;
    let (status, text) = worker.get("/readyz").await.unwrap();
    assert_eq!((status, text.as_str()), (503, "not ready: waiting for Postgres\n"));
    assert_eq!(worker.get("/healthz").await.unwrap().0, 200);
    cluster.server().start_again().unwrap();
    worker.ready().await;
    scene.workers.push(worker);
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
}

/// docs/races.md, R20: a task that lost three workers runs isolated, so that no other
/// task loses its call when this one kills the worker.
#[tokio::test]
async fn an_isolated_task_runs_alone() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    let saga = scene.saga("suspect").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).insert().await;
    sqlx::raw_sql("update pgsaga.task set lost = 3").execute(scene.pool()).await.unwrap();
    scene.start_worker(&[]).await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let isolated: bool = sqlx::query_scalar("select isolated from pgsaga.task where lost = 3")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert!(isolated, "the row says so before the call, for whoever rescues it");
    for n in 0..20 {
        scene.saga(&format!("other-{n}")).step("pay").insert().await;
    }
    let claimed = "select count(*) from pgsaga.saga s left join pgsaga.task t on t.saga_id = s.id
        where t.worker is not null or s.finished_at is not null";
    eventually(PATIENCE, "all are claimed", async || {
        let claimed: i64 = sqlx::query_scalar(claimed).fetch_one(scene.pool()).await.unwrap();
        (claimed == 21).then_some(())
    })
    .await;
    let beats = scene.metric("pgsaga_heartbeats_total").await;
    eventually(PATIENCE, "time for calls passes", async || {
        (scene.metric("pgsaga_heartbeats_total").await >= beats + 2.0).then_some(())
    })
    .await;
    assert_eq!(scene.participant.calls().len(), 1, "others are called beside an isolated task");
    gate.open();
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.participant.calls().len(), 21);
    scene.healthy().await;
}

/// docs/races.md, R20, the limit: ten deaths in isolated runs.
#[tokio::test]
async fn a_task_that_killed_ten_workers_while_it_ran_isolated_makes_its_saga_stuck() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    let saga = scene.saga("poison").column("request_timeout", "'60 seconds'");
    saga.step("pay").action(Behaviour::Gate(gate.clone())).insert().await;
    // One death short of the limit.
    sqlx::raw_sql("update pgsaga.task set lost = 12, lost_isolated = 9").execute(scene.pool()).await.unwrap();
    scene.start_worker(&[]).await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    // This one waits for its turn while the worker dies: it has lost as many workers, and as many
    // while it ran isolated, but this death is not its own.
    scene.saga("unlucky").step("pay").insert().await;
    let held = "update pgsaga.task set lost = 12, lost_isolated = 9 where worker is not null and lost = 0 returning id";
    eventually(PATIENCE, "it is held", async || {
        sqlx::query(held).fetch_optional(scene.pool()).await.unwrap()
    })
    .await;
    scene.workers[0].kill9();
    scene.workers.clear();
    scene.start_worker(&[]).await;
    gate.open();
    let reason = "pay: killed 10 workers while it ran isolated";
    assert_eq!(scene.ended("poison").await, ("stuck".to_owned(), Some(reason.to_owned())));
    assert_eq!(scene.ended("unlucky").await.0, "succeeded");
    scene.healthy().await;
}

#[tokio::test]
async fn a_hanging_participant_does_not_hold_up_a_saga_that_does_not_need_it() {
    let scene = Scene::with_worker().await;
    for n in 0..50 {
        scene.saga(&format!("hang-{n}")).step("pay").action(Behaviour::Hang).insert().await;
    }
    scene.participant.wait_for_calls(50, PATIENCE).await;
    scene.saga("s").step("pay").with("payload", json!(1)).insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
}
