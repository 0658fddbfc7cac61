//! `pgsaga verify` asks the same of participants behind HTTP, in any language.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{binary, tool};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::questions::cluster;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/kit/shelf.mjs");

/// A participant in Node with a planted bug, and the files of a saga that calls it.
struct Shelf {
    _node: Child,
    folder: TempDir,
}

impl Shelf {
    async fn start(bug: &str) -> Shelf {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        let mut node = Command::new(tool("node"));
        node.arg(SCRIPT).arg(bug).arg(&state).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut node = node.spawn().unwrap();
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let url = format!("http://127.0.0.1:{}", line.strip_prefix("port ").unwrap());
        let step = |name: &str| json!({"name": name, "action": format!("{url}/take"), "compensate": format!("{url}/put"), "payload": 1});
        let saga = json!([step("first"), step("second")]).to_string();
        fs::write(folder.path().join("saga.json"), saga).unwrap();
        Shelf { _node: node, folder }
    }

    /// The exit code, and what was said.
    async fn verify(&self, flags: &[&str]) -> (Option<i32>, String, String) {
        verify(self.folder.path(), "cat state.json", flags).await
    }
}

async fn verify(folder: &Path, probe: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    let url = cluster().await.server().tcp_url("postgres").unwrap();
    let output = Command::from(binary::command())
        .args(["verify", "saga.json", "--probe", probe, "--database-url", &url])
        .args(flags)
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_service_that_keeps_its_duties_passes() {
    let (code, out, err) = Shelf::start("none").await.verify(&[]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for question in ["refusal", "repeat", "lost-answer", "dead-worker", "worst-order"] {
        assert!(out.contains(&format!("{question}: holds in ")), "{out}");
    }
}

/// Each bug is named by its question, with the call at which the duty is broken.
async fn is_named(bug: &str, question: &str, case: &str) {
    // The workers' deaths take longest, and what they find out is known from handlers in process.
    let asked = ["refusal", "repeat", "lost-answer", "worst-order", question];
    let flags: Vec<&str> = asked.iter().flat_map(|asked| ["--question", *asked]).chain(["--json"]).collect();
    let (code, out, err) = Shelf::start(bug).await.verify(&flags).await;
    assert_eq!((code, err.trim_end()), (Some(1), format!("pgsaga: not met: {question}").as_str()), "{out}");
    let reports: Vec<Value> = serde_json::from_str(&out).unwrap();
    for report in reports {
        let cases = report["cases"].as_array().unwrap();
        let broken: Vec<&Value> = cases.iter().filter(|case| case["verdict"] == "BROKEN").collect();
        assert_eq!(report["holds"], report["question"] != question, "{report}");
        assert_eq!(broken.is_empty(), report["question"] != question, "{report}");
        let names = broken.iter().any(|found| found["case"].as_str().unwrap().contains(case));
        assert!(broken.is_empty() || names, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_service_without_idempotence_is_named() {
    is_named("not-idempotent", "repeat", "first action comes twice").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_service_that_answers_before_the_effect_is_named() {
    is_named("answers-early", "lost-answer", "first action is answered").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_service_that_undoes_what_was_not_done_is_named() {
    is_named("undoes-what-was-not-done", "dead-worker", "claim").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_service_that_acts_after_its_compensation_is_named() {
    is_named("acts-after-undo", "worst-order", "second action comes after").await;
}

/// A service that refuses to undo answers no later question.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_service_that_refuses_to_undo_is_named_once() {
    let shelf = Shelf::start("refuses-to-undo").await;
    let flags = ["--question", "refusal", "--question", "lost-answer"];
    let (code, out, err) = shelf.verify(&flags).await;
    assert_eq!((code, err.trim_end()), (Some(1), "pgsaga: not met: refusal, lost-answer"), "{out}");
    assert_eq!(
        out.matches(
            "BROKEN: second refuses: allowed: an end; found that the saga is stuck: first: HTTP status 409\n"
        )
        .count(),
        1,
        "{out}"
    );
    assert!(
        out.contains("unanswered: first action is answered, and the answer is lost: refusal comes first"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_with_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = verify(folder.path(), "true", &[]).await;
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("read saga.json: No such file"), "{err}");
    fs::write(folder.path().join("saga.json"), r#"[{"action": 7}]"#).unwrap();
    let (code, _, err) = verify(folder.path(), "true", &[]).await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("action: found 7"), "{err}");
    fs::write(folder.path().join("saga.json"), r#"[{"action": ""}]"#).unwrap();
    let (code, _, err) = verify(folder.path(), "echo {}", &[]).await;
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("found a saga that calls nobody"), "{err}");
    let nobody = r#"[{"action": "participant:nobody/x"}]"#;
    fs::write(folder.path().join("saga.json"), nobody).unwrap();
    for (probe, said) in [
        ("echo not JSON", r#"the state of the participants: the probe printed "not JSON\n"; allowed: JSON"#),
        ("echo no such table >&2; exit 3", "the probe ended with exit status: 3 and said: no such table"),
    ] {
        let (code, _, err) = verify(folder.path(), probe, &[]).await;
        assert_eq!(code, Some(6), "{err}");
        assert!(err.contains(said), "{err}");
    }
    // Nobody else would say why nothing happens.
    let (code, _, err) = verify(folder.path(), "echo {}", &["--patience", "2s"]).await;
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("did not end within 2 s") && err.contains("no participant \"nobody\""), "{err}");
    let (code, _, err) = verify(folder.path(), "sleep 60", &["--patience", "1s"]).await;
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("the state of the participants: it was not there within 1 s"), "{err}");
    let (code, _, err) = verify(folder.path(), "echo {}", &["--question", "luck"]).await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("refusal, repeat, lost-answer, dead-worker, worst-order"), "{err}");
}

/// The demo, the bench and `verify` look for Postgres in the same place.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_postgres_is_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("saga.json"), r#"[{"action": ""}]"#).unwrap();
    for command in [&["demo"][..], &["bench"], &["verify", "saga.json", "--probe", "echo {}"]] {
        let mut asked = Command::from(binary::command());
        asked.args(command).current_dir(folder.path()).env_remove("DATABASE_URL");
        let output = asked.env("PGSAGA_PG_BIN", folder.path()).output().await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(6), "{command:?}: {err}");
        let named = format!("failed to use the Postgres in {}: it does not hold", folder.path().display());
        assert!(err.contains(&named), "{command:?}: {err}");
    }
}

/// A probe that looks at the wrong place would find nothing wrong.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_node), ignore = "needs node: apt-get install nodejs")]
async fn a_probe_that_does_not_see_what_the_saga_changes_is_refused() {
    let shelf = Shelf::start("none").await;
    let (code, out, err) = verify(shelf.folder.path(), "echo '{}'", &[]).await;
    assert_eq!((code, out.as_str()), (Some(6), ""), "{err}");
    assert!(err.contains("found no change by a saga that succeeded"), "{err}");
}
