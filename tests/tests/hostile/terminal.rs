//! What participants, producers and people wrote, on an operator's terminal: nothing of it moves
//! the cursor, changes colours or turns the direction of writing.

use pgsaga_tests::Behaviour;
use pgsaga_tests::command::{Running, Said, run};
use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::{Value, json};

/// Clears the screen, sets the title, starts a new line and a carriage return, writes from right to
/// left, rings, is a control sequence in one character, ends a Mermaid label, and is long.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nFAKE LINE\u{9b}31m\u{202e}gpj.exe\u{2066}\u{61c}\u{7f}\u{8}\u{85}\u{2028}\"]; click s0 href \"javascript:alert(1)\" %% `<b>`";

fn unprintable(character: char) -> bool {
    character != '\n' && character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn assert_printable(what: &str, text: &str) {
    let at = text.find(unprintable);
    assert!(
        at.is_none(),
        "{what} writes {:?} at {at:?}:\n{text:?}",
        at.and_then(|at| text[at..].chars().next())
    );
}

fn shown(scene: &Scene, args: &[&str]) -> Said {
    let said = run(&scene.db, args);
    assert_printable(&format!("{args:?}"), &said.out);
    assert_printable(&format!("{args:?} on stderr"), &said.err);
    said
}

/// Four sagas: refused, succeeded with a result, stuck, and aborted while it waits; hostile
/// wherever something can be.
async fn hostile_sagas(scene: &Scene) {
    let long = format!("{HOSTILE}{}", "\u{202e}x".repeat(1_000));
    let label =
        |saga: &str| format!("'{}'", json!({"who": HOSTILE, "saga": saga}).to_string().replace('\'', "''"));
    let payload = json!({HOSTILE: [HOSTILE]});
    let step = |gid: &'static str| {
        scene.saga(gid).column("labels", &label(gid)).step("a").with("payload", payload.clone())
    };
    step("refused").step("b").action(Behaviour::Refuse(long.clone())).insert().await;
    step("done").action(Behaviour::Json(200, json!({HOSTILE: HOSTILE}))).insert().await;
    let stuck = step("stuck").compensate(Behaviour::Refuse(long.clone()));
    stuck.step("b").action(Behaviour::Refuse(long)).insert().await;
    step("aborted").column("run_at", "now() + interval '1 hour'").insert().await;
    for (gid, status) in [("refused", "failed"), ("done", "succeeded"), ("stuck", "stuck")] {
        assert_eq!(scene.ended(gid).await.0, status, "{gid}");
    }
    let abort = sqlx::query("select pgsaga.abort('aborted', $1)").bind(HOSTILE);
    abort.execute(scene.pool()).await.unwrap();
    let ended = pgsaga_tests::eventually(PATIENCE, "the abort is planned", async || {
        scene.status("aborted").await.filter(|(status, _)| status == "failed")
    });
    assert!(ended.await.1.unwrap().contains(HOSTILE), "a person's words are kept as they are");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_lets_through_what_others_wrote_for_the_terminal() {
    let scene = Scene::with_worker().await;
    hostile_sagas(&scene).await;
    let stored: String = sqlx::query_scalar(
        "select string_agg(labels::text || coalesce(result::text, ''), '') from pgsaga.saga",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    assert!(stored.contains('\u{9b}') && stored.contains('\u{202e}'), "hostile enough: {stored}");
    for gid in ["refused", "done", "stuck", "aborted"] {
        let drawn = shown(&scene, &["show", gid]).fine();
        assert!(drawn.lines().all(|line| !line.starts_with("FAKE LINE")), "{drawn}");
        let whole: Value = serde_json::from_str(&shown(&scene, &["show", "--json", gid]).fine()).unwrap();
        assert_eq!(whole["labels"]["who"], HOSTILE, "JSON keeps every character");
        assert_eq!(whole["steps"][0]["payload"][HOSTILE][0], HOSTILE);
        assert_mermaid(&shown(&scene, &["show", "--mermaid", gid]).fine());
    }
    shown(&scene, &["list"]).fine();
    let listed = shown(&scene, &["list", "--json"]).fine();
    for line in listed.lines() {
        let saga: Value = serde_json::from_str(line).unwrap();
        assert_eq!(saga["labels"]["who"], HOSTILE);
    }
    assert_eq!(listed.lines().count(), 4);
    shown(&scene, &["queues"]).fine();
    shown(&scene, &["queues", "--json"]).fine();
    shown(&scene, &["doctor"]).fine();
    shown(&scene, &["retry", "--stuck", "--dry-run"]).fine();
    shown(&scene, &["skip", "--stuck", "--dry-run", "--comment", "x"]).fine();
    assert_eq!(shown(&scene, &["show", HOSTILE]).code, Some(4));
    assert_eq!(shown(&scene, &["force", HOSTILE, "--comment", "x"]).code, Some(4));
    let followed = Running::start(&scene.db, &["list", "--watch", "1"]);
    followed.wait_for_out("aborted", PATIENCE).await;
    assert_printable("list --watch", &followed.out());

    let metrics = scene.workers[0].metrics().await;
    assert!(metrics.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{metrics}");
    assert!(!metrics.contains("FAKE") && !metrics.contains("owned"));
}

/// Every line is of the flowchart's own making, and a label holds nothing that could end it.
#[track_caller]
fn assert_mermaid(text: &str) {
    let (head, chart) = text.split_once("flowchart TD\n").unwrap();
    assert!(head.lines().count() == 3 && head.starts_with("---\ntitle: \"saga "), "{head}");
    for line in chart.lines() {
        let line = line.strip_prefix("  ").unwrap();
        let node = line.split_once("[\"").and_then(|(name, rest)| Some((name, rest.split_once("\"]:::")?)));
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fine = match node {
            Some((name, (label, class))) => {
                let markup = label.replace("<br/>", "").replace("(pivot)", "");
                is_name(name)
                    && is_name(class)
                    && !markup.contains(['"', '<', '>', '[', ']', '(', ')', '`', '%', '/', ':', '&', '\\'])
            }
            None => {
                line.starts_with("classDef ")
                    || line.split([' ', '-', '.', '>']).all(is_name) && line.contains("->")
                    || line.split_once(" --> ").is_some_and(|(from, to)| is_name(from) && is_name(to))
            }
        };
        assert!(fine, "{line:?} in\n{text}");
    }
}

/// The checks are for rows that should not be; those hold what no INSERT lets through.
#[tokio::test]
async fn doctor_shows_a_row_that_somebody_changed_by_hand_without_obeying_it() {
    let scene = Scene::new().await;
    scene.saga("s").step("a").insert().await;
    sqlx::raw_sql("set session_replication_role = replica; delete from pgsaga.task")
        .execute(scene.pool())
        .await
        .unwrap();
    sqlx::query("update pgsaga.saga set gid = $1").bind(HOSTILE).execute(scene.pool()).await.unwrap();
    let said = shown(&scene, &["doctor"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("open_sagas_can_go_on: saga  [2J"), "{}", said.out);
    let told = shown(&scene, &["doctor", "--json"]);
    let place: Value = serde_json::from_str(told.out.lines().next().unwrap()).unwrap();
    assert_eq!(place["gid"], HOSTILE);
}

#[test]
fn check_quotes_a_file_without_obeying_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saga.json");
    for saga in [json!([{"name": HOSTILE, "action": ""}]), json!([{"action": HOSTILE}]), json!({HOSTILE: 1})]
    {
        std::fs::write(&file, saga.to_string()).unwrap();
        let output = pgsaga_tests::binary::command().arg("check").arg(&file).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_printable("check", &said);
    }
    std::fs::write(&file, b"[{\"action\": \"\xff\"}]").unwrap();
    let output = pgsaga_tests::binary::command().arg("check").arg(&file).output().unwrap();
    assert!(!output.status.success(), "no UTF-8 is no saga");
}

/// Both formats, with all that a worker can say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_holds_no_words_of_a_participant_as_its_own() {
    for format in ["text", "json"] {
        let scene = Scene::new().await;
        let worker = Running::start(
            &scene.db,
            &[
                "work",
                "--listen",
                "127.0.0.1:0",
                "--lease-seconds",
                "2",
                "--allow-address",
                "127.0.0.1",
                "--log-format",
                format,
                "--log-level",
                "debug",
            ],
        );
        // Its message is that of another event, and looks like fields.
        let forged = format!("listening address=1.2.3.4:5 gid=\"other\" {HOSTILE}");
        let unknown = Behaviour::Json(500, json!({"message": forged}));
        scene
            .saga("s")
            .step("a")
            .action(Behaviour::Sequence(vec![unknown]))
            .compensate(Behaviour::Refuse(forged.clone()))
            .step("b")
            .action(Behaviour::Refuse(forged))
            .insert()
            .await;
        assert_eq!(scene.ended("s").await.0, "stuck");
        worker.wait_for_err("a saga is stuck", PATIENCE).await;
        worker.wait_for_err("an attempt did not succeed", PATIENCE).await;
        let log = worker.err();
        assert!(log.contains("1.2.3.4:5"), "it tells what was said: {log}");
        assert_printable(&format!("the log in {format}"), &log);
        let listening = |line: &&str| match format {
            "json" => serde_json::from_str::<Value>(line).unwrap()["fields"]["message"]
                .as_str()
                .unwrap()
                .starts_with("listening"),
            // After the time, the level and the target.
            _ => line.split_once(": ").is_some_and(|(_, event)| event.starts_with("listening")),
        };
        let whole = &log[..=log.rfind('\n').unwrap()];
        assert_eq!(whole.lines().filter(listening).count(), 1, "{log}");
        for line in whole.lines() {
            assert!(!line.starts_with("FAKE"), "{line}");
        }
        drop(worker);
    }
}
