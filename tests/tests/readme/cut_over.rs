//! docs/cut-over.md: its statements move a database, and mend sequences that are behind.

use pgsaga_participant::Barrier;
use pgsaga_producer::{Error, Saga, Step, submit_many};
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Cluster, Worker, binary, eventually};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::task::block_in_place;

use crate::process::shell;
use crate::runs::query;
use crate::text::*;

const MEND: &str = "6. Move the sequences ahead";
const INSERT: &str =
    r#"insert into pgsaga.saga (gid, steps) values ('new', '[{"action": ""}]') on conflict (gid) do nothing"#;
/// The sequences, and the column that holds the most of each here.
const SEQUENCES: [(&str, &str, &str); 4] = [
    ("history_seq", "history", "seq"),
    ("lane_id_seq", "lane", "id"),
    ("saga_id_seq", "saga", "id"),
    ("task_id_seq", "task", "id"),
];

fn page(section: &str, language: &str) -> Vec<String> {
    let found: Vec<String> = blocks_in(CUT_OVER)
        .into_iter()
        .filter(|block| block.section == section && block.language == language)
        .map(|block| block.text)
        .collect();
    assert!(!found.is_empty(), "{CUT_OVER} has no {language} under {section:?}");
    found
}

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}

async fn number(pool: &PgPool, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

async fn highest(pool: &PgPool, table: &str, column: &str) -> i64 {
    number(pool, format!("select max({column})::bigint from pgsaga.{table}")).await
}

/// The SQLSTATE and the constraint that a statement ends with.
async fn refusal(pool: &PgPool, sql: &str) -> (String, String) {
    let error = pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_err();
    let error = error.as_database_error().unwrap();
    (error.code().unwrap().into_owned(), error.constraint().unwrap_or_default().to_owned())
}

/// Rows in every table that a sequence serves, and no worker.
async fn filled() -> Scene {
    let mut scene = Scene::with_worker().await;
    for gid in ["a", "b"] {
        scene.saga(gid).column("queue", "'first'").step("x").step("y").insert().await;
        assert_eq!(scene.ended(gid).await.0, "succeeded");
    }
    scene.workers[0].terminate();
    scene.workers[0].wait_exit(PATIENCE).await;
    scene.saga("waits").step("x").insert().await;
    scene.healthy().await;
    scene
}

#[tokio::test]
async fn doctor_names_each_sequence_that_is_behind_and_the_setval_that_mends_it() {
    let scene = filled().await;
    for (sequence, table, column) in SEQUENCES {
        let most = highest(scene.pool(), table, column).await;
        assert!(most > 1, "{sequence}");
        for (last, is_called, behind) in [
            (1, false, true),
            (most - 1, true, true),
            (most, false, true),
            (most, true, false),
            (most + 1, false, false),
        ] {
            run(scene.pool(), &format!("select setval('pgsaga.{sequence}', {last}, {is_called})")).await;
            let found = broken(scene.pool()).await;
            let next = last + i64::from(is_called);
            let mend = format!("select setval('pgsaga.{sequence}', {most})");
            let line = format!(
                "sequences_are_ahead: pgsaga.{sequence}: found {next} as its next value, and {most} in pgsaga.{table}.{column}; \
                 allowed: a next value above {most}. Stop producers and workers, then run: {mend}"
            );
            let expected = if behind { vec![line] } else { Vec::new() };
            assert_eq!(found, expected, "{sequence} at {last}, {is_called}");
            run(scene.pool(), &mend).await;
            scene.healthy().await;
        }
    }
    // The history of a saga that retention deleted counts too: a new saga must not inherit it.
    run(scene.pool(), "delete from pgsaga.saga where gid in ('a', 'b')").await;
    run(
        scene.pool(),
        "insert into pgsaga.history (saga_id, step, op, attempt, outcome) values (999, 1, 'action', 1, 'success')",
    )
    .await;
    let found = broken(scene.pool()).await;
    assert!(matches!(&found[..], [line] if line.contains("and 999 in pgsaga.history.saga_id;")), "{found:?}");
}

#[tokio::test]
async fn a_clash_of_ids_is_an_error_until_the_pages_statements_moved_the_sequences_ahead() {
    let scene = filled().await;
    let mend = page(MEND, "sql").concat();
    for (sequence, ..) in SEQUENCES {
        run(scene.pool(), &format!("select setval('pgsaga.{sequence}', 1, false)")).await;
    }
    let doctor = |flags: &[&str]| {
        let output =
            binary::command().arg("doctor").args(flags).env("DATABASE_URL", scene.db.url()).output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = doctor(&[]);
    let named: Vec<&str> =
        said.lines().map(|line| line.strip_prefix("sequences_are_ahead: pgsaga.").unwrap()).collect();
    assert_eq!((code, named.len()), (Some(1), 4), "{said}");
    for (sequence, ..) in SEQUENCES {
        assert!(
            named.iter().any(|line| line.starts_with(&format!("{sequence}: found 1 as its next"))),
            "{said}"
        );
    }
    let (_, said) = doctor(&["--json"]);
    let place: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&place["check"], &place["gid"]), (&"sequences_are_ahead".into(), &serde_json::Value::Null));

    // What the page warns of, then what it says to write.
    let untargeted = INSERT.replace(" (gid) do", " do");
    let skipped = scene.pool().execute(AssertSqlSafe(untargeted)).await.unwrap();
    assert_eq!(skipped.rows_affected(), 0, "the clash is swallowed");
    assert_eq!(scene.status("new").await, None, "and there is no saga");
    assert_eq!(refusal(scene.pool(), INSERT).await, ("23505".to_owned(), "saga_pkey".to_owned()));

    run(scene.pool(), &mend).await;
    scene.healthy().await;
    assert_eq!(doctor(&[]).0, Some(0));
    assert_eq!(scene.pool().execute(INSERT).await.unwrap().rows_affected(), 1);
    assert_eq!(scene.pool().execute(INSERT).await.unwrap().rows_affected(), 0, "submitting is idempotent");
    scene.healthy().await;

    // A sequence that is ahead stays where it is.
    run(scene.pool(), "select setval('pgsaga.saga_id_seq', 5000)").await;
    run(scene.pool(), &mend).await;
    assert_eq!(number(scene.pool(), "select last_value from pgsaga.saga_id_seq".to_owned()).await, 5000);
}

#[tokio::test]
async fn the_crate_tells_a_clash_of_ids_from_a_saga_that_was_submitted_before() {
    let scene = filled().await;
    let saga = |gid: &str| Saga::new().gid(gid).unwrap().queue("second").step(Step::new("x").action(""));
    for (sequence, table, column) in SEQUENCES.into_iter().skip(1) {
        let most = highest(scene.pool(), table, column).await;
        for many in [false, true] {
            run(scene.pool(), &format!("select setval('pgsaga.{sequence}', {most}, false)")).await;
            let error = if many {
                submit_many(scene.pool(), &[saga("one"), saga("two")]).await.unwrap_err()
            } else {
                saga("one").submit(scene.pool()).await.unwrap_err()
            };
            let Error::SequenceBehind { sequence: named, .. } = &error else {
                panic!("{sequence}: {error:?}")
            };
            assert_eq!(*named, sequence);
            let start =
                format!("pgsaga.{sequence}: found a next value that pgsaga.{table} holds already; allowed: ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
        run(scene.pool(), &format!("select setval('pgsaga.{sequence}', {most})")).await;
    }
    assert_eq!(scene.status("one").await, None);
    assert!(saga("one").submit(scene.pool()).await.unwrap().created);
    assert!(!saga("one").submit(scene.pool()).await.unwrap().created);
    scene.healthy().await;
}

#[tokio::test]
async fn the_barriers_sequence_is_moved_ahead_as_the_page_says() {
    let scene = Scene::new().await;
    Barrier::install(scene.pool()).await.unwrap();
    let enter = |gid: &str| format!("select dtm_barrier.enter('saga', '{gid}', '01', 'action')");
    run(scene.pool(), &enter("a")).await;
    run(scene.pool(), "select setval('dtm_barrier.barrier_seq', 1, false)").await;
    assert_eq!(refusal(scene.pool(), &enter("b")).await, ("23505".to_owned(), "barrier_pkey".to_owned()));
    run(scene.pool(), "select setval('dtm_barrier.barrier_seq', 1, false)").await;
    run(scene.pool(), &page("Participants with a barrier", "sql").concat()).await;
    let entered: bool = sqlx::query_scalar(AssertSqlSafe(enter("b"))).fetch_one(scene.pool()).await.unwrap();
    assert!(entered);
}

/// Asks until the answer is true.
async fn answers_true(url: &str, sql: &str) {
    eventually(PATIENCE, sql, async || {
        block_in_place(|| query(url, sql)).lines().any(|line| line.trim() == "t").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn a_database_moves_to_another_cluster_as_the_page_says() {
    let (old, new) = (Cluster::own(false, false).await, Cluster::own(false, false).await);
    let mut admin = PgConnection::connect(&old.server().url("postgres")).await.unwrap();
    admin.execute("alter system set wal_level = 'logical'").await.unwrap();
    admin.close().await.unwrap();
    block_in_place(|| old.server().stop().and_then(|()| old.server().start_again())).unwrap();
    let mut admin = PgConnection::connect(&new.server().url("postgres")).await.unwrap();
    admin.execute("create database moved").await.unwrap();
    admin.execute("create database restored").await.unwrap();
    let [moved_url, restored_url] = ["moved", "restored"].map(|name| new.server().url(name));
    let [moved, restored] = [&moved_url, &restored_url].map(|url| PgPool::connect_lazy(url).unwrap());

    let mut scene = Scene::on(&old).await;
    scene.start_worker(&[]).await;
    scene.saga("before").column("queue", "'first'").step("x").step("y").insert().await;
    assert_eq!(scene.ended("before").await.0, "succeeded");
    // A session that a fence must stop though it is open, and its statement is prepared.
    let mut producer = PgConnection::connect(scene.db.url()).await.unwrap();
    producer.execute("set role pgsaga_producer").await.unwrap();
    let submit = r#"insert into pgsaga.saga (gid, steps) values ($1, '[{"action": ""}]') on conflict (gid) do nothing"#;
    sqlx::query(submit).bind("early").execute(&mut producer).await.unwrap();

    let named = |target: &str| format!("export OLD='{}' NEW='{target}'\n", scene.db.url());
    let steps = blocks_in(CUT_OVER)
        .into_iter()
        .filter(|block| block.section.starts_with(|c: char| c.is_ascii_digit()));
    let mut sections: Vec<String> = Vec::new();
    for block in steps {
        let begins = sections.last() != Some(&block.section);
        match block.section.as_str() {
            "4. Stop and fence" => {
                // What happened since the first copy arrives by the stream.
                scene.saga("during").column("queue", "'second'").step("x").step("y").insert().await;
                assert_eq!(scene.ended("during").await.0, "succeeded");
                scene.workers[0].terminate();
                scene.workers[0].wait_exit(PATIENCE).await;
                scene.saga("waits").step("x").insert().await;
            }
            MEND => {
                let found = broken(&moved).await;
                for (sequence, ..) in SEQUENCES {
                    assert!(
                        found.iter().any(|line| line.contains(&format!(": pgsaga.{sequence}: found 1 "))),
                        "{found:#?}"
                    );
                }
                assert_eq!(found.len(), 4, "{found:#?}");
                assert_eq!(refusal(&moved, INSERT).await, ("23505".to_owned(), "saga_pkey".to_owned()));
            }
            _ => {}
        }
        if begins {
            sections.push(block.section.clone());
        }
        let sql = block.text.replace("host=old.example dbname=app user=replicator", scene.db.url());
        let url = if sql.starts_with("-- on the old cluster") { scene.db.url() } else { &moved_url };
        match block.language.as_str() {
            "sh" => {
                let output = block_in_place(|| shell(&(named(&moved_url) + &block.text), ""));
                assert!(output.status.success(), "{}\n{}", block.text, text(&output.stderr));
            }
            "sql" if sql.contains("until it answers true") => answers_true(url, &sql).await,
            "sql" => drop(block_in_place(|| query(url, &sql))),
            language => panic!("a block of {language}:\n{}", block.text),
        }
        if block.section == "4. Stop and fence" {
            let error = sqlx::query(submit).bind("late").execute(&mut producer).await.unwrap_err();
            assert_eq!(
                error.as_database_error().and_then(|error| error.code()).as_deref(),
                Some("42501"),
                "{error}"
            );
        }
    }
    assert_eq!(sections.len(), 8, "{sections:?}");

    let count = "select count(*) from pgsaga.saga".to_owned();
    assert_eq!(number(&moved, count.clone()).await, 4);
    let history = "select count(*) from pgsaga.history".to_owned();
    assert_eq!(number(&moved, history.clone()).await, number(scene.pool(), history.clone()).await);
    assert_eq!(moved.execute(INSERT).await.unwrap().rows_affected(), 1);
    let worker = Worker::spawn(&moved_url, &["--lease-seconds", "2"]);
    worker.ready().await;
    eventually(PATIENCE, "all succeed on the new cluster", async || {
        let open = "select count(*) from pgsaga.saga where status <> 'succeeded'".to_owned();
        (number(&moved, open).await == 0).then_some(())
    })
    .await;
    assert_eq!(broken(&moved).await, Vec::<String>::new());

    // The old database again, by the other way.
    let dump = named(&restored_url) + &page("Dump and restore", "sh").concat();
    let output = block_in_place(|| shell(&dump, ""));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(number(&restored, count).await, 4);
    assert_eq!(number(&restored, history.clone()).await, number(scene.pool(), history).await);
    assert_eq!(broken(&restored).await, Vec::<String>::new());
    assert_eq!(restored.execute(INSERT).await.unwrap().rows_affected(), 1);
}
