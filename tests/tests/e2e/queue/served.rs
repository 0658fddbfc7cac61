//! A queue that no living worker serves.

use pgsaga_tests::command::run;
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::Value;
use sqlx::Executor as _;

#[tokio::test]
async fn a_queue_that_nobody_serves_is_said_by_show_doctor_queues_and_a_metric() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--queue", "default"]).await;
    scene.saga("served").step("a").insert().await;
    scene.ended("served").await;
    scene.saga("alone").column("queue", "'reports'").step("a").insert().await;
    let shown = run(&scene.db, &["show", "alone"]).fine();
    let says = "none of 1 living worker serves queue reports: start one with `pgsaga work --queue reports`, or without --queue";
    assert!(shown.contains(says), "{shown}");
    assert!(!run(&scene.db, &["show", "served"]).fine().contains("serves queue"));
    let unserved = "pgsaga_unserved_tasks{queue=\"reports\"}";
    eventually(2 * PATIENCE, "the metric counts the task", async || {
        (scene.workers[0].metric(unserved).await == Some(1.0)).then_some(())
    })
    .await;
    let rows = run(&scene.db, &["queues", "--json"]).fine();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let workers: Vec<_> =
        rows.iter().map(|row| (row["queue"].as_str().unwrap(), row["workers"].as_i64())).collect();
    assert_eq!(workers, [("default", Some(1)), ("reports", Some(0))]);

    // A worker that is replaced may take a minute.
    run(&scene.db, &["doctor"]).fine();
    scene.pool().execute("update pgsaga.task set run_at = now() - interval '2 minutes'").await.unwrap();
    let said = run(&scene.db, &["doctor"]);
    assert_eq!(said.code, Some(1));
    let says = "queues_are_served: queue reports: due tasks: 1, the first for 120 s; none of 1 living workers serves it";
    assert!(said.out.contains(says), "{}", said.out);

    // Paused on purpose.
    run(&scene.db, &["pause", "reports"]).fine();
    run(&scene.db, &["doctor"]).fine();
    run(&scene.db, &["resume", "reports"]).fine();
    scene.start_worker(&["--queue", "reports"]).await;
    scene.expect("alone", "succeeded", None, &["a action"]).await;
    run(&scene.db, &["doctor"]).fine();
}
