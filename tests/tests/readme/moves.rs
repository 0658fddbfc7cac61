//! docs/runbooks/restore.md and staging-copy.md, from their first line to their last: real dumps
//! into a second cluster, whose workers call no participant before they may.

use std::fs;

use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Behaviour, Cluster, Gate, Participant, Worker, binary, eventually};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::process::{Process, shell};
use crate::runs::query;
use crate::text::*;

const RESTORE: &str = "docs/runbooks/restore.md";
const STAGING: &str = "docs/runbooks/staging-copy.md";
/// A saga that is open, with a call in flight, and one that waits.
const OPEN: [&str; 2] = ["in-flight", "waits"];

/// An original with sagas, a worker and a call in flight, and an empty database in another cluster.
struct Moved {
    _clusters: (Cluster, Cluster),
    scene: Scene,
    gate: Gate,
    copy_url: String,
    copy: PgPool,
    folder: TempDir,
}

impl Moved {
    async fn new(flags: &[&str]) -> Moved {
        let clusters = (Cluster::own(false, false).await, Cluster::own(false, false).await);
        let mut admin = PgConnection::connect(&clusters.1.server().url("postgres")).await.unwrap();
        sqlx::raw_sql("create database copy").execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        let copy_url = clusters.1.server().url("copy");
        let copy = PgPool::connect_lazy(&copy_url).unwrap();
        let mut scene = Scene::on(&clusters.0).await;
        scene.start_worker(flags).await;
        scene.saga("done").step("x").insert().await;
        assert_eq!(scene.ended("done").await.0, "succeeded");
        let gate = Gate::new();
        scene
            .saga("in-flight")
            .column("request_timeout", "'10 minutes'")
            .step("x")
            .action(Behaviour::Gate(gate.clone()))
            .step("y")
            .insert()
            .await;
        scene.saga("waits").column("run_at", "now() + interval '1 hour'").step("x").insert().await;
        scene.participant.wait_for_calls(2, PATIENCE).await;
        let folder = tempfile::tempdir().unwrap();
        Moved { _clusters: clusters, scene, gate, copy_url, copy, folder }
    }

    /// Runs the blocks of a section.
    fn run(&self, page: &str, section: &str) {
        let named = format!(
            "export OLD='{0}' NEW='{1}' PRODUCTION='{0}' STAGING='{1}'\ncd '{2}'\n",
            self.scene.db.url(),
            self.copy_url,
            self.folder.path().display()
        );
        let blocks: Vec<Block> =
            blocks_in(page).into_iter().filter(|block| block.section == section).collect();
        assert!(!blocks.is_empty(), "{page} has no block under {section:?}");
        for block in blocks {
            match block.language.as_str() {
                "sh" => {
                    let output = block_in_place(|| shell(&(named.clone() + &block.text), ""));
                    assert!(output.status.success(), "{}\n{}", block.text, text(&output.stderr));
                }
                "sql" => {
                    let on_copy = block.text.starts_with("-- on the copy\n");
                    let url = if on_copy { &self.copy_url } else { self.scene.db.url() };
                    drop(block_in_place(|| query(url, &block.text)));
                }
                language => panic!("{page}: a block of {language}:\n{}", block.text),
            }
        }
    }

    /// Stops the original's worker in the middle of its call, so that a task is still held.
    fn stop_the_original(&mut self) {
        self.scene.workers[0].kill9();
        self.gate.open();
    }

    /// Keeps a worker waiting in the copy until it has asked a few times.
    async fn waits(&self, worker: &Worker, why: &str) {
        eventually(PATIENCE, "the worker of the copy says why it waits", async || {
            let (status, said) = worker.get("/readyz").await.ok()?;
            (status == 503 && said.contains(why)).then_some(())
        })
        .await;
        let registered: i64 =
            sqlx::query_scalar("select count(*) from pgsaga.worker where host <> '' and pid = $1")
                .bind(worker.pid().cast_signed())
                .fetch_one(&self.copy)
                .await
                .unwrap();
        assert_eq!(registered, 0);
    }

    async fn status(&self, gid: &str) -> String {
        sqlx::query_scalar("select status from pgsaga.saga where gid = $1")
            .bind(gid)
            .fetch_one(&self.copy)
            .await
            .unwrap()
    }

    async fn becomes(&self, gid: &str, status: &str) {
        eventually(PATIENCE, &format!("{gid} is {status}"), async || {
            (self.status(gid).await == status).then_some(())
        })
        .await;
    }
}

fn sections(page: &str) -> Vec<String> {
    let mut sections: Vec<String> = blocks_in(page).into_iter().map(|block| block.section).collect();
    sections.dedup();
    sections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn a_backup_is_restored_as_the_runbook_says_and_calls_nobody_before_it_is_adopted() {
    let mut moved = Moved::new(&[]).await;
    let mut waiting = None;
    for section in sections(RESTORE) {
        if section == "2. Stop and fence the original" {
            moved.stop_the_original();
        }
        let calls = moved.scene.participant.calls().len();
        moved.run(RESTORE, &section);
        if section == "3. Restore" {
            waiting = Some(Worker::spawn(&moved.copy_url, &["--lease-seconds", "2"]));
        }
        let Some(worker) = &waiting else { continue };
        match section.as_str() {
            "3. Restore" | "4. Look" => {
                moved.waits(worker, "the database was made in another cluster (system identifier ").await;
                assert_eq!(moved.scene.participant.calls().len(), calls, "{section}");
            }
            _ => {
                worker.ready().await;
            }
        }
    }
    assert_eq!(sections(RESTORE).len(), 6);
    moved.becomes("in-flight", "succeeded").await;
    assert_eq!(moved.scene.participant.ops_for("in-flight"), ["x action", "x action", "y action"]);
    assert_eq!((&*moved.status("done").await, &*moved.status("waits").await), ("succeeded", "submitted"));
    assert_eq!(broken(&moved.copy).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn a_staging_copy_is_made_as_the_runbook_says_and_never_calls_productions_participants() {
    let moved = Moved::new(&["--environment", "production"]).await;
    let staging = Participant::start().await;
    let file = format!("[participant.stock]\nurl = \"http://{}\"\n", staging.address());
    fs::write(moved.folder.path().join("staging.toml"), file).unwrap();
    let calls = moved.scene.participant.calls().len();
    let mut waiting: Vec<Worker> = Vec::new();
    for section in sections(STAGING) {
        if section == "5. Start" {
            break;
        }
        moved.run(STAGING, &section);
        if section == "2. Copy" {
            // Whatever worker somebody points at the copy too early.
            for flags in [&["--environment", "staging"][..], &["--environment", "production"], &[]] {
                let worker = Worker::spawn(&moved.copy_url, flags);
                moved.waits(&worker, "the database was made in another cluster").await;
                waiting.push(worker);
            }
        }
    }
    // The worker that waited too early is one of staging's. Those of production still wait.
    waiting[0].ready().await;
    moved.waits(&waiting[1], "belongs to the environment \"staging\"").await;
    moved.waits(&waiting[2], "belongs to the environment \"staging\"").await;
    let command = blocks_in(STAGING).pop().unwrap();
    assert_eq!(command.section, "5. Start");
    let line = command.text.trim_end().replace("\"$STAGING\"", &format!("'{}'", moved.copy_url));
    let line = line.replace("staging.toml", &moved.folder.path().join("staging.toml").display().to_string());
    let _work = Process::start(&line, "");
    for gid in OPEN {
        moved.becomes(gid, "failed").await;
    }
    drop(waiting);
    let insert = r#"insert into pgsaga.saga (gid, steps) values ('new', '[{"action": "participant:stock/reserve"}]')
        on conflict (gid) do nothing"#;
    sqlx::query(insert).execute(&moved.copy).await.unwrap();
    moved.becomes("new", "succeeded").await;
    assert_eq!(staging.calls().len(), 1);
    assert_eq!(broken(&moved.copy).await, Vec::<String>::new());

    // Production has not noticed.
    assert_eq!(moved.scene.participant.calls().len(), calls, "no worker of the copy called production");
    moved.gate.open();
    moved.scene.expect("in-flight", "succeeded", None, &["x action", "y action"]).await;
    assert_eq!(broken(moved.scene.pool()).await, Vec::<String>::new());
}

/// A runbook says what a snapshot is told by.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_within_the_cluster_is_told_by_the_name_of_its_environment() {
    let cluster = Cluster::own(false, false).await;
    let scene = Scene::on(&cluster).await;
    let named = binary::command()
        .args(["migrate", "--environment", "production", "--database-url", scene.db.url()])
        .output()
        .unwrap();
    assert!(named.status.success(), "{}", text(&named.stderr));
    scene.saga("s").step("a").insert().await;
    scene.pool().close().await;
    let mut admin = PgConnection::connect(&cluster.server().url("postgres")).await.unwrap();
    let copy = format!("create database copy template {}", scene.db.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(copy)).execute(&mut admin).await.unwrap();
    let worker = Worker::spawn(&cluster.server().url("copy"), &["--environment", "staging"]);
    eventually(PATIENCE, "the worker waits", async || {
        let (status, said) = worker.get("/readyz").await.ok()?;
        (status == 503 && said.contains("\"production\"") && said.contains("\"staging\"")).then_some(())
    })
    .await;
    assert_eq!(scene.participant.calls().len(), 0);
}
