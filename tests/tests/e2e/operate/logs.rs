//! What the log of a worker has at its default level.

use pgsaga_tests::Behaviour;
use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::Value;

/// The events with this message that the first worker has logged.
fn events(scene: &Scene, message: &str) -> Vec<Value> {
    let log = scene.workers[0].log();
    let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["fields"]["message"] == message).collect()
}

#[tokio::test]
async fn the_first_failed_attempt_of_a_step_and_a_saga_that_unwinds_are_seen_without_debug() {
    let scene = Scene::with_worker().await;
    scene
        .saga("refused")
        .step("stock")
        .action(Behaviour::Sequence(vec![
            Behaviour::Ongoing(1),
            Behaviour::Status(500),
            Behaviour::Status(503),
            Behaviour::Ok,
        ]))
        .step("pay")
        .action(Behaviour::Refuse("no money".into()))
        .insert()
        .await;
    assert_eq!(scene.ended("refused").await.0, "failed");
    scene.workers[0].wait_for_log("a saga unwinds", PATIENCE).await;
    let failed = events(&scene, "an attempt did not succeed");
    let about = |event: &Value| {
        let fields = &event["fields"];
        let parts = [&event["level"], &fields["gid"], &fields["step"], &fields["op"], &fields["outcome"]];
        parts.map(|part| part.as_str().unwrap().to_owned()).join(" ")
    };
    let expected = ["INFO refused stock action unknown", "INFO refused pay action failure"];
    assert_eq!(failed.iter().map(about).collect::<Vec<_>>(), expected);
    let unwinds = events(&scene, "a saga unwinds");
    assert_eq!(unwinds.len(), 1);
    assert_eq!(unwinds[0]["level"], "INFO");
    assert_eq!(unwinds[0]["fields"]["reason"], "pay: no money");
}

/// 300 sagas that are refused at once write no 600 lines.
#[tokio::test]
async fn an_outage_does_not_flood_the_log() {
    let scene = Scene::with_worker().await;
    let url = scene.participant.url("/pay");
    scene.participant.ruled_by(|_| Behaviour::Refuse("closed".into()));
    let insert = "insert into pgsaga.saga (gid, steps) select 'g' || n, jsonb_build_array(jsonb_build_object('action', $1::text))
        from generate_series(1, 300) n";
    let began = std::time::Instant::now();
    sqlx::query(insert).bind(url).execute(scene.pool()).await.unwrap();
    scene.all_ended(PATIENCE).await;
    let seconds = began.elapsed().as_secs() as usize + 2;
    for message in ["an attempt did not succeed", "a saga unwinds"] {
        let lines = events(&scene, message).len();
        assert!(
            (1..=10 * seconds).contains(&lines) && lines < 300,
            "{message}: {lines} lines in {seconds} s"
        );
    }
}
