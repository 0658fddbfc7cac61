//! Where a step stands, by its history alone.

use pgsaga_tests::command::run;
use pgsaga_tests::scene::Scene;
use serde_json::Value;

use super::{assert_tells, execute, shown, words};

#[tokio::test]
async fn a_try_that_never_left_says_nothing_about_the_one_before_it() {
    let scene = Scene::new().await;
    for (gid, outcomes, standing) in [
        ("accepted", "'ongoing', 'unsent'", "? pay may have happened 2 tries"),
        ("refused", "'ongoing', 'failure'", "✗ pay refused 2 tries"),
        ("unsent", "'unsent', 'unsent'", "✗ pay no effect 2 tries"),
    ] {
        scene.saga(gid).step("pay").with("compensate", Value::Null).insert().await;
        let insert = format!(
            "insert into pgsaga.history (saga_id, step, op, attempt, outcome)
             select id, 1, 'action', o.attempt, o.outcome
             from pgsaga.saga, unnest(array[{outcomes}]) with ordinality o (outcome, attempt) where gid = '{gid}'
             order by o.attempt"
        );
        execute(&scene, &insert).await;
        run(&scene.db, &["resolve", gid, "failed", "--comment", "seen to"]).fine();
        assert_tells(&words(&shown(&scene, gid)), &[standing]);
    }
}
