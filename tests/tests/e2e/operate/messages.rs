//! What commands and workers say when the database is away, lacks the schema or a right.

use std::time::{Duration, Instant};

use pgsaga_tests::command::{run, run_as};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Worker, binary};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};

/// Every command that asks a database and ends by itself, with the role whose rights it needs.
const COMMANDS: [(&[&str], &str); 9] = [
    (&["list"], "pgsaga_reader"),
    (&["show", "s"], "pgsaga_reader"),
    (&["queues"], "pgsaga_reader"),
    (&["doctor"], "pgsaga_reader"),
    (&["abort", "s", "--reason", "a test"], "pgsaga_operator"),
    (&["retry", "s"], "pgsaga_operator"),
    (&["force", "s", "--comment", "a test"], "pgsaga_operator"),
    (&["pause", "q"], "pgsaga_operator"),
    (&["resume", "q"], "pgsaga_operator"),
];

/// No words of a library: a pool, a layer, or a line of Postgres' C source.
#[track_caller]
fn assert_plain(words: &str) {
    for foreign in ["pool", " at line ", "error returned from", "error communicating"] {
        assert!(!words.contains(foreign), "{foreign:?} is in\n{words}");
    }
}

/// A URL that logs in as a new user without any role.
async fn stranger(scene: &Scene) -> (String, String) {
    let user = format!("{}_stranger", scene.db.name());
    scene.pool().execute(AssertSqlSafe(format!("create role {user} login"))).await.unwrap();
    (scene.db.url().replace("postgres://postgres@", &format!("postgres://{user}@")), user)
}

#[tokio::test]
async fn a_database_that_is_away_is_named_at_once_with_host_port_database_and_user() {
    let url = "postgres://amy:hunter2@127.0.0.1:1/orders";
    for args in COMMANDS.map(|(args, _)| args).into_iter().chain([&["migrate"][..]]) {
        let asked = Instant::now();
        let said = run_as(url, args);
        assert!(asked.elapsed() < Duration::from_secs(5), "{args:?} took {:?}", asked.elapsed());
        assert_eq!(said.code, Some(5), "{args:?}: {}", said.err);
        let cause =
            "cannot connect to Postgres at 127.0.0.1:1, database orders, user amy: Connection refused";
        assert!(said.err.contains(cause) && said.err.contains("; check that"), "{args:?}: {}", said.err);
        assert!(!said.err.contains("hunter2"), "{}", said.err);
        assert_plain(&said.err);
    }
    let worker = Worker::spawn(url, &[]);
    let line = worker.wait_for_log("waiting for Postgres", PATIENCE).await;
    assert!(line.contains("at 127.0.0.1:1, database orders, user amy: Connection refused"), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
    assert_plain(&line);
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_said_in_words() {
    let scene = Scene::new().await;
    let url = scene.db.url().replace(scene.db.name(), "none");
    let said = run_as(&url, &["list"]);
    assert_eq!(said.code, Some(5));
    assert!(said.err.contains("database \"none\" does not exist; check that"), "{}", said.err);
    assert_plain(&said.err);
}

#[tokio::test]
async fn a_missing_right_names_the_role_and_the_grant_that_helps() {
    let scene = Scene::new().await;
    let (url, user) = stranger(&scene).await;
    for (args, role) in COMMANDS {
        let said = run_as(&url, args);
        assert_eq!(said.code, Some(5), "{args:?}: {}", said.err);
        let helps = format!("grant {role} to \"{user}\"");
        assert!(
            said.err.contains("permission denied") && said.err.contains(&helps),
            "{args:?}: {}",
            said.err
        );
        assert_plain(&said.err);
        scene.pool().execute(AssertSqlSafe(helps)).await.unwrap();
        let said = run_as(&url, args);
        assert_ne!(said.code, Some(5), "{args:?}: {}", said.err);
        scene.pool().execute(AssertSqlSafe(format!("revoke {role} from {user}"))).await.unwrap();
    }
    let mut worker = Worker::spawn(&url, &[]);
    assert_eq!(worker.wait_exit(PATIENCE).await.code(), Some(5), "{:#?}", worker.log());
    let log = worker.log().join("\n");
    assert!(log.contains(&format!("grant pgsaga_worker to \"{user}\"")), "{log}");
    assert_plain(&log);
    let said = run_as(&url, &["migrate", "--skip-roles"]);
    assert_eq!(said.code, Some(5), "{}", said.err);
    assert!(said.err.contains(&format!("grant pgsaga_owner to \"{user}\"")), "{}", said.err);
    assert_plain(&said.err);
}

#[tokio::test]
async fn the_log_of_a_worker_names_the_grant_and_no_line_of_a_library() {
    let mut scene = Scene::new().await;
    let (url, user) = stranger(&scene).await;
    scene.pool().execute(AssertSqlSafe(format!("grant pgsaga_worker to {user}"))).await.unwrap();
    scene.workers.push(Worker::spawn(&url, &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    scene.pool().execute(AssertSqlSafe(format!("revoke pgsaga_worker from {user}"))).await.unwrap();
    let line = scene.workers[0].wait_for_log("a right is missing", PATIENCE).await;
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["fields"]["helps"], format!("grant pgsaga_worker to \"{user}\""), "{line}");
    assert_plain(&scene.workers[0].log().join("\n"));
}

#[tokio::test]
async fn a_failed_check_of_doctor_has_no_line_of_a_library() {
    let scene = Scene::new().await;
    scene.pool().execute("drop table pgsaga.history cascade").await.unwrap();
    let said = run(&scene.db, &["doctor"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("the check could not run: relation \"pgsaga.history\" does not exist"),
        "{}",
        said.out
    );
    assert_plain(&said.out);
}

#[test]
fn a_missing_url_is_named_with_an_example() {
    for args in COMMANDS.map(|(args, _)| args).into_iter().chain([&["migrate"][..], &["work"], &["ui"]]) {
        for env in [None, Some("")] {
            let mut command = binary::command();
            command.args(args).env_remove("DATABASE_URL").envs(env.map(|url| ("DATABASE_URL", url)));
            let said = command.output().unwrap();
            let words = String::from_utf8_lossy(&said.stderr);
            assert_eq!(said.status.code(), Some(2), "{args:?} {env:?}: {words}");
            assert!(
                words.contains("DATABASE_URL") && words.contains("postgres://user"),
                "{args:?} {env:?}: {words}"
            );
        }
    }
}

#[test]
fn a_port_alone_is_no_address_and_the_example_has_that_port() {
    for args in [
        &["work", "--database-url", "postgres://u@h/d"][..],
        &["ui", "--database-url", "postgres://u@h/d"],
        &["health"],
        &["echo"],
    ] {
        for found in ["9470", "localhost:9470"] {
            let said = binary::command().args(args).args(["--listen", found]).output().unwrap();
            let words = String::from_utf8_lossy(&said.stderr);
            assert_eq!(said.status.code(), Some(2), "{args:?}: {words}");
            let says = format!(
                "invalid value '{found}' for '--listen <ADDRESS:PORT>': allowed: an IP address and a port, such as 127.0.0.1:9470"
            );
            assert!(words.contains(&says), "{args:?}: {words}");
        }
    }
}

#[tokio::test]
async fn an_abort_that_changes_nothing_says_so() {
    let scene = Scene::new().await;
    scene.saga("plain").step("a").insert().await;
    scene.saga("pivot").step("a").with("pivot", Value::Bool(true)).insert().await;
    let abort = |gid: &str| run(&scene.db, &["abort", gid, "--reason", "a test"]).fine();
    assert_eq!(abort("plain"), "plain: submitted → aborting\n");
    assert_eq!(abort("plain"), "plain: aborting, as before: nothing was changed\n");
    // The pivot's outcome decides: the status stays, and yet the first abort has changed something.
    assert_eq!(abort("pivot"), "pivot: submitted\n");
    assert_eq!(abort("pivot"), "pivot: submitted, as before: nothing was changed\n");
    let decisions: i64 = sqlx::query_scalar("select count(*) from pgsaga.history where kind = 'decision'")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert_eq!(decisions, 2);
}
