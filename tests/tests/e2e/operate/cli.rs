//! The command line as a user meets it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, eventually, pgsaga};
use serde_json::Value;

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(pgsaga());
    command.args(args).env_remove("DATABASE_URL").envs(env.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_value_is_validated_with_a_message_that_says_what_is_allowed() {
    let url = "postgres://localhost/none";
    for (args, env, says) in [
        (vec!["work", "--database-url", url, "--lease-seconds", "1"], vec![], "1 is not in 2..=3600"),
        (
            vec!["work", "--database-url", url],
            vec![("PGSAGA_LEASE_SECONDS", "3601")],
            "3601 is not in 2..=3600",
        ),
        (vec!["work", "--database-url", url, "--concurrency", "0"], vec![], "0 is not in 1..=65536"),
        (
            vec!["work", "--database-url", url, "--listen", "9464"],
            vec![],
            "allowed: an IP address and a port, such as 127.0.0.1:9464",
        ),
        (
            vec!["work", "--database-url", url, "--allow-address", "10.0.0.0/33"],
            vec![],
            "allowed: an address or a network",
        ),
        (
            vec!["work", "--database-url", url],
            vec![("PGSAGA_ALLOW_ADDRESSES", "127.0.0.1,nonsense")],
            "allowed: an address or a network",
        ),
        (
            vec!["work", "--database-url", url],
            vec![("PGSAGA_LEASE_SECOND", "15")],
            "PGSAGA_LEASE_SECOND is unknown; allowed: PGSAGA_ALLOW_ADDRESSES",
        ),
        (
            vec!["work", "--database-url", "not a url"],
            vec![],
            "it looks like postgres://user:password@host:5432/name",
        ),
        (
            vec!["work", "--database-url", url, "--log-level", "==="],
            vec![],
            "allowed: error, warn, info, debug, trace",
        ),
        (vec!["work"], vec![("DATABASE_URL", "")], "found nothing; allowed: postgres://user@host:5432/name"),
        (
            vec!["list", "--database-url", url, "--status", "done"],
            vec![],
            "possible values: submitted, aborting, stuck, succeeded, failed",
        ),
    ] {
        let output = run(&args, &env);
        assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}");
        assert!(text(&output.stderr).contains(says), "{args:?} {env:?}: {}", text(&output.stderr));
    }
}

#[test]
fn help_lists_every_command_flag_variable_and_exit_code() {
    let help = text(&run(&["--help"], &[]).stdout);
    let commands = "migrate work show list abort retry skip resolve force queues pause resume check doctor health ui echo demo bench";
    for word in commands.split(' ').chain(["Exit codes:"]) {
        assert!(help.contains(word), "{word}");
    }
    let help = text(&run(&["work", "--help"], &[]).stdout);
    for word in
        ["PGSAGA_LEASE_SECONDS", "PGSAGA_ALLOW_ADDRESSES", "DATABASE_URL", "--concurrency", "default: 15"]
    {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_no_misspelt_variable() {
    let links = [
        ("PGSAGA_SERVICE_HOST", "10.0.0.1"),
        ("PGSAGA_SERVICE_PORT_METRICS", "9464"),
        ("PGSAGA_PORT", "tcp://10.0.0.1:9464"),
        ("PGSAGA_WORKER_PORT_9464_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(run(&["migrate", "--print"], &links).status.success());
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let mut print = Command::new(pgsaga())
        .args(["migrate", "--print"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(print.stdout.take());
    let output = print.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn check_reads_a_file_or_standard_input() {
    let mut check = Command::new(pgsaga())
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(br#"[{"action": "ftp://x"}]"#).unwrap();
    let output = check.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("found \"ftp://x\"; allowed:"), "{}", text(&output.stderr));
    let output = run(&["check", "/nowhere"], &[]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("read /nowhere: No such file"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn show_list_and_doctor_tell_what_is_there() {
    let scene = Scene::with_worker().await;
    let url = scene.db.url();
    scene.saga("fine").step("pay").insert().await;
    scene
        .saga("refused")
        .step("stock")
        .step("pay")
        .action(Behaviour::Refuse("no money".into()))
        .insert()
        .await;
    scene
        .saga("waits")
        .column("retry_interval", "'1 hour'")
        .step("pay")
        .action(Behaviour::Status(500))
        .insert()
        .await;
    scene.ended("fine").await;
    scene.ended("refused").await;
    eventually(PATIENCE, "the first try is settled", async || {
        (scene.history("waits").await.len() == 1).then_some(())
    })
    .await;

    let shown = run(&["show", "refused", "--database-url", url], &[]);
    let shown = text(&shown.stdout);
    for words in [
        "saga refused: failed",
        "reason: pay: no money",
        "stock",
        "compensate",
        "failure",
        "409",
        "nothing: it is over",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    let digits = "insert into pgsaga.saga (gid, steps) values ('digits', '[{\"action\": \"\", \"payload\": 12345678901234567890.10}]')";
    sqlx::raw_sql(digits).execute(scene.pool()).await.unwrap();
    for flags in [&["--json"][..], &[]] {
        let shown = run(&[&["show", "digits", "--database-url", url], flags].concat(), &[]);
        assert!(text(&shown.stdout).contains("12345678901234567890.10"), "{}", text(&shown.stdout));
    }
    let shown = run(&["show", "waits", "--json", "--database-url", url], &[]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["next"][0]["attempt"], 2);
    assert!(shown["next"][0]["due_ms"].as_i64().unwrap() > 2_000_000);
    assert_eq!(shown["history"][0]["outcome"], "unknown");

    let unknown = run(&["show", "no-such", "--database-url", url], &[]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(text(&unknown.stderr).contains("no saga has the gid \"no-such\""));

    let open = text(&run(&["list", "--open", "--json", "--database-url", url], &[]).stdout);
    let lines: Vec<Value> = open.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["gid"], "waits");
    let listed = text(&run(&["list", "--status", "failed", "--database-url", url], &[]).stdout);
    assert!(listed.contains("refused") && !listed.contains("fine"), "{listed}");

    let doctor = run(&["doctor", "--database-url", url], &[]);
    assert_eq!(doctor.status.code(), Some(0), "{}", text(&doctor.stdout));
    sqlx::raw_sql("delete from pgsaga.task").execute(scene.pool()).await.unwrap();
    let doctor = run(&["doctor", "--database-url", url], &[]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(
        text(&doctor.stdout).contains("open_sagas_can_go_on: saga waits: status submitted, no task"),
        "{}",
        text(&doctor.stdout)
    );
    let nowhere = run(&["doctor", "--database-url", "postgres://nobody@127.0.0.1:1/none"], &[]);
    assert_eq!(nowhere.status.code(), Some(5));
}

#[tokio::test]
async fn metrics_are_complete_from_the_start_and_have_no_summaries() {
    let scene = Scene::with_worker().await;
    let metrics = scene.workers[0].metrics().await;
    assert!(!metrics.contains(" summary"), "summaries cannot be added across replicas");
    for series in [
        "pgsaga_claimed_total 0",
        "pgsaga_attempts_total{op=\"compensate\",outcome=\"unknown\"} 0",
        "pgsaga_sagas_finished_total{queue=\"default\",status=\"stuck\"} 0",
        "pgsaga_ready 1",
        "pgsaga_calls_in_flight 0",
    ] {
        assert!(metrics.lines().any(|line| line == series), "{series} is not in\n{metrics}");
    }
    scene.saga("s").step("pay").insert().await;
    scene.ended("s").await;
    let metrics = eventually(PATIENCE, "the end is counted", async || {
        let metrics = scene.workers[0].metrics().await;
        metrics
            .contains("pgsaga_sagas_finished_total{queue=\"default\",status=\"succeeded\"} 1")
            .then_some(metrics)
    })
    .await;
    for (name, kind, _) in pgsaga_worker::telemetry::metrics::table() {
        assert!(
            metrics.contains(&format!("# TYPE {name} {kind}")),
            "{name} is documented as a {kind} and not exported so"
        );
    }
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(
            pgsaga_worker::telemetry::metrics::table().any(|(known, ..)| *known == name),
            "{name} is not documented"
        );
    }
}

#[tokio::test]
async fn logs_name_the_event_and_never_the_payload() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--log-level", "trace"]).await;
    let saga = scene.saga("s").step("pay").with("payload", serde_json::json!({"card": "4111-secret"}));
    saga.with("headers", serde_json::json!({"Authorization": "Bearer top-secret"}))
        .step("ship")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.ended("s").await;
    let line = scene.workers[0].wait_for_log("a saga unwinds", PATIENCE).await;
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["fields"]["gid"], &event["fields"]["step"]), (&"s".into(), &"ship".into()));
    let log = scene.workers[0].log().join("\n");
    assert!(!log.contains("4111-secret") && !log.contains("top-secret"), "a secret is in the log");
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_so() {
    let scene = Scene::with_worker().await;
    let taken = scene.workers[0].address().await.to_string();
    let output = run(&["work", "--database-url", scene.db.url(), "--listen", &taken], &[]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("choose another with --listen"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_schema_that_is_absent_or_too_old_is_said_so() {
    let scene = Scene::new().await;
    for (breaks, found) in [
        ("update pgsaga.migration set version = 0 where version = 1", "at version 0"),
        ("drop schema pgsaga cascade", "absent"),
    ] {
        sqlx::raw_sql(breaks).execute(scene.pool()).await.unwrap();
        for command in
            [&["list"][..], &["show", "s"], &["retry", "s"], &["queues"], &["doctor"], &["pause", "q"]]
        {
            let output = run(&[command, &["--database-url", scene.db.url()]].concat(), &[]);
            assert_eq!(output.status.code(), Some(3), "{command:?}");
            let says = format!("is {found}, and this pgsaga");
            assert!(text(&output.stderr).contains(&says), "{command:?}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains("run `pgsaga migrate`"), "{command:?}");
        }
    }
}
