//! Settings of a database or a role, which change nothing for pgsaga.

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};

use super::retention::{DROPPED, beats, eventually_counts, next_id, sql, succeeded};

/// A database or a role may set what it likes: sessions of workers and commands pin what their
/// statements rely on.
#[tokio::test]
async fn settings_of_the_database_change_nothing_for_workers_and_commands() {
    let mut scene = Scene::new().await;
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "idle_session_timeout = '1s'",
        "standard_conforming_strings = off",
        "intervalstyle = 'iso_8601'",
        "search_path = 'public'",
    ] {
        let alter = format!(
            "do $$begin execute format('alter database %I set {}', current_database()); end$$",
            setting.replace('\'', "''")
        );
        sql(&scene, &alter).await;
    }
    sql(&scene, "create function public.clock_timestamp() returns timestamptz language sql as 'select timestamptz ''infinity'''").await;
    succeeded(&scene, 1, 2500, "3 days").await;
    next_id(&scene, 4_000_000).await;
    scene.saga("young").step("a").insert().await;
    scene.start_worker(&["--retention", "1d"]).await;
    assert_eq!(scene.ended("young").await.0, "succeeded");
    eventually_counts(&scene, DROPPED, 4.0).await;
    run(&scene.db, &["show", "young"]).fine();
    run(&scene.db, &["doctor"]).fine();
    // Longer than the sessions of the database may be idle.
    beats(&scene.workers[0], 4.0).await;
    let mut worker = scene.workers.remove(0);
    worker.terminate();
    assert!(worker.wait_exit(PATIENCE).await.success());
    let log = worker.log().join("\n");
    assert!(!log.contains("\"ERROR\"") && !log.contains("57P05") && log.contains("\"drained\""), "{log}");
}
