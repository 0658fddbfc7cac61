//! What people see of a step that waits, and what they report of it.

use pgsaga_tests::command::run;
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::Value;

use super::commands::assert_said;

#[tokio::test]
async fn a_step_that_waits_is_shown_and_completed() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    for gid in ["s", "t"] {
        scene.saga(gid).step("stock").step("approval").waits(86_400.0).step("ship").insert().await;
        eventually(PATIENCE, "it waits", async || (scene.history(gid).await.len() == 2).then_some(())).await;
    }
    let shown = run(db, &["show", "s"]).fine();
    for words in [
        "waits for a completion",
        "(waits)",
        "wait_seconds 86400",
        "action of approval, try 2: waits for a completion for 23 h 59",
        "; without one the saga rolls back",
        "then ship",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    let json: Value = serde_json::from_str(&run(db, &["show", "s", "--json"]).fine()).unwrap();
    assert_eq!(json["next"][0]["completion"], Value::Null);
    assert!(json["next"][0]["wait_ends_at"].is_string(), "{json:#}");

    for (arguments, code, words) in [
        (&["x", "approval", "success"][..], 4, "no saga has the gid \"x\""),
        (&["s", "refund", "success"], 4, "saga s has no step \"refund\""),
        (&["s", "ship", "success"], 1, "the action of step \"ship\" of saga s is over, or has not begun"),
        (&["s", "approval", "failure"], 2, "comment: found nothing; allowed: 1 to 1,024 bytes that say why"),
        (&["s", "approval", "done"], 2, "[possible values: success, failure, ongoing]"),
        (&["s", "approval", "success", "--answer", "{"], 2, "allowed: JSON"),
        (&["s", "approval", "success", "--op", "try"], 2, "[possible values: action, compensate]"),
        (&["s", "approval", "success", "--op", "compensate"], 1, "is over, or has not begun"),
        (&["s", "approval", "ongoing"], 0, "s: submitted\n"),
        (
            &["s", "approval", "success", "--answer", "{\"by\": 1.10}", "--comment", "by phone"],
            0,
            "s: submitted\n",
        ),
        (&["t", "approval", "failure", "--comment", "too dear"], 0, "t: submitted\n"),
    ] {
        let command: Vec<&str> = ["complete"].iter().chain(arguments).copied().collect();
        assert_said(&run(db, &command), code, words);
    }
    scene.expect("s", "succeeded", None, &["stock action", "ship action"]).await;
    let reason = Some("approval: too dear");
    scene.expect("t", "failed", reason, &["stock action", "stock compensate"]).await;
    let shown = run(db, &["show", "s"]).fine();
    for words in ["completion", "ongoing by postgres", "success by postgres: by phone"] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    // A lost reply is repeated.
    let again = ["complete", "s", "approval", "success", "--answer", "{\"by\": 1.10}"];
    assert_said(&run(db, &again), 0, "s: succeeded\n");
    assert_said(&run(db, &["complete", "s", "approval", "success"]), 1, "the first completion counts");
}

#[tokio::test]
async fn what_cannot_be_completed_is_refused_with_words() {
    let scene = Scene::new().await;
    scene.saga("s").step("stock").step("approval").waits(86_400.0).step("ship").insert().await;
    for (arguments, code, words) in [
        ("'s', 'approval', 'done'", "22023", "outcome: found \"done\"; allowed: success, failure or ongoing"),
        ("'s', 'approval', null", "22023", "outcome: found nothing; allowed: success, failure or ongoing"),
        (
            "'s', 'approval', 'success', op => 'try'",
            "22023",
            "op: found \"try\"; allowed: action or compensate",
        ),
        (
            "'s', 'approval', 'failure'",
            "22023",
            "comment: found nothing; allowed: 1 to 1,024 bytes that say why",
        ),
        (
            "'s', 'approval', 'success', comment => repeat('x', 1025)",
            "22023",
            "comment: found 1025 bytes; allowed: 1 to 1,024 bytes that say why",
        ),
        (
            "'s', 'approval', 'failure', '1', 'no'",
            "22023",
            "answer: found number; allowed: none, except with the success of an action",
        ),
        (
            "'s', 'approval', 'success', '1', op => 'compensate'",
            "22023",
            "answer: found number; allowed: none, except with the success of an action",
        ),
        (
            "'s', 'approval', 'success', to_jsonb(repeat('x', 1048576))",
            "22023",
            "answer: found 1048578 bytes; allowed: up to 1,048,576 bytes as Postgres prints the JSON",
        ),
        (
            "'s', 'approval', 'success', (repeat('[', 65) || repeat(']', 65))::jsonb",
            "22023",
            "answer: found more than 64 levels; allowed: arrays and objects nested up to 64 deep",
        ),
        ("'x', 'approval', 'success'", "P0002", "no saga has the gid \"x\""),
        ("'s', 'refund', 'success'", "P0002", "saga s has no step \"refund\""),
        ("'s', 'stock', 'success'", "55000", "the action of step \"stock\" of saga s was not called yet"),
        (
            "'s', 'ship', 'success'",
            "55000",
            "the action of step \"ship\" of saga s is over, or has not begun",
        ),
        (
            "'s', 'approval', 'success', op => 'compensate'",
            "55000",
            "the compensate of step \"approval\" of saga s is over, or has not begun",
        ),
        (
            "'s', 'approval', 'ongoing'",
            "55000",
            "the action of step \"approval\" of saga s does not wait: only a wait that has not ended can begin anew",
        ),
    ] {
        assert_eq!(scene.complete_refused(arguments).await, (code.into(), words.into()), "{arguments}");
    }
    scene.healthy().await;
}
