//! A copy of a database: no worker calls the participants of the original.

use std::process::Output;

use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Behaviour, Gate, Worker, binary, eventually};
use sqlx::AssertSqlSafe;

/// What a migration says, with these flags.
fn migrate(scene: &Scene, flags: &[&str]) -> String {
    let output: Output =
        binary::command().arg("migrate").args(flags).env("DATABASE_URL", scene.db.url()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

async fn sql(scene: &Scene, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(scene.pool()).await.unwrap();
}

async fn not_ready(worker: &Worker, start: &str) -> String {
    eventually(PATIENCE, &format!("the worker is not ready: {start}"), async || {
        let (status, why) = worker.get("/readyz").await.ok()?;
        (status == 503 && why.starts_with(&format!("not ready: {start}"))).then_some(why)
    })
    .await
}

/// Waits until the database has no worker.
async fn nobody_is_registered(scene: &Scene) {
    eventually(PATIENCE, "no worker is registered", async || {
        let count: i64 =
            sqlx::query_scalar("select count(*) from pgsaga.worker").fetch_one(scene.pool()).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
}

/// A saga whose first call lasts until the gate opens.
async fn in_flight(scene: &Scene, gate: &Gate) {
    let saga = scene.saga("in-flight").column("request_timeout", "'10 minutes'");
    saga.step("a").action(Behaviour::Gate(gate.clone())).step("b").insert().await;
}

fn spawn(scene: &Scene, flags: &[&str]) -> Worker {
    Worker::spawn(scene.db.url(), &[flags, &["--lease-seconds", "2"]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_environment_claims_nothing_and_names_both_and_the_command() {
    let scene = Scene::new().await;
    let said = migrate(&scene, &["--environment", "production"]);
    assert!(said.contains("the database belongs to the environment \"production\"\n"), "{said}");
    scene.saga("due").step("a").insert().await;
    let staging = spawn(&scene, &["--environment", "staging"]);
    let unnamed = spawn(&scene, &[]);
    assert_eq!(
        not_ready(&staging, "the database belongs").await,
        "not ready: the database belongs to the environment \"production\", and this worker works for \"staging\". \
         Start workers with `--environment production`, or rename the database: `pgsaga migrate --environment staging`\n"
    );
    assert_eq!(
        not_ready(&unnamed, "the database belongs").await,
        "not ready: the database belongs to the environment \"production\", and this worker names no environment. \
         Start workers with `--environment production`, or rename the database: `pgsaga migrate --environment NAME`\n"
    );
    nobody_is_registered(&scene).await;
    // A worker of the environment works beside them, and all that one worker does for all is done.
    let production = spawn(&scene, &["--environment", "production"]);
    production.ready().await;
    scene.expect("due", "succeeded", None, &["a action"]).await;
    let said = staging.log().iter().filter(|line| line.contains("may not work in this database")).count();
    assert_eq!(said, 1, "it is said once");

    // The workers notice a new name, those that run and those that wait.
    let gate = Gate::new();
    in_flight(&scene, &gate).await;
    scene.participant.wait_for_calls(2, PATIENCE).await;
    migrate(&scene, &["--environment", "staging"]);
    not_ready(&production, "the database belongs to the environment \"staging\"").await;
    staging.ready().await;
    gate.open();
    scene.expect("in-flight", "succeeded", None, &["a action", "b action"]).await;
    assert_eq!(scene.history("in-flight").await, ["a action 1 success", "b action 1 success"]);
    eventually(PATIENCE, "the worker of another environment has left", async || {
        let pids: Vec<i32> =
            sqlx::query_scalar("select pid from pgsaga.worker").fetch_all(scene.pool()).await.unwrap();
        (pids == [staging.pid().cast_signed()]).then_some(())
    })
    .await;
    migrate(&scene, &["--environment", "production"]);
    not_ready(&staging, "the database belongs to the environment \"production\"").await;
    production.ready().await;
    scene.saga("after").step("a").insert().await;
    scene.expect("after", "succeeded", None, &["a action"]).await;
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_name_works_in_a_database_without_one_and_warns() {
    let mut scene = Scene::new().await;
    let worker = scene.start_worker(&["--environment", "staging"]).await;
    let warned = worker.wait_for_log("has no environment", PATIENCE).await;
    assert!(warned.contains("WARN") && warned.contains("`pgsaga migrate --environment staging`"), "{warned}");
    scene.saga("s").step("a").insert().await;
    scene.expect("s", "succeeded", None, &["a action"]).await;
    // A worker that nobody told an environment has nothing to warn of.
    let silent = scene.start_worker(&[]).await;
    assert!(!silent.log().iter().any(|line| line.contains("environment")), "{:#?}", silent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_cluster_waits_until_it_is_adopted() {
    let mut scene = Scene::with_worker().await;
    let running = scene.workers.pop().unwrap();
    let gate = Gate::new();
    in_flight(&scene, &gate).await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    // What a restored dump, and pg_upgrade, leave behind.
    sql(&scene, "update pgsaga.home set system_identifier = 7").await;
    let why =
        not_ready(&running, "the database was made in another cluster (system identifier 7; here ").await;
    assert!(why.ends_with("run `pgsaga migrate --adopt`\n"), "{why}");
    // What was begun is settled; what follows from it waits.
    gate.open();
    nobody_is_registered(&scene).await;
    let started = spawn(&scene, &[]);
    not_ready(&started, "the database was made in another cluster").await;
    assert_eq!(scene.history("in-flight").await, ["a action 1 success"]);
    assert_eq!(scene.participant.ops_for("in-flight"), ["a action"]);
    nobody_is_registered(&scene).await;

    let said = migrate(&scene, &[]);
    assert!(said.contains("workers wait") && said.contains("`pgsaga migrate --adopt`"), "{said}");
    not_ready(&started, "the database was made in another cluster").await;
    let said = migrate(&scene, &["--adopt"]);
    assert!(!said.contains("workers wait"), "{said}");
    running.ready().await;
    started.ready().await;
    scene.expect("in-flight", "succeeded", None, &["a action", "b action"]).await;
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

/// Some managed servers forbid `pg_control_system()`.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_does_not_reveal_its_identifier_the_name_alone_tells_a_copy() {
    let mut scene = Scene::new().await;
    sql(&scene, "revoke execute on function pg_control_system() from public").await;
    let waiting = spawn(&scene, &["--environment", "production"]);
    let why = not_ready(&waiting, "the database was made in another cluster").await;
    assert!(why.contains("here not revealed"), "{why}");
    let said = migrate(&scene, &["--adopt", "--environment", "production"]);
    assert!(
        said.contains("only the name of the environment tells a copy")
            && said.contains("grant execute on function pg_control_system() to pgsaga_owner"),
        "{said}"
    );
    waiting.ready().await;
    waiting.wait_for_log("only the name of the environment tells a copy", PATIENCE).await;
    let elsewhere = spawn(&scene, &["--environment", "staging"]);
    not_ready(&elsewhere, "the database belongs to the environment \"production\"").await;

    sql(&scene, "grant execute on function pg_control_system() to pgsaga_owner").await;
    not_ready(&waiting, "the database was made in another cluster (system identifier not known; here ").await;
    migrate(&scene, &["--adopt"]);
    scene.start_worker(&["--environment", "production"]).await;
}

#[tokio::test]
async fn names_of_environments_are_checked_by_the_flag_and_by_the_table_alike() {
    let scene = Scene::new().await;
    let long = "e".repeat(65);
    for (name, is_good) in [
        ("production", true),
        ("eu-1.test_2", true),
        ("0", true),
        (&long[1..], true),
        (&long, false),
        ("", false),
        ("Production", false),
        ("-x", false),
        ("a b", false),
        ("ä", false),
        ("a\n", false),
    ] {
        let accepted =
            sqlx::query("update pgsaga.home set environment = $1").bind(name).execute(scene.pool()).await;
        assert_eq!(accepted.is_ok(), is_good, "{name:?}");
        for command in ["migrate", "work"] {
            let flag = format!("--environment={name}");
            // Refused before anything else is looked at; a good one gets as far as the URL.
            let output =
                binary::command().args([command, &flag, "--database-url", "mysql://x"]).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                said.contains("1 to 64 of the characters a-z 0-9 . _ -"),
                !is_good,
                "{command} {name:?}: {said}"
            );
            assert_eq!(output.status.code(), Some(2), "{command} {name:?}: {said}");
        }
    }
}
