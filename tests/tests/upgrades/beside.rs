//! A worker next to what a newer release has made, a schema or rows, or what an older one still
//! makes.

use pgsaga_sql::{FORMAT, SCHEMA_VERSION};
use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Behaviour, Gate, Worker, eventually};
use sqlx::AssertSqlSafe;

use crate::old;

async fn sql(scene: &Scene, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(scene.pool()).await.unwrap();
}

/// What a newer `pgsaga migrate` leaves in its bookkeeping.
async fn migrated(scene: &Scene, name: &str) {
    let version = SCHEMA_VERSION + 1;
    sql(scene, format!("insert into pgsaga.migration (version, name) values ({version}, '{name}')")).await;
}

/// The task of a saga becomes that of a worker that is dead and not rescued yet.
async fn held_by_the_dead(scene: &Scene, gid: &str) {
    sql(
        scene,
        format!(
            "with dead as (insert into pgsaga.worker (lease_ms, host, pid, version, dead) values (2000, 'elsewhere', 1, 'later', true) returning id)
             update pgsaga.task set worker = dead.id, epoch = epoch + 1 from dead where saga_id = (select id from pgsaga.saga where gid = '{gid}')"
        ),
    )
    .await;
}

async fn not_ready(worker: &Worker) -> String {
    eventually(PATIENCE, "the worker is not ready", async || {
        worker.get("/readyz").await.ok().filter(|(status, _)| *status == 503)
    })
    .await
    .1
}

/// The saga, its task's worker and the number of its tries.
async fn stands(scene: &Scene, gid: &str) -> (String, Option<i64>, usize) {
    let (status, worker) = sqlx::query_as(
        "select s.status, t.worker from pgsaga.saga s left join pgsaga.task t on t.saga_id = s.id where gid = $1",
    )
    .bind(gid)
    .fetch_one(scene.pool())
    .await
    .unwrap();
    (status, worker, scene.participant.calls_for(gid).len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_leaves_everything_alone_once_a_newer_schema_does_not_allow_it_to_go_on() {
    let scene = Scene::with_worker().await;
    let worker = &scene.workers[0];
    let gate = Gate::new();
    scene.saga("in-flight").step("a").action(Behaviour::Gate(gate.clone())).step("b").insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;

    migrated(&scene, "contract_something").await;
    assert_eq!(
        not_ready(worker).await,
        "not ready: a newer pgsaga has migrated the database: upgrade this worker\n"
    );
    scene.saga("new").step("a").insert().await;
    scene.saga("of-the-dead").step("a").insert().await;
    held_by_the_dead(&scene, "of-the-dead").await;
    // The call in flight is settled. What follows from it is not called, and goes back.
    gate.open();
    eventually(PATIENCE, "the next step is given back", async || {
        let next: Option<i64> = sqlx::query_scalar("select t.id from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id where gid = 'in-flight' and step = 2 and worker is null")
            .fetch_optional(scene.pool())
            .await
            .unwrap();
        next
    })
    .await;
    // Time enough for several beats and claims: they are counted.
    let beats = worker.metric("pgsaga_heartbeats_total").await.unwrap();
    eventually(PATIENCE, "five more heartbeats", async || {
        (worker.metric("pgsaga_heartbeats_total").await.unwrap() >= beats + 5.0).then_some(())
    })
    .await;
    assert_eq!(scene.history("in-flight").await, ["a action 1 success"]);
    assert_eq!(stands(&scene, "in-flight").await, ("submitted".into(), None, 1));
    assert_eq!(stands(&scene, "new").await, ("submitted".into(), None, 0));
    let (status, held, calls) = stands(&scene, "of-the-dead").await;
    assert!(status == "submitted" && held.is_some() && calls == 0, "whoever knows the schema rescues");
    let said = worker.log().iter().filter(|line| line.contains("claims nothing more")).count();
    assert_eq!(said, 1, "it is said once");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());

    // The database was restored, say.
    sql(&scene, format!("delete from pgsaga.migration where version > {SCHEMA_VERSION}")).await;
    for (gid, calls) in
        [("in-flight", &["a action", "b action"][..]), ("new", &["a action"]), ("of-the-dead", &["a action"])]
    {
        scene.expect(gid, "succeeded", None, calls).await;
    }
    worker.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_goes_on_beside_a_schema_that_is_only_larger() {
    let scene = Scene::with_worker().await;
    let worker = &scene.workers[0];
    // Every statement is prepared on the smaller tables.
    scene.saga("before").step("a").step("b").action(Behaviour::Refuse("no".into())).insert().await;
    scene.ended("before").await;
    for table in ["saga", "task", "history", "worker", "stuck", "paused_queue", "lane"] {
        sql(&scene, format!("alter table pgsaga.{table} add column later text not null default ''")).await;
    }
    migrated(&scene, "expand_something").await;
    worker.wait_for_log("lets workers of this release go on", PATIENCE).await;
    scene.saga("after").step("a").step("b").action(Behaviour::Refuse("no".into())).insert().await;
    scene.expect("after", "failed", Some("b: no"), &["a action", "b action", "a compensate"]).await;
    assert_eq!(worker.get("/readyz").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_newer_format_are_left_alone_and_people_are_told_why() {
    let mut scene = Scene::new().await;
    let newer = ["newer", "newer-of-the-dead"];
    for gid in newer {
        scene.saga(gid).step("pay").insert().await;
    }
    let set_format = |format: i16| {
        format!(
            "update pgsaga.saga set format = {format} where gid like 'newer%';
             update pgsaga.task set format = {format} where saga_id in (select id from pgsaga.saga where gid like 'newer%')"
        )
    };
    sql(&scene, set_format(FORMAT + 1)).await;
    held_by_the_dead(&scene, "newer-of-the-dead").await;
    let (_, held, _) = stands(&scene, "newer-of-the-dead").await;
    scene.saga("known-of-the-dead").step("pay").insert().await;
    held_by_the_dead(&scene, "known-of-the-dead").await;
    scene.start_worker(&[]).await;
    for gid in ["one", "two"] {
        scene.saga(gid).step("pay").insert().await;
        scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }
    // The dead are looked at with every beat, so the other one was too.
    scene.expect("known-of-the-dead", "succeeded", None, &["pay action"]).await;
    assert_eq!(stands(&scene, "newer").await, ("submitted".into(), None, 0));
    assert_eq!(stands(&scene, "newer-of-the-dead").await, ("submitted".into(), held, 0));
    assert!(
        scene.history("newer-of-the-dead").await.is_empty(),
        "it was rescued by a worker that does not know it"
    );
    run(&scene.db, &["doctor"]).fine();

    let why =
        format!("its row has format {}, workers of this release know formats up to {FORMAT}", FORMAT + 1);
    for gid in newer {
        let shown = run(&scene.db, &["show", gid]).fine();
        assert!(shown.contains(&why), "{shown}");
    }
    let listed = run(&scene.db, &["list", "--open"]).fine();
    assert_eq!(listed.matches(&why).count(), 2, "{listed}");

    // A worker that knows them: this one, once they are of its format.
    sql(&scene, set_format(FORMAT)).await;
    for gid in newer {
        scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_is_undone_without_a_recorded_reason_is_finished() {
    let mut scene = old::with_rows(old::BASELINE).await;
    sql(&scene, "update pgsaga.saga set abort_reason = null where gid = 'aborting-midway'".to_owned()).await;
    scene.start_worker(&[]).await;
    scene.expect("aborting-midway", "failed", Some("c: no money"), &["a compensate"]).await;
}
