//! `pgsaga show`: a saga as a person reads it, as JSON, and as a picture.

mod picture;
mod settings;
mod standing;
mod whole;

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

async fn execute(scene: &Scene, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(scene.pool()).await.unwrap();
}

/// Waits until so many tries are in the history.
async fn tried(scene: &Scene, gid: &str, tries: usize) {
    eventually(PATIENCE, "the tries are settled", async || {
        (scene.history(gid).await.len() >= tries).then_some(())
    })
    .await;
}

fn shown(scene: &Scene, gid: &str) -> String {
    run(&scene.db, &["show", gid]).fine()
}

/// Each text is in the output, after the one before it.
#[track_caller]
fn assert_tells(output: &str, story: &[&str]) {
    let mut rest = output;
    for text in story {
        let Some(at) = rest.find(text) else { panic!("{text:?} does not follow in\n{output}") };
        rest = &rest[at + text.len()..];
    }
}

/// The words of each line, whatever lies between them.
fn words(output: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    output.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_refused_saga_is_told_from_its_beginning_to_its_end() {
    let scene = Scene::with_worker().await;
    scene
        .saga("refused")
        .column("queue", "'bulk'")
        .column("priority", "2")
        .column("labels", "'{\"tenant\": \"a\"}'")
        .column("timeout_to_fail", "'1 hour'")
        .step("stock")
        .step("pay")
        .action(Behaviour::Refuse("no money".into()))
        .step("ship")
        .insert()
        .await;
    scene.ended("refused").await;
    let output = words(&shown(&scene, "refused"));
    assert_tells(
        &output,
        &[
            "saga refused: failed\nreason: pay: no money\ncreated 20",
            ", finished 20",
            ", after ",
            "\ndeadline 20",
            "\nqueue bulk, priority 2\nlabels {\"tenant\": \"a\"}\n",
            "\nSteps\n",
            "↩ stock undone 1 try, 1 try to undo http://",
            "✗ pay refused 1 try http://",
            "· ship never ran http://",
            "\nTimeline",
            "→ stock action try 1 success 200 took ",
            "→ pay action try 1 failure 409 took ",
            " no money\n",
            "↩ stock compensate try 1 success 200 took ",
            "\nNext\nnothing: it is over",
        ],
    );
    assert!(!output.contains('\x1b'), "no colours where nobody looks");
    // The control: a saga that went well is not told so.
    scene.saga("fine").step("pay").insert().await;
    scene.ended("fine").await;
    let output = words(&shown(&scene, "fine"));
    assert_tells(
        &output,
        &["saga fine: succeeded\ncreated", "✓ pay done 1 try", "→ pay action try 1 success 200"],
    );
    for absent in ["reason", "queue", "labels", "deadline", "↩ pay compensate", "refused"] {
        assert!(!output.contains(absent), "{absent}\n{output}");
    }
}

#[tokio::test]
async fn tries_that_ended_alike_are_told_once_and_what_waits_says_how_long() {
    let scene = Scene::with_worker().await;
    scene.saga("retried").step("pay").action(Behaviour::Unknown(6)).insert().await;
    scene.ended("retried").await;
    let output = words(&shown(&scene, "retried"));
    assert_tells(
        &output,
        &[
            "✓ pay done 7 tries",
            "→ pay action try 1 unknown 500 took ",
            ", next after ",
            "→ pay action tries 2–6 unknown 500 took ",
            " until +",
            "→ pay action try 7 success 200",
        ],
    );

    scene
        .saga("waits")
        .column("retry_interval", "'1 hour'")
        .column("retry_limit", "5")
        .step("pay")
        .action(Behaviour::Status(503))
        .step("ship")
        .insert()
        .await;
    tried(&scene, "waits", 1).await;
    let output = words(&shown(&scene, "waits"));
    assert_tells(
        &output,
        &["▸ pay queued 1 try", "· ship waits", "\nNext\naction of pay, try 2: in ", ", at 20"],
    );
    assert_tells(
        &output,
        &["unless that is definite, again about 1 h later, 4 of 5 retries left\nthen ship"],
    );

    let gate = Gate::new();
    scene
        .saga("held")
        .column("request_timeout", "'60 seconds'")
        .step("pay")
        .action(Behaviour::Gate(gate.clone()))
        .insert()
        .await;
    eventually(PATIENCE, "the call arrives", async || {
        (!scene.participant.calls_for("held").is_empty()).then_some(())
    })
    .await;
    let output = words(&shown(&scene, "held"));
    assert_tells(
        &output,
        &[
            "▸ pay runs",
            "action of pay, try 1: held by worker ",
            " (process ",
            ", heard from ",
            " ago) for at most ",
        ],
    );
    run(&scene.db, &["resolve", "held", "succeeded", "--comment", "seen to"]).fine();
    let output = words(&shown(&scene, "held"));
    assert_tells(
        &output,
        &[
            "saga held: submitted",
            "it ends as succeeded, as a person decided, as soon as the calls in flight have ended",
            "it is not tried again, as a person decided",
        ],
    );
    gate.open();
    assert_eq!(scene.ended("held").await.0, "succeeded");
}

#[tokio::test]
async fn a_stuck_saga_names_what_helps() {
    let scene = Scene::with_worker().await;
    scene
        .saga("stuck")
        .step("stock")
        .compensate(Behaviour::Refuse("gone".into()))
        .step("pay")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.ended("stuck").await;
    let output = shown(&scene, "stuck");
    assert_tells(
        &words(&output),
        &[
            "saga stuck: stuck\nreason: stock: gone\n",
            "! stock stuck 1 try, 1 try to undo",
            "↩ stock compensate try 1 failure 409",
            "compensate of stock is stuck since 20",
            ": stock: gone\na person must decide; what helps:",
            "pgsaga retry stuck ",
            "pgsaga skip stuck stock --comment TEXT ",
            "pgsaga resolve stuck succeeded|failed --comment TEXT",
            "pgsaga force stuck --comment TEXT",
        ],
    );
    assert!(!output.contains("pgsaga abort stuck"), "it rolls back already\n{output}");
    // What is named does help.
    scene.participant.on("/stuck/stock", "compensate", Behaviour::Ok);
    run(&scene.db, &["retry", "stuck", "--comment", "stock is repaired"]).fine();
    scene.ended("stuck").await;
    assert_tells(
        &words(&shown(&scene, "stuck")),
        &[
            "saga stuck: failed\nreason: pay: no\n",
            "↩ stock compensate try 1 failure 409",
            "◆ stock decision retry by postgres: stock is repaired",
            "↩ stock compensate try 2 success 200",
            "nothing: it is over",
        ],
    );
}

#[tokio::test]
async fn an_abort_is_told_with_who_and_why_and_text_cannot_write_to_the_terminal() {
    let scene = Scene::with_worker().await;
    let waits =
        |gid: &'static str| scene.saga(gid).column("retry_interval", "'1 hour'").step("stock").step("pay");
    waits("aborted").action(Behaviour::Status(503)).insert().await;
    tried(&scene, "aborted", 2).await;
    run(&scene.db, &["abort", "aborted", "--reason", "wrong\x1b[2Jaddress\nsaga aborted: succeeded"]).fine();
    scene.ended("aborted").await;
    let output = shown(&scene, "aborted");
    assert!(!output.contains('\x1b'), "{output}");
    assert_tells(
        &words(&output),
        &[
            "saga aborted: failed\nreason: pay: aborted: wrong [2Jaddress saga aborted: succeeded\n",
            "→ pay action try 1 unknown 503",
            "◆ decision abort by postgres: wrong [2Jaddress saga aborted: succeeded\n",
            "↩ pay compensate try 1 success 200",
            "↩ stock compensate try 1 success 200",
        ],
    );

    // A pivot that was called: the abort waits for it.
    waits("awaited").with("pivot", json!(true)).action(Behaviour::Status(503)).insert().await;
    tried(&scene, "awaited", 2).await;
    run(&scene.db, &["abort", "awaited", "--reason", "wrong"]).fine();
    let output = words(&shown(&scene, "awaited"));
    assert_tells(
        &output,
        &[
            "saga awaited: submitted\ncreated",
            "pay (pivot)",
            "Next\nit rolls back unless its pivot, which was called, succeeds: pay: aborted: wrong\n",
            "action of pay, try",
            "it is asked until its answer is definite",
        ],
    );
}

#[tokio::test]
async fn the_deadline_has_its_turn() {
    let scene = Scene::with_worker().await;
    scene
        .saga("late")
        .column("retry_interval", "'1 hour'")
        .column("timeout_to_fail", "'300 milliseconds'")
        .step("pay")
        .action(Behaviour::Status(503))
        .insert()
        .await;
    scene.ended("late").await;
    assert_tells(
        &words(&shown(&scene, "late")),
        &[
            "saga late: failed\nreason: pay: timeout after",
            "→ pay action try 1 unknown 503",
            "◆ pay deadline pay: timeout after",
            "↩ pay compensate try 1 success",
        ],
    );
}

#[tokio::test]
async fn nobody_at_work_and_a_paused_queue_are_said() {
    let scene = Scene::new().await;
    scene
        .saga("s")
        .step("a")
        .step("b")
        .with("after", json!([]))
        .step("c")
        .with("after", json!(["b", "a"]))
        .insert()
        .await;
    let output = words(&shown(&scene, "s"));
    assert_tells(
        &output,
        &[
            "▸ a queued at once",
            "▸ b queued at once",
            "· c waits after b, a http://",
            "nothing has happened yet",
        ],
    );
    assert_tells(
        &output,
        &[
            "no worker is alive: start one with `pgsaga work`",
            "action of a, try 1: due for ",
            "action of b, try 1",
            "then c, once b, a have succeeded",
        ],
    );
    assert!(!output.contains("paused"));
    run(&scene.db, &["pause", "default"]).fine();
    let output = shown(&scene, "s");
    assert_tells(
        &output,
        &[
            "queue default is paused since 20",
            " by postgres: nothing of it is claimed; `pgsaga resume default` ends that",
        ],
    );
    assert_eq!(run(&scene.db, &["show", "no-such"]).code, Some(4));
}

/// A history that no worker has to make: tries of step `step` of the saga that are all `unknown
/// 503`.
async fn tries(scene: &Scene, gid: &str, step: usize, count: usize) {
    let insert = format!(
        "insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us, message, at)
         select id, {step}, 'action', n, 'unknown', 503, 1000 + n, 'busy', created_at + n * interval '1 minute'
         from pgsaga.saga, generate_series(1, {count}) n where gid = '{gid}'"
    );
    execute(scene, &insert).await;
}

#[tokio::test]
async fn a_thousand_steps_and_ten_thousand_tries_stay_readable() {
    let scene = Scene::new().await;
    let mut large = scene.saga("large");
    for step in 1..=1000 {
        large = large.step(&format!("s{step}"));
    }
    large.insert().await;
    execute(
        &scene,
        "insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us)
         select id, n, 'action', 1, 'success', 200, 1000 from pgsaga.saga, generate_series(1, 998) n where gid = 'large'",
    )
    .await;
    tries(&scene, "large", 999, 10_000).await;
    execute(
        &scene,
        "update pgsaga.task set step = 999, attempt = 10001, run_at = now() + interval '1 minute'",
    )
    .await;
    let output = shown(&scene, "large");
    assert!(output.lines().count() < 230, "{} lines", output.lines().count());
    assert_tells(
        &words(&output),
        &[
            "✓ s1 done 1 try",
            "\n… 9",
            " steps left out\n",
            "▸ s999 queued 10,000 tries",
            "· s1000 waits",
            "→ s1 action try 1 success 200",
            " lines left out: ",
            "→ s999 action try 1 unknown 503 took 1.0 ms",
            "→ s999 action tries 2–10,000 unknown 503 took 1.0 ms to 11 ms",
            "until +6 d 22 h (20",
            "; the last: busy\n",
            "action of s999, try 10,001: in ",
            "then s1000",
        ],
    );
    // About so many as were asked for, and all of them.
    let few = run(&scene.db, &["show", "large", "--lines", "10"]).fine();
    assert!(few.lines().count() < 40, "{few}");
    let all = run(&scene.db, &["show", "large", "--lines", "2000"]).fine();
    assert!(all.lines().count() > 2000 && !all.contains("left out"));
    // JSON has everything, in pages.
    let whole: Value = serde_json::from_str(&run(&scene.db, &["show", "large", "--json"]).fine()).unwrap();
    let history = whole["history"].as_array().unwrap();
    assert_eq!(history.len(), 10_998);
    assert!(history.windows(2).all(|pair| pair[0]["seq"].as_i64() < pair[1]["seq"].as_i64()));
    assert_eq!(whole["steps"].as_array().unwrap().len(), 1000);
    // Steps alike are one node of the picture.
    let picture = run(&scene.db, &["show", "large", "--mermaid"]).fine();
    assert_tells(
        &picture,
        &[
            "s1 … s998<br/>998 steps, each done",
            "s999<br/>queued",
            "s1000<br/>waits",
            "s0 --> s1",
            "s1 --> s2",
        ],
    );
    assert!(picture.lines().count() < 20, "{picture}");
}
