//! `pgsaga show --json`.

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, eventually};
use serde_json::{Value, json};

use super::tried;

#[tokio::test]
async fn json_has_all_that_the_database_knows() {
    let scene = Scene::with_worker().await;
    let digits = json!({"amount": 7});
    scene
        .saga("whole")
        .column("labels", "'{\"tenant\": \"a\"}'")
        .column("headers", "'{\"X-Trace\": \"t\"}'")
        .column("queue", "'bulk'")
        .column("priority", "3")
        .column("timeout_to_fail", "'1 hour'")
        .column("compensate_retry_limit", "4")
        .column("result_mapping", "'{\"id\": {\"$from\": \"stock\", \"path\": \"/n\"}}'")
        .step("stock")
        .with("payload", digits)
        .action(Behaviour::Raw {
            status: 200,
            headers: vec![],
            body: b"{\"n\": 12345678901234567890.10}".to_vec(),
        })
        .compensate(Behaviour::Refuse("gone".into()))
        .step("pay")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.ended("whole").await;
    run(&scene.db, &["retry", "whole", "--comment", "again"]).fine();
    eventually(PATIENCE, "it is stuck again", async || {
        (scene.status("whole").await?.0 == "stuck" && scene.history("whole").await.len() == 4).then_some(())
    })
    .await;
    let text = run(&scene.db, &["show", "whole", "--json"]).fine();
    assert!(text.contains("12345678901234567890.10"), "numbers keep their digits\n{text}");
    let whole: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("gid", json!("whole")),
        ("status", json!("stuck")),
        ("reason", json!("stock: gone")),
        ("abort_reason", json!("pay: no")),
        ("queue", json!("bulk")),
        ("priority", json!(3)),
        ("labels", json!({"tenant": "a"})),
        ("headers", json!({"X-Trace": "t"})),
        ("timeout_to_fail_seconds", json!(3600.0)),
        ("compensate_retry_limit", json!(4)),
        ("result_mapping", json!({"id": {"$from": "stock", "path": "/n"}})),
        ("result", json!(null)),
        ("ending", json!(null)),
        ("progress", json!(null)),
        ("paused_at", json!(null)),
        ("finished_at", json!(null)),
        ("next", json!([])),
    ] {
        assert_eq!(whole.get(key), Some(&value), "{key}\n{text}");
    }
    assert!(whole["deadline"].is_string() && whole["version"].is_i64() && whole["format"].is_i64());
    assert_eq!(whole["steps"][0]["payload"], json!({"amount": 7}));
    assert_eq!(whole["stuck"][0]["step"], "stock");
    assert_eq!((&whole["stuck"][0]["op"], &whole["stuck"][0]["attempt"]), (&json!("compensate"), &json!(3)));
    let history = whole["history"].as_array().unwrap();
    let told: Vec<String> = history
        .iter()
        .map(|event| {
            ["kind", "step", "op", "outcome", "decision"]
                .map(|key| event[key].as_str().unwrap_or("-"))
                .join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "attempt stock action success -",
            "attempt pay action failure -",
            "attempt stock compensate failure -",
            "decision stock - - retry",
            "attempt stock compensate failure -",
        ]
    );
    assert_eq!(history[3]["decided_by"], "postgres");
    assert_eq!(history[3]["message"], "again");
    assert!(history[0]["answer"].is_object() && history[1]["answer"].is_null());

    scene
        .saga("waits")
        .column("retry_interval", "'1 hour'")
        .step("a")
        .action(Behaviour::Status(503))
        .insert()
        .await;
    tried(&scene, "waits", 1).await;
    let waits: Value = serde_json::from_str(&run(&scene.db, &["show", "waits", "--json"]).fine()).unwrap();
    let next = &waits["next"][0];
    assert_eq!((&next["step"], &next["op"], &next["attempt"]), (&json!("a"), &json!("action"), &json!(2)));
    assert_eq!(next["participant"], scene.participant.address().to_string());
    assert!(next["due_ms"].as_i64().unwrap() > 2_000_000);

    let both = run(&scene.db, &["show", "whole", "--json", "--mermaid"]);
    assert_eq!(both.code, Some(2));
    assert!(both.err.contains("cannot be used with"), "{}", both.err);
}
