//! What a step says otherwise than its saga.

use pgsaga_sql::contract::{STEP_KEYS, StepKey};
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Ui, worker};
use serde_json::json;

use super::{assert_tells, execute, shown, words};

/// A key that is added to the table is shown, on the terminal and on the page.
#[tokio::test]
async fn each_number_of_a_step_is_shown() {
    let scene = Scene::new().await;
    let settings: Vec<StepKey> = STEP_KEYS.into_iter().filter(StepKey::is_setting).collect();
    let mut saga = scene.saga("own").step("plain").step("pay");
    for (number, key) in (1..).zip(&settings) {
        saga = saga.with(key.name, json!(number));
        if key.name == "wait_seconds" {
            saga = saga.with("action", json!(null));
        }
    }
    saga.insert().await;
    let line = (1..).zip(&settings).map(|(number, key)| format!("{} {number}", key.name));
    let line = line.collect::<Vec<_>>().join(", ");
    let output = words(&shown(&scene, "own"));
    assert_tells(&output, &["▸ plain queued", r#"{"step": "plain"}"#, "· pay waits", &line]);

    let ui = Ui::read_only(scene.db.url());
    let (status, page) = worker::get(ui.address().await, "/saga?gid=own").await.unwrap();
    assert_eq!(status, 200, "{page}");
    assert_eq!(page.matches(&line).count(), 1, "{page}");

    // A person may write anything instead of a number.
    let nonsense = r#"{"x": 1}"#;
    for key in &settings {
        let row =
            format!("update pgsaga.saga set steps = jsonb_set(steps, '{{0,{}}}', '{nonsense}')", key.name);
        execute(&scene, &row).await;
        assert_tells(&words(&shown(&scene, "own")), &[&format!("{} {nonsense}", key.name), &line]);
    }
}
