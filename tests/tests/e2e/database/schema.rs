//! The schema: every statement fits it, every check can fail, versions that do not fit are refused.

use std::path::PathBuf;
use std::process::Command;

use pgsaga_plan::{Facts, Outcome};
use pgsaga_sql::RELEASE;
use pgsaga_sql::query::Statement;
use pgsaga_tests::dump::dump;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Cluster, Worker, binary};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

#[tokio::test]
async fn every_statement_file_can_be_prepared() {
    let scene = Scene::new().await;
    let mut connection = PgConnection::connect(scene.db.url()).await.unwrap();
    for Statement { name, sql, .. } in pgsaga_sql::query::all() {
        if let Err(error) = connection.execute(AssertSqlSafe(format!("prepare p as {sql}"))).await {
            panic!("{name}: {error}");
        }
        connection.execute("deallocate p").await.unwrap();
    }
    let versions = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/schema")).unwrap();
    assert_eq!(versions.count(), RELEASE.versions.len(), "sql/src/schema.rs lists every file of sql/schema");
}

#[tokio::test]
async fn sql_and_the_planner_say_the_same_of_each_outcome() {
    let scene = Scene::new().await;
    let sql: Vec<(String, bool, bool, String)> =
        sqlx::query_as("select outcome, overrides, counted, effect from pgsaga.outcome")
            .fetch_all(scene.pool())
            .await
            .unwrap();
    let planner = Outcome::ALL.map(|outcome| {
        let Facts { word, overrides, is_counted, effect } = outcome.facts();
        (word.to_owned(), overrides, is_counted, format!("{effect:?}").to_lowercase())
    });
    assert_eq!(sql, planner);
    let check = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'attempt_outcome_check'";
    let check: String = sqlx::query_scalar(check).fetch_one(scene.pool()).await.unwrap();
    let words: Vec<&str> = check.split('\'').skip(1).step_by(2).collect();
    assert_eq!(words, Outcome::ALL.map(Outcome::as_str), "{check}");
}

/// A participant links no pgsaga-sql: its barrier is a struct that binds its own five values.
const BINDS_ITSELF: &str = "barrier.rs";

#[test]
fn statements_of_more_than_three_values_are_bound_by_their_structs_only() {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))];
    let (mut read, mut longest) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["target", "sql"].contains(&name) && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && name != BINDS_ITSELF {
                read += 1;
                let binds = longest_chain_of_binds(&std::fs::read_to_string(&path).unwrap());
                longest.extend((binds > 3).then(|| format!("{}: {binds} binds", path.display())));
            }
        }
    }
    assert!(read > 200, "only {read} files were read");
    assert_eq!(longest, Vec::<String>::new(), "allowed: at most 3 binds, or a struct of pgsaga_sql::query");
}

/// The most calls of `bind` in one chain of methods.
fn longest_chain_of_binds(source: &str) -> usize {
    let chains = source.match_indices(".bind(").map(|(start, _)| {
        let (mut rest, mut binds) = (&source[start..], 0);
        while let Some((method, after)) = rest.strip_prefix('.').and_then(|rest| rest.split_once('(')) {
            if !method.chars().all(|c| c.is_alphanumeric() || "_:<>, ".contains(c)) {
                break;
            }
            binds += usize::from(method == "bind");
            rest = after_arguments(after).trim_start();
            while let Some(comment) = rest.strip_prefix("//") {
                rest = comment.split_once('\n').map_or("", |(_, rest)| rest.trim_start());
            }
        }
        binds
    });
    chains.max().unwrap_or(0)
}

/// What follows the closing parenthesis of a call.
fn after_arguments(arguments: &str) -> &str {
    let (mut open, mut in_text, mut escaped) = (1, false, false);
    for (at, c) in arguments.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' if !in_text => open += 1,
            ')' if !in_text => open -= 1,
            _ => {}
        }
        if open == 0 {
            return &arguments[at + 1..];
        }
    }
    ""
}

#[test]
fn chains_of_binds_are_counted() {
    for (source, binds) in [
        ("query(sql).fetch_one(pool)", 0),
        ("query(sql).bind(1).bind(f(2)).persistent(false)\n // why\n .bind(\")\").bind(4).execute()", 4),
        ("match d { A => s.bind(1).bind(2), B => s.bind(1) }; TcpListener::bind(0)", 2),
    ] {
        assert_eq!(longest_chain_of_binds(source), binds, "{source}");
    }
}

/// Each line breaks one invariant in a database with one succeeded, one failed and one open saga.
#[tokio::test]
async fn every_check_can_fail() {
    let mut breaks = [
        (
            "aborted_sagas_do_not_succeed",
            "insert into pgsaga.history (saga_id, kind, decision) select id, 'decision', 'abort' from pgsaga.saga where gid = 'succeeded'",
        ),
        (
            "attempts_are_numbered_without_gap",
            "update pgsaga.history set attempt = 3 where outcome = 'failure'",
        ),
        ("completions_count", "update pgsaga.task set completion = 'success'"),
        (
            "compensations_follow_the_reverse_order",
            "update pgsaga.history set seq = seq - 100000 where op = 'compensate' and step = 1",
        ),
        ("failed_sagas_are_undone", "delete from pgsaga.history where op = 'compensate' and step = 1"),
        ("history_folds_into_the_present", "update pgsaga.task set attempt = 7"),
        (
            "no_task_of_a_finished_saga",
            "update pgsaga.task set saga_id = (select id from pgsaga.saga where gid = 'succeeded')",
        ),
        (
            "nothing_is_undone_after_the_pivot",
            "update pgsaga.saga set steps = jsonb_set(steps, '{1,pivot}', 'true') where gid = 'failed'",
        ),
        (
            "nothing_runs_again_after_success",
            "insert into pgsaga.history (saga_id, step, op, attempt, outcome) select id, 1, 'action', 2, 'success' from pgsaga.saga where gid = 'succeeded'",
        ),
        ("open_sagas_can_go_on", "delete from pgsaga.task"),
        (
            "one_unwind",
            "insert into pgsaga.history (saga_id, step, op, attempt, outcome) select id, 3, 'action', 2, 'unknown' from pgsaga.saga where gid = 'failed'",
        ),
        (
            "only_answers_override",
            "with accepted as (
               insert into pgsaga.history (saga_id, seq, step, op, attempt, outcome)
               select saga_id, -1, step, op, 1, 'ongoing' from pgsaga.history where outcome = 'failure'
             )
             update pgsaga.history set status_code = null where outcome = 'failure'",
        ),
        (
            "progress_is_what_the_history_says",
            "update pgsaga.saga set progress = 'dm' where gid = 'parallel'",
        ),
        (
            "queues_are_served",
            "with worker as (insert into pgsaga.worker (lease_ms, host, pid, version, queues) values (60000, 'h', 1, 'v', '{other}'))
             update pgsaga.task set run_at = now() - interval '2 minutes'",
        ),
        ("rows_can_be_read", "update pgsaga.task set run_at = 'infinity'"),
        // setval() would outlive the rollback.
        ("sequences_are_ahead", "alter sequence pgsaga.saga_id_seq restart with 1"),
        (
            "steps_run_in_order",
            "delete from pgsaga.history where op = 'action' and step = 1 and saga_id = (select id from pgsaga.saga where gid = 'succeeded')",
        ),
        (
            "stuck_sagas_have_a_reason",
            "insert into pgsaga.stuck (saga_id, step, reason) select id, 'x', 'x' from pgsaga.saga where gid = 'succeeded'",
        ),
        (
            "succeeded_sagas_are_done",
            "delete from pgsaga.history where step = 3 and saga_id = (select id from pgsaga.saga where gid = 'succeeded')",
        ),
        (
            "tasks_do_not_multiply",
            "insert into pgsaga.task (saga_id, step, run_at) select saga_id, step, run_at from pgsaga.task",
        ),
    ];
    let scene = Scene::with_worker().await;
    scene.saga("succeeded").step("a").step("b").step("c").insert().await;
    scene
        .saga("failed")
        .step("a")
        .step("b")
        .step("c")
        .action(pgsaga_tests::Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.ended("succeeded").await;
    scene.ended("failed").await;
    let mut scene = scene;
    for worker in &mut scene.workers {
        worker.terminate();
        worker.wait_exit(PATIENCE).await;
    }
    scene.saga("open").step("a").insert().await;
    scene.saga("parallel").step("a").step("b").with("after", serde_json::json!([])).insert().await;
    scene.healthy().await;
    breaks.sort_unstable();
    assert_eq!(
        breaks.map(|(name, _)| name).to_vec(),
        pgsaga_sql::CHECKS.iter().map(|check| check.name).collect::<Vec<_>>()
    );
    for (name, break_it) in breaks {
        let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
        let mut broken_state = session.begin().await.unwrap();
        broken_state.execute(AssertSqlSafe(break_it.to_owned())).await.unwrap();
        let check = pgsaga_sql::CHECKS.iter().find(|check| check.name == name).unwrap();
        let found = sqlx::query(check.sql).fetch_all(&mut *broken_state).await.unwrap();
        assert!(!found.is_empty(), "{name} does not see: {break_it}");
        broken_state.rollback().await.unwrap();
    }
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

async fn refused_to_start(scene: &Scene) -> (Option<i32>, String) {
    let mut worker = Worker::spawn(scene.db.url(), &[]);
    let exit = worker.wait_exit(PATIENCE).await;
    (exit.code(), worker.log().join("\n"))
}

#[tokio::test]
async fn a_worker_refuses_a_schema_that_does_not_fit_and_names_the_command_that_helps() {
    let scene = Scene::new().await;
    let version = pgsaga_sql::SCHEMA_VERSION;
    let newer = format!("insert into pgsaga.migration (version, name) values ({}, 'later')", version + 1);
    sqlx::raw_sql(AssertSqlSafe(newer)).execute(scene.pool()).await.unwrap();
    let (code, log) = refused_to_start(&scene).await;
    assert_eq!(code, Some(3), "{log}");
    assert!(
        log.contains(&format!("at version {}", version + 1)) && log.contains("upgrade this worker"),
        "{log}"
    );

    // An older one than there has been.
    sqlx::raw_sql("delete from pgsaga.migration where version > 1; update pgsaga.migration set version = 0")
        .execute(scene.pool())
        .await
        .unwrap();
    let (code, log) = refused_to_start(&scene).await;
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("at version 0") && log.contains("run `pgsaga migrate`"), "{log}");

    sqlx::raw_sql("drop schema pgsaga cascade").execute(scene.pool()).await.unwrap();
    let (code, log) = refused_to_start(&scene).await;
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("absent") && log.contains("run `pgsaga migrate`"), "{log}");
}

/// JSON and the texts of participants are Unicode. SQL_ASCII holds bytes that are no text, others
/// cannot hold every text: no pgsaga works there, and nothing is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused_by_every_command() {
    let cluster = Cluster::shared().await;
    let run = |args: &[&str], url: &str| {
        let ran = binary::command().args(args).env("DATABASE_URL", url).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    for (encoding, number) in [("SQL_ASCII", 0), ("EUC_JP", 1), ("LATIN1", 8), ("WIN1252", 24)] {
        let said = format!("server_encoding of this database: found {encoding}; allowed: UTF8");
        let db = cluster.empty_database(&format!("encoding '{encoding}' locale 'C'")).await;
        let (code, words) = run(&["migrate"], db.url());
        assert!(code == Some(3) && words.contains(&said), "{code:?} {words}");
        let printed = binary::command().args(["migrate", "--print"]).output().unwrap().stdout;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, printed).unwrap();
        let psql = Command::new("psql")
            .args([db.url(), "-v", "ON_ERROR_STOP=1", "--single-transaction", "-q", "-f"])
            .arg(file.path())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&psql.stderr);
        assert!(!psql.status.success() && words.contains(&said), "{words}");
        let schemas: i64 = sqlx::query_scalar("select count(*) from pg_namespace where nspname = 'pgsaga'")
            .fetch_one(db.pool())
            .await
            .unwrap();
        assert_eq!(schemas, 0, "{encoding}");

        // As if an earlier release had migrated it.
        let db = cluster.database().await;
        sqlx::raw_sql(AssertSqlSafe(format!(
            "update pg_database set encoding = {number} where datname = current_database()"
        )))
        .execute(db.pool())
        .await
        .unwrap();
        for args in [&["work"][..], &["doctor"], &["list"], &["migrate"]] {
            let (code, words) = run(args, db.url());
            assert!(code == Some(3) && words.contains(&said), "{args:?} {code:?} {words}");
        }
    }
}

/// What `pgsaga migrate --print` prints, run by a person, is what `pgsaga migrate` makes: a later
/// run has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_makes_the_same_schema() {
    let cluster = Cluster::shared().await;
    let (printed, migrated) = (cluster.database().await, cluster.database().await);
    sqlx::raw_sql("drop schema pgsaga cascade").execute(printed.pool()).await.unwrap();
    let script = binary::command().args(["migrate", "--print"]).env_remove("DATABASE_URL").output().unwrap();
    assert!(script.status.success());
    sqlx::raw_sql(AssertSqlSafe(String::from_utf8(script.stdout).unwrap()))
        .execute(printed.pool())
        .await
        .unwrap();
    let again = binary::command().args(["migrate", "--database-url", printed.url()]).output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(dump(printed.pool()).await, dump(migrated.pool()).await);
    let said = String::from_utf8(again.stdout).unwrap();
    assert_eq!(said, format!("the schema pgsaga is at version {}\n", pgsaga_sql::SCHEMA_VERSION));
    let owners: Vec<String> = sqlx::query_scalar("select distinct pg_get_userbyid(relowner)::text from pg_class where relnamespace = 'pgsaga'::regnamespace")
        .fetch_all(printed.pool())
        .await
        .unwrap();
    assert_eq!(owners, ["pgsaga_owner"], "no function with its owner's rights is a superuser's");
}

#[tokio::test]
async fn only_a_finished_saga_can_be_deleted_and_history_partitions_are_made_ahead() {
    let scene = Scene::with_worker().await;
    scene
        .saga("open")
        .column("retry_interval", "'1 hour'")
        .step("a")
        .action(pgsaga_tests::Behaviour::Status(500))
        .insert()
        .await;
    scene.saga("over").step("a").insert().await;
    scene.ended("over").await;
    let error =
        sqlx::raw_sql("delete from pgsaga.saga where gid = 'open'").execute(scene.pool()).await.unwrap_err();
    assert!(
        error.to_string().contains("saga open is submitted: only a finished saga can be deleted"),
        "{error}"
    );
    sqlx::raw_sql("delete from pgsaga.saga where gid = 'over'").execute(scene.pool()).await.unwrap();
    sqlx::raw_sql("select setval('pgsaga.saga_id_seq', 41999990)").execute(scene.pool()).await.unwrap();
    sqlx::raw_sql("select pgsaga.make_history_partitions()").execute(scene.pool()).await.unwrap();
    for n in 0..20 {
        scene.saga(&format!("across-{n}")).step("a").insert().await;
        scene.ended(&format!("across-{n}")).await;
    }
    let parts: i64 =
        sqlx::query_scalar("select count(distinct tableoid) from pgsaga.history where saga_id > 41000000")
            .fetch_one(scene.pool())
            .await
            .unwrap();
    assert_eq!(parts, 2, "sagas 41,999,991 to 42,000,010 lie in two partitions");
    let all: i64 =
        sqlx::query_scalar("select count(*) from pg_inherits where inhparent = 'pgsaga.history'::regclass")
            .fetch_one(scene.pool())
            .await
            .unwrap();
    // From 0 to 8; from 41 to 49; and 50, if the loop has looked again since.
    assert!((18..=19).contains(&all), "{all} partitions: those of the ids that sagas have, and eight ahead");
}
