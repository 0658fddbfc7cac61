//! The whole programs that docs/handlers.md names.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgsaga_tests::binary::example;
use pgsaga_tests::scene::{PATIENCE, broken};
use pgsaga_tests::{Database, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running example.
struct Example {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    fn start(name: &str, db: &Database) -> Example {
        let mut child = Command::new(example(name))
            .env("DATABASE_URL", db.url())
            .env("LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Example { child, lines }
    }

    async fn line(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap().unwrap()
    }

    /// Ctrl-C drains it.
    async fn stop(mut self) {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }
}

async fn ended(db: &Database, gid: &str) -> (String, Option<String>) {
    eventually(PATIENCE, &format!("saga {gid} ends"), async || {
        sqlx::query_as("select status, reason from pgsaga.saga where gid = $1 and finished_at is not null")
            .bind(gid)
            .fetch_optional(db.pool())
            .await
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn the_background_job_runs_and_is_the_same_job_when_it_is_submitted_again() {
    let db = Database::new().await;
    let mut job = Example::start("background_job", &db);
    assert_eq!(job.line().await, "mail to ann@example.com, under the key welcome-ann/job/action");
    assert_eq!(ended(&db, "welcome-ann").await, ("succeeded".to_owned(), None));
    job.stop().await;
    let again = Example::start("background_job", &db);
    eventually(PATIENCE, "the second worker is registered", async || {
        let workers: i64 = sqlx::query_scalar("select count(*) from pgsaga.worker where not dead")
            .fetch_one(db.pool())
            .await
            .unwrap();
        (workers == 1).then_some(())
    })
    .await;
    again.stop().await;
    let sagas: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.saga").fetch_one(db.pool()).await.unwrap();
    assert_eq!(sagas, 1);
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_orders_are_charged_once_or_given_up() {
    let db = Database::new().await;
    let mut orders = Example::start("orders", &db);
    let mut lines = Vec::new();
    while let Some(line) = tokio::time::timeout(PATIENCE, orders.lines.next_line()).await.unwrap().unwrap() {
        lines.push(line);
    }
    let said = [
        "chair/reserve/action: reserve one chair",
        "chair/send/action: send the chair",
        "chair: succeeded ",
        "table/reserve/action: reserve one table",
        "table/reserve/compensate: release the table",
        "table: failed charge: the account has not so much",
    ];
    assert_eq!(lines, said);
    assert!(orders.child.wait().await.unwrap().success());
    let cents: i64 = sqlx::query_scalar("select cents from account").fetch_one(db.pool()).await.unwrap();
    assert_eq!(cents, 100);
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_web_application_runs_the_sagas_of_its_requests() {
    let db = Database::new().await;
    let mut app = Example::start("axum_app", &db);
    let url = format!("{}/orders", app.line().await);
    // Another test may have been faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (item, status, reason, state) in [
        ("chair", "succeeded", None, Some("confirmed")),
        ("moon", "failed", Some("reserve: nobody sells the moon"), None),
    ] {
        let request = client.post(&url).header("content-type", "application/json");
        let response = request.body(json!({"item": item}).to_string()).send().await.unwrap();
        let order = response.error_for_status().unwrap().text().await.unwrap();
        let order: Value = serde_json::from_str(&order).unwrap();
        let gid = format!("order-{}", order["id"]);
        assert_eq!(ended(&db, &gid).await, (status.to_owned(), reason.map(str::to_owned)));
        let found: Option<String> = sqlx::query_scalar("select state from orders where item = $1")
            .bind(item)
            .fetch_one(db.pool())
            .await
            .unwrap();
        assert_eq!(found.as_deref(), state, "{item}");
    }
    app.stop().await;
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
}
