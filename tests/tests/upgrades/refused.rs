//! Databases of before the first release: nothing upgrades them, and everything says so.

use pgsaga_tests::Worker;
use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::old::{self, BASELINE, printed};

/// The bookkeeping that 0.1 to 0.4 left.
const UNRELEASED: &str = "set role pgsaga_owner;
    create table pgsaga.migration (
      version bigint primary key, description text not null, installed_on timestamptz not null default now(),
      success boolean not null, checksum bytea not null, execution_time bigint not null);
    create table pgsaga.saga (id bigint);
    insert into pgsaga.migration (version, description, success, checksum, execution_time)
      select n, 'schema', true, '', 0 from generate_series(1, 12) n;
    reset role";

/// Every command says what was found and what helps, with exit code 3, and so does a worker that
/// starts.
async fn refused(scene: &Scene, found: &str) {
    let words = [
        &format!("the schema of this database is {found}, and this pgsaga"),
        "needs version",
        "nothing of it is changed",
        "`drop schema pgsaga cascade` and run `pgsaga migrate`",
    ];
    for command in [&["migrate"][..], &["migrate", "--skip-roles"], &["list"], &["doctor"], &["show", "s"]] {
        let said = run(&scene.db, command);
        assert_eq!(said.code, Some(3), "{command:?}: {}", said.err);
        for words in words {
            assert!(said.err.contains(words), "{command:?}: {}", said.err);
        }
    }
    let mut worker = Worker::spawn(scene.db.url(), &[]);
    let exit = worker.wait_exit(PATIENCE).await;
    let log = worker.log().join("\n");
    assert_eq!(exit.code(), Some(3), "{log}");
    for words in words {
        assert!(log.contains(words), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_an_unreleased_pgsaga_is_refused_by_everything() {
    let scene = old::without_schema().await;
    scene.pool().execute(UNRELEASED).await.unwrap();
    refused(&scene, "at version 12 of an unreleased pgsaga (0.1 to 0.4)").await;

    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    let error = sqlx::raw_sql(AssertSqlSafe(printed(&[]))).execute(&mut session).await.unwrap_err();
    let words = "the schema pgsaga: found one of an unreleased pgsaga (0.1 to 0.4); allowed: none, or one of a release";
    assert!(error.to_string().contains(words), "{error}");
    let tables: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relnamespace = 'pgsaga'::regnamespace and relkind = 'r'",
    )
    .fetch_one(scene.pool())
    .await
    .unwrap();
    assert_eq!(tables, 2, "nothing is made in it");
    // What it says helps.
    scene.pool().execute("drop schema pgsaga cascade").await.unwrap();
    run(&scene.db, &["migrate"]).fine();
}

/// The baseline is edited in place until the first release.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_text_of_the_baseline_is_refused_by_everything() {
    let scene = old::with_rows(BASELINE).await;
    let edited = "update pgsaga.migration set digest = 'of another text' where version = 1";
    scene.pool().execute(edited).await.unwrap();
    refused(&scene, "at a version 1 of another text than this release's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_printed_script_is_refused_by_a_database_that_it_does_not_start_from() {
    let scene = old::with_rows(BASELINE).await;
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    let error = sqlx::raw_sql(AssertSqlSafe(printed(&[]))).execute(&mut session).await.unwrap_err();
    let words = "found version 1; allowed: 0, which this script starts from";
    assert!(error.to_string().contains(words), "{error}");
    let said = run(&scene.db, &["migrate", "--print", "--from", "99"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
}
