//! One worker process, several databases, here on two servers: each with its own limits, and none
//! holds up another.

use pgsaga_tests::command::run_as;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Worker, eventually};

/// How the metrics name a database.
fn name(scene: &Scene) -> String {
    let url = scene.db.url();
    let (start, host) = url.split_once("?host=").unwrap();
    let (address, database) = start.rsplit_once('/').unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    format!("{}:{port}/{database}", host.replace("%2F", "/"))
}

async fn value(worker: &Worker, metric: &str, of: &Scene) -> Option<f64> {
    worker.metric(&format!("{metric}{{database=\"{}\"}}", name(of))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_two_servers_and_an_outage_of_one_does_not_stop_the_other() {
    let (one, other) = tokio::join!(Cluster::own(false, false), Cluster::own(false, false));
    let mut here = Scene::on(&one).await;
    let there = Scene::on(&other).await;
    // The lock that tells producers to notify, and everything else of a worker, is there once a
    // database.
    here.start_worker(&["--database-url", there.db.url(), "--concurrency", "3,5"]).await;
    for scene in [&here, &there] {
        scene.saga("s").step("pay").step("ship").action(Behaviour::Refuse("no".into())).insert().await;
        scene.expect("s", "failed", Some("ship: no"), &["pay action", "ship action", "pay compensate"]).await;
    }
    let worker = &here.workers[0];
    assert_eq!(value(worker, "pgsaga_call_slots", &here).await, Some(3.0));
    assert_eq!(value(worker, "pgsaga_call_slots", &there).await, Some(5.0));
    assert_eq!(value(worker, "pgsaga_unwinds_total", &here).await, Some(1.0));

    // Its three calls are taken: that is nothing to the other.
    let gate = Gate::default();
    for gid in ["a", "b", "c", "d"] {
        here.saga(gid).step("pay").action(Behaviour::Gate(gate.clone())).insert().await;
    }
    eventually(PATIENCE, "all calls of one database run", async || {
        (value(worker, "pgsaga_calls_in_flight", &here).await == Some(3.0)).then_some(())
    })
    .await;
    there.saga("beside").step("pay").insert().await;
    assert_eq!(there.ended("beside").await.0, "succeeded");
    gate.open();
    for gid in ["a", "b", "c", "d"] {
        assert_eq!(here.ended(gid).await.0, "succeeded");
    }

    other.server().stop().unwrap();
    let why = eventually(PATIENCE, "it is not ready, and says for which database", async || {
        let (status, why) = worker.get("/readyz").await.ok()?;
        (status == 503).then_some(why)
    })
    .await;
    assert_eq!(why.lines().count(), 1, "{why}");
    assert!(why.contains(&name(&there)), "{why}");
    here.saga("meanwhile").step("pay").insert().await;
    assert_eq!(here.ended("meanwhile").await.0, "succeeded");
    let said = worker.wait_for_log("no heartbeat was acknowledged", PATIENCE).await;
    assert!(said.contains(&name(&there)), "{said}");

    other.server().start_again().unwrap();
    worker.ready().await;
    there.saga("again").step("pay").insert().await;
    assert_eq!(there.ended("again").await.0, "succeeded");
    here.healthy().await;
    there.healthy().await;

    let worker = &mut here.workers[0];
    worker.terminate();
    assert_eq!(worker.wait_exit(PATIENCE).await.code(), Some(0));
    for scene in [&here, &there] {
        let workers: i64 = sqlx::query_scalar("select count(*) from pgsaga.worker where not dead")
            .fetch_one(scene.pool())
            .await
            .unwrap();
        assert_eq!(workers, 0, "it signed off everywhere");
    }
}

#[tokio::test]
async fn a_process_that_was_killed_is_rescued_in_each_database() {
    let (mut here, there) = (Scene::new().await, Scene::new().await);
    let gate = Gate::default();
    for scene in [&here, &there] {
        scene
            .saga("s")
            .step("pay")
            .action(Behaviour::Behind(gate.clone(), Box::new(Behaviour::Ok)))
            .insert()
            .await;
    }
    for _ in 0..2 {
        here.start_worker(&["--database-url", there.db.url()]).await;
    }
    for scene in [&here, &there] {
        eventually(PATIENCE, "the call runs", async || {
            (scene.participant.calls_for("s").len() == 1).then_some(())
        })
        .await;
    }
    for worker in &mut here.workers {
        worker.kill9();
    }
    gate.open();
    here.start_worker(&["--database-url", there.db.url()]).await;
    for scene in [&here, &there] {
        assert_eq!(scene.ended("s").await.0, "succeeded");
        scene.healthy().await;
    }
}

#[tokio::test]
async fn what_is_not_one_for_all_or_one_each_is_refused() {
    let (here, there) = (Scene::new().await, Scene::new().await);
    let beside = ["work", "--database-url", there.db.url()];
    for (flags, said) in [
        (["--concurrency", "1,2,3"], "--concurrency has 3 numbers for 2 databases"),
        (["--database-connections", "2,3,4"], "--database-connections has 3 numbers for 2 databases"),
        (["--direct-database-url", here.db.url()], "--direct-database-url has 1 URLs for 2 databases"),
        (["--database-url", here.db.url()], "twice"),
    ] {
        let refused = run_as(here.db.url(), &[&beside[..], &flags].concat());
        assert_eq!(refused.code, Some(2), "{}", refused.err);
        assert!(refused.err.contains(said), "{}", refused.err);
    }
}

#[tokio::test]
async fn one_value_may_name_several_with_spaces_between_as_the_variable_does() {
    let (here, there) = (Scene::new().await, Scene::new().await);
    let worker = Worker::spawn(&format!("{} {}", here.db.url(), there.db.url()), &[]);
    worker.ready().await;
    for scene in [&here, &there] {
        scene.saga("s").step("pay").insert().await;
        assert_eq!(scene.ended("s").await.0, "succeeded");
    }
}
