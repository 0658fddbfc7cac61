//! What workers export: each number against what really happened.

use pgsaga_tests::scene::{PATIENCE, SAMPLE_PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, eventually};

/// The largest of a sampled metric over the running workers: all but one say 0, or nothing of a
/// queue that they never saw.
async fn sampled(scene: &Scene, series: &str) -> f64 {
    let mut most = None;
    for worker in &scene.workers {
        let value = worker.metric(series).await;
        most = if value > most { value } else { most };
    }
    most.unwrap_or_else(|| panic!("{series} is absent"))
}

async fn comes_to(scene: &Scene, series: &str, value: f64) {
    eventually(SAMPLE_PATIENCE, &format!("{series} is {value}"), async || {
        (scene.metric(series).await == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sagas_are_counted_by_queue_from_their_start_to_their_end() {
    let scene = Scene::with_worker().await;
    scene.saga("good").step("pay").step("ship").insert().await;
    for gid in ["bad", "worse"] {
        let saga = scene.saga(gid).step("pay").step("ship").action(Behaviour::Refuse("no".into()));
        saga.column("queue", "'bulk'").insert().await;
    }
    let stuck = scene.saga("stuck").step("pay").compensate(Behaviour::Status(503)).step("ship");
    let stuck = stuck.action(Behaviour::Refuse("no".into())).column("compensate_retry_limit", "1");
    stuck.column("queue", "'bulk'").insert().await;
    for gid in ["good", "bad", "worse", "stuck"] {
        scene.ended(gid).await;
    }
    comes_to(&scene, "pgsaga_sagas_started_total{queue=\"default\"}", 1.0).await;
    comes_to(&scene, "pgsaga_sagas_started_total{queue=\"bulk\"}", 3.0).await;
    comes_to(&scene, "pgsaga_sagas_finished_total{queue=\"default\",status=\"succeeded\"}", 1.0).await;
    comes_to(&scene, "pgsaga_sagas_finished_total{queue=\"bulk\",status=\"failed\"}", 2.0).await;
    comes_to(&scene, "pgsaga_sagas_finished_total{queue=\"bulk\",status=\"stuck\"}", 1.0).await;
    comes_to(&scene, "pgsaga_saga_seconds_count{status=\"succeeded\"}", 1.0).await;
    comes_to(&scene, "pgsaga_saga_seconds_count{status=\"failed\"}", 2.0).await;
    let took = scene.metric("pgsaga_saga_seconds_sum{status=\"failed\"}").await;
    let took_in_database: f64 = sqlx::query_scalar(
        "select sum(date_part('epoch', finished_at - created_at)) from pgsaga.saga where status = 'failed'",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    assert!((took - took_in_database).abs() < 1.0, "{took} s, {took_in_database} s in the database");
    // A retry by a person is no new saga.
    scene.participant.on("/stuck/pay", "compensate", Behaviour::Ok);
    sqlx::query("select pgsaga.retry('stuck')").execute(scene.pool()).await.unwrap();
    comes_to(&scene, "pgsaga_sagas_finished_total{queue=\"bulk\",status=\"failed\"}", 3.0).await;
    comes_to(&scene, "pgsaga_sagas_started_total{queue=\"bulk\"}", 3.0).await;
}

#[tokio::test]
async fn answers_are_counted_by_participant_and_class() {
    let scene = Scene::with_worker().await;
    let unavailable =
        Behaviour::Sequence(vec![Behaviour::Status(503), Behaviour::Status(503), Behaviour::Ok]);
    scene.saga("s").step("pay").action(unavailable).step("ship").insert().await;
    scene.saga("t").step("pay").action(Behaviour::Refuse("no".into())).insert().await;
    let saga = scene.saga("u").step("pay");
    saga.with("action", "http://127.0.0.1:1/pay".into()).column("retry_limit", "1").insert().await;
    for gid in ["s", "t", "u"] {
        scene.ended(gid).await;
    }
    let own = scene.participant.url("/");
    let own = own.split('/').nth(2).unwrap();
    let series = |participant: &str, class: &str| {
        format!("pgsaga_responses_total{{participant=\"{participant}\",class=\"{class}\"}}")
    };
    comes_to(&scene, &series(own, "2xx"), 2.0).await;
    comes_to(&scene, &series(own, "4xx"), 1.0).await;
    comes_to(&scene, &series(own, "5xx"), 2.0).await;
    comes_to(&scene, &series("127.0.0.1:1", "2xx"), 0.0).await;
    assert!(scene.metric(&series("127.0.0.1:1", "none")).await >= 1.0);
    assert_eq!(scene.metric(&format!("pgsaga_breaker_open{{participant=\"{own}\"}}")).await, 0.0);
}

#[tokio::test]
async fn one_worker_samples_what_lies_in_the_database_and_another_takes_over() {
    let mut scene = Scene::new().await;
    scene.saga("later").step("pay").column("run_at", "now() + interval '1 hour'").insert().await;
    for gid in ["a", "b"] {
        scene.saga(gid).step("pay").column("queue", "'bulk'").insert().await;
    }
    sqlx::query("select pgsaga.pause('bulk')").execute(scene.pool()).await.unwrap();
    let stuck = scene.saga("stuck").step("pay").compensate(Behaviour::Status(503)).step("ship");
    let stuck = stuck.action(Behaviour::Refuse("no".into())).column("compensate_retry_limit", "1");
    stuck.insert().await;
    sqlx::query("update pgsaga.saga set created_at = created_at - interval '1 hour' where gid = 'later'")
        .execute(scene.pool())
        .await
        .unwrap();
    scene.start_worker(&[]).await;
    scene.start_worker(&[]).await;
    scene.ended("stuck").await;
    let samples_well = async |scene: &Scene, workers: f64| {
        eventually(SAMPLE_PATIENCE, "everything is sampled", async || {
            let exact = [
                ("pgsaga_sampler", 1.0),
                ("pgsaga_tasks{queue=\"bulk\",state=\"due\"}", 2.0),
                ("pgsaga_tasks{queue=\"default\",state=\"waiting\"}", 1.0),
                ("pgsaga_sagas_open", 3.0),
                ("pgsaga_sagas_stuck", 1.0),
                ("pgsaga_workers_alive", workers),
            ];
            for (series, value) in exact {
                let mut sum = 0.0;
                for worker in &scene.workers {
                    sum += worker.metric(series).await.unwrap_or(0.0);
                }
                if sum != value {
                    return None;
                }
            }
            Some(())
        })
        .await;
    };
    samples_well(&scene, 2.0).await;
    assert!(sampled(&scene, "pgsaga_oldest_open_saga_seconds").await > 3600.0);
    assert!(sampled(&scene, "pgsaga_oldest_due_task_seconds{queue=\"bulk\"}").await > 0.0);
    assert!(sampled(&scene, "pgsaga_oldest_stuck_saga_seconds").await > 0.0);
    assert!(sampled(&scene, "pgsaga_table_bytes{table=\"saga\"}").await > 8192.0);

    // Stopped, its numbers go with it; the other samples within two looks.
    let mut samples = None;
    for (nth, worker) in scene.workers.iter().enumerate() {
        if worker.metric("pgsaga_sampler").await == Some(1.0) {
            assert_eq!(samples.replace(nth), None, "two workers sample");
        }
    }
    let mut gone = scene.workers.remove(samples.unwrap());
    gone.terminate();
    gone.wait_exit(PATIENCE).await;
    samples_well(&scene, 1.0).await;

    // What people see is the same.
    let (open, stuck): (i64, i64) =
        sqlx::query_as("select open, stuck from pgsaga.saga_stats").fetch_one(scene.pool()).await.unwrap();
    assert_eq!((open, stuck), (3, 1));
    let alive: i64 = sqlx::query_scalar("select count(*) from pgsaga.worker_stats where alive")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert_eq!(alive, 1);
}

/// Who alerts on numbers must know when they are nobody's.
#[tokio::test]
async fn a_worker_that_cannot_sample_says_so_and_tries_again_soon() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--database-timeout-seconds", "1"]).await;
    let sampler = async |scene: &Scene, value: f64| {
        eventually(SAMPLE_PATIENCE, &format!("pgsaga_sampler is {value}"), async || {
            (scene.metric("pgsaga_sampler").await == value).then_some(())
        })
        .await;
    };
    sampler(&scene, 1.0).await;
    let mut open = scene.pool().begin().await.unwrap();
    sqlx::raw_sql("lock table pgsaga.saga in access exclusive mode").execute(&mut *open).await.unwrap();
    sampler(&scene, 0.0).await;
    scene.workers[0].wait_for_log("the database was not sampled", SAMPLE_PATIENCE).await;
    open.rollback().await.unwrap();
    sampler(&scene, 1.0).await;
}

#[tokio::test]
async fn what_a_worker_sampled_goes_when_it_is_cut_off_from_the_database() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    scene.saga("later").column("run_at", "now() + interval '1 hour'").step("pay").insert().await;
    scene.start_worker(&["--lease-seconds", "2"]).await;
    let open = async |scene: &Scene, value: f64| {
        eventually(SAMPLE_PATIENCE, &format!("{value} sagas are open"), async || {
            let seen = [scene.metric("pgsaga_sampler").await, scene.metric("pgsaga_sagas_open").await];
            (seen == [value, value]).then_some(())
        })
        .await;
    };
    open(&scene, 1.0).await;
    cluster.server().kill().unwrap();
    open(&scene, 0.0).await;
    cluster.server().start_again().unwrap();
    open(&scene, 1.0).await;
}

#[tokio::test]
async fn a_saga_that_is_stuck_in_one_branch_and_runs_in_another_is_stuck_and_not_open() {
    let scene = Scene::new().await;
    scene.saga("s").step("pay").insert().await;
    sqlx::raw_sql(
        "insert into pgsaga.stuck (saga_id, step, reason) select id, 'other', 'why' from pgsaga.saga where gid = 's'",
    )
    .execute(scene.pool())
    .await
    .unwrap();
    let counted: (i64, i64) =
        sqlx::query_as("select open, stuck from pgsaga.saga_stats").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(counted, (0, 1));
}

#[tokio::test]
async fn what_keeps_vacuum_away_has_a_name() {
    let scene = Scene::new().await;
    let mut holder = scene.pool().begin().await.unwrap();
    sqlx::raw_sql(
        "set transaction isolation level repeatable read; set local application_name = 'reporting'; select 1",
    )
    .execute(&mut *holder)
    .await
    .unwrap();
    let held: Vec<(String, String)> = sqlx::query_as(
        "select kind, application from pgsaga.open_transactions where application = 'reporting'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert_eq!(held, [("session".to_owned(), "reporting".to_owned())]);
    holder.rollback().await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("select table_name from pgsaga.table_stats where bytes > 0 order by 1")
            .fetch_all(scene.pool())
            .await
            .unwrap();
    assert_eq!(tables, ["history", "saga", "task"]);
}

#[tokio::test]
async fn loops_tick_slots_are_known_and_connections_are_counted() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--concurrency", "7"]).await;
    assert_eq!(scene.metric("pgsaga_call_slots").await, 7.0);
    for name in ["claim", "heartbeat", "defer", "sample"] {
        let series = format!("pgsaga_loop_ticks_total{{loop=\"{name}\"}}");
        let before = scene.metric(&series).await;
        eventually(PATIENCE, &format!("the loop {name} ticks"), async || {
            (scene.metric(&series).await > before).then_some(())
        })
        .await;
    }
    let mut open = 0.0;
    for state in ["idle", "used"] {
        open +=
            scene.metric(&format!("pgsaga_pool_connections{{pool=\"heartbeat\",state=\"{state}\"}}")).await;
    }
    assert_eq!(open, 1.0, "one connection is for heartbeats");
    assert!(scene.metric("pgsaga_pool_wait_seconds_count{pool=\"work\"}").await >= 1.0);
}

#[tokio::test]
async fn an_op_that_is_tried_without_success_is_seen_by_its_first_attempt() {
    let scene = Scene::with_worker().await;
    let slow = |gid: &'static str| scene.saga(gid).column("retry_interval", "'1 hour'");
    slow("tried").step("a").step("b").action(Behaviour::Status(500)).insert().await;
    // It waits for its first attempt, however long.
    scene.saga("later").column("run_at", "now() + interval '1 day'").step("a").insert().await;
    eventually(PATIENCE, "both attempts are settled", async || {
        (scene.history("tried").await.len() == 2).then_some(())
    })
    .await;
    // The success of the first step is older, and does not count.
    let age = "update pgsaga.history set at = now() - case step when 1 then interval '9 hours' else interval '2 hours' end";
    sqlx::raw_sql(age).execute(scene.pool()).await.unwrap();
    let seconds = eventually(SAMPLE_PATIENCE, "it is sampled", async || {
        Some(sampled(&scene, "pgsaga_longest_retry_seconds").await).filter(|seconds| *seconds > 3600.0)
    })
    .await;
    assert!((7200.0..7300.0).contains(&seconds), "{seconds}");
}
