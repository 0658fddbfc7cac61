//! What can be run is run as it stands: the tour, every SQL block.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Behaviour, Database, binary, eventually, tool};

use crate::process::{Process, shell};
use crate::text::*;

/// Runs each line of the tour's second shell block: the last two stay.
pub(crate) async fn start_tour(db: &Database) -> (Process, Process) {
    let commands = blocks_of(TOUR, "sh").swap_remove(1).text;
    let [migrate, echo, work] = commands.lines().collect::<Vec<_>>()[..] else { panic!("{commands}") };
    let mut migrate = Process::start(migrate, db.url());
    assert!(migrate.child.wait().unwrap().success());
    let echo = Process::start(echo, db.url());
    let work = Process::start(work, db.url());
    echo.address().await;
    (echo, work)
}

pub(crate) fn psql(url: &str, sql: &str) -> Child {
    let mut psql = Command::new(tool("psql"))
        .args([url, "--no-psqlrc", "-v", "ON_ERROR_STOP=1"])
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    psql
}

/// Runs SQL that is to work.
pub(crate) fn query(url: &str, sql: &str) -> String {
    let output = psql(url, sql).wait_with_output().unwrap();
    assert!(output.status.success(), "{sql}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Watches, as a person does, until the saga is over.
fn watch(url: &str, sql: &str) -> String {
    let mut psql = psql(url, sql);
    let lines = BufReader::new(psql.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ended = |line: &String| line.contains("| succeeded") || line.contains("| failed");
    let last = lines.take(1000).find(ended).unwrap_or_else(|| panic!("not over: {sql}"));
    psql.kill().unwrap();
    psql.wait().unwrap();
    last
}

#[tokio::test]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn the_tour_runs_as_it_stands() {
    let db = Database::new().await;
    let (echo, _work) = start_tour(&db).await;
    let address = echo.address().await;
    let mut watched = Vec::new();
    for block in blocks_of(TOUR, "sql") {
        let sql = block.text.replace(ECHO, &address);
        if sql.contains("\\watch") {
            watched.push(watch(db.url(), &sql));
            continue;
        }
        let printed = query(db.url(), &sql);
        if let Some(prints) = block.prints {
            assert_eq!(trimmed(&printed), trimmed(&prints), "{sql}");
        }
    }
    let words: Vec<Vec<&str>> = watched.iter().map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(
        words,
        [["tour-1", "succeeded", ""], ["tour-2", "failed", "payment: echo was told to refuse"]]
    );
    assert_eq!(
        echo.calls("tour-1"),
        ["POST /stock/reserve key=tour-1/stock/action", "POST /payment/charge key=tour-1/payment/action"]
    );
    assert_eq!(
        echo.calls("tour-2"),
        [
            "POST /stock/reserve key=tour-2/stock/action",
            "POST /payment/refuse key=tour-2/payment/action",
            "POST /stock/release key=tour-2/stock/compensate"
        ]
    );
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
}

#[tokio::test]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn every_sql_block_runs_and_the_roles_suffice() {
    let db = Database::new().await;
    for block in blocks() {
        if block.language == "sh" && block.text.starts_with("psql ") {
            let mut process = Process::start(&block.text, db.url());
            assert!(process.child.wait().unwrap().success(), "{}", block.text);
        }
        if block.language != "sql" || block.text.contains("\\watch") {
            continue;
        }
        match block.prints.filter(|prints| prints.starts_with("ERROR")) {
            None => drop(query(db.url(), &block.text)),
            Some(error) => {
                let output = psql(db.url(), &block.text).wait_with_output().unwrap();
                let said = text(&output.stderr);
                assert!(!output.status.success() && said.starts_with(error.trim_end()), "{said}");
            }
        }
    }
    for (user, command) in [
        ("alice", &["list", "--open"][..]),
        ("alice", &["show", "tour-1"]),
        ("alice", &["queues"]),
        ("alice", &["doctor"]),
        ("shop", &["abort", "tour-1", "--reason", "an application may"]),
        ("alice", &["pause", "default"]),
        ("alice", &["resume", "default"]),
        ("alice", &["force", "tour-1", "--comment", "an operator may"]),
    ] {
        let output = binary::command()
            .args(command)
            .env("DATABASE_URL", db.url().replace("postgres://postgres@", &format!("postgres://{user}@")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{user} {command:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn a_stuck_saga_is_tried_again_and_finished_ones_are_deleted_as_the_readme_says() {
    let scene = Scene::with_worker().await;
    let repair = blocks_of("A stuck saga", "sh").swap_remove(0).text;
    let retain = blocks_of("Deleting finished sagas", "sql").swap_remove(0).text;
    scene
        .saga("order-42")
        .step("stock")
        .step("pay")
        .compensate(Behaviour::Sequence(vec![Behaviour::Refuse("closed".into())]))
        .step("ship")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    let mut calls = vec!["stock action", "pay action", "ship action", "pay compensate"];
    scene.expect("order-42", "stuck", Some("pay: closed"), &calls).await;

    let output = shell(&repair, scene.db.url());
    assert_eq!(text(&output.stdout), "order-42: stuck → aborting\n", "{}", text(&output.stderr));
    eventually(PATIENCE, "order-42 goes on", async || {
        scene.status("order-42").await.filter(|(status, _)| status == "failed")
    })
    .await;
    calls.extend(["pay compensate", "stock compensate"]);
    scene.expect("order-42", "failed", Some("ship: no"), &calls).await;
    let decisions: Vec<(String, String, String)> = sqlx::query_as(
        "select decision, decided_by, message from pgsaga.saga_timeline where gid = 'order-42' and kind = 'decision'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    let decision =
        ["retry", "postgres", "the refund account was closed, and is open again"].map(str::to_owned);
    assert_eq!(decisions, [decision.into()]);
    // Nothing is stuck any more: the same command is refused.
    let output = shell(&repair, scene.db.url());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    scene.expect("order-42", "failed", Some("ship: no"), &calls).await;
    let shown =
        binary::command().args(["show", "order-42", "--database-url", scene.db.url()]).output().unwrap();
    assert!(text(&shown.stdout).contains("is open again"), "{}", text(&shown.stderr));

    let left = async || -> (i64, i64) {
        sqlx::query_as("select (select count(*) from pgsaga.saga), (select count(*) from pgsaga.history)")
            .fetch_one(scene.pool())
            .await
            .unwrap()
    };
    assert_eq!(query(scene.db.url(), &retain), "DELETE 0\n");
    assert_eq!(left().await, (1, 7));
    sqlx::query("update pgsaga.saga set finished_at = finished_at - interval '91 days'")
        .execute(scene.pool())
        .await
        .unwrap();
    assert_eq!(query(scene.db.url(), &retain), "DELETE 7\n");
    assert_eq!(left().await, (0, 0));
    scene.healthy().await;
}
