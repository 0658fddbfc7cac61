//! `pgsaga migrate` on a database that is in use.

use std::time::Duration;

use pgsaga_sql::SCHEMA_VERSION;
use pgsaga_tests::command::{Running, run};
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};

use crate::old::{self, BASELINE};

/// A database in which `pgsaga migrate` has something to do: it lacks the present text of a
/// function, and of a trigger that cannot be made anew while others write sagas.
async fn behind() -> Scene {
    let scene = old::with_rows(BASELINE).await;
    let older = "update pgsaga.function set digest = 'of an older text' where name = 'check_saga'";
    scene.pool().execute(older).await.unwrap();
    assert!(is_behind(&scene).await);
    scene
}

async fn is_behind(scene: &Scene) -> bool {
    let older = "select digest = 'of an older text' from pgsaga.function where name = 'check_saga'";
    sqlx::query_scalar(older).fetch_one(scene.pool()).await.unwrap()
}

/// An application's transaction that has written a saga and goes on.
async fn open_transaction(scene: &Scene) -> (PgConnection, i32) {
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    session.execute("begin; update pgsaga.saga set labels = '{}' where gid = 'untouched'").await.unwrap();
    let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    (session, pid)
}

/// How many backends of a migration wait for a lock.
async fn waiting(scene: &Scene) -> i64 {
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'pgsaga' and wait_event_type = 'Lock' and query ~ 'Refuses a bad row in the INSERT itself'";
    sqlx::query_scalar(waiting).fetch_one(scene.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_is_quiet_and_changes_nothing() {
    let scene = behind().await;
    run(&scene.db, &["migrate"]).fine();
    let applied = "select string_agg(line, E'\\n' order by line) from (
        select version || ' ' || applied_at from pgsaga.migration union all select name || ' ' || applied_at from pgsaga.function
        union all select proname || ' ' || xmin from pg_proc where pronamespace = 'pgsaga'::regnamespace
        union all select relname || ' ' || xmin from pg_class where relnamespace = 'pgsaga'::regnamespace) applied (line)";
    let first: String = sqlx::query_scalar(applied).fetch_one(scene.pool()).await.unwrap();
    let again = run(&scene.db, &["migrate"]);
    assert_eq!(again.err, "");
    assert_eq!(again.fine(), format!("the schema pgsaga is at version {SCHEMA_VERSION}\n"));
    assert_eq!(sqlx::query_scalar::<_, String>(applied).fetch_one(scene.pool()).await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_an_open_transaction_says_whose_it_is_and_lets_others_pass() {
    let scene = behind().await;
    let (mut session, pid) = open_transaction(&scene).await;
    let mut migrate = Running::start(&scene.db, &["migrate"]);
    migrate.wait_for_err(&format!("process {pid} "), PATIENCE).await;
    // It does not wait just now, or not for long: what queues behind its lock gets on.
    scene.saga("meanwhile").step("a").insert().await;
    assert!(migrate.is_running());
    assert!(is_behind(&scene).await);
    session.execute("commit").await.unwrap();
    assert!(migrate.ended(PATIENCE).await.success());
    assert!(!is_behind(&scene).await);
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_may_not_wait_ends_with_who_holds_it_up_and_leaves_what_was_there() {
    let scene = behind().await;
    let (mut session, pid) = open_transaction(&scene).await;
    let mut migrate = Running::start(&scene.db, &["migrate", "--lock-wait-seconds", "0"]);
    migrate.wait_for_err(&format!("process {pid} of postgres, idle in transaction"), PATIENCE).await;
    migrate.wait_for_err("--lock-wait-seconds", PATIENCE).await;
    assert_eq!(migrate.ended(PATIENCE).await.code(), Some(5));
    assert!(is_behind(&scene).await);
    session.execute("commit").await.unwrap();
    let said = run(&scene.db, &["migrate"]).fine();
    assert_eq!(
        said,
        format!("applied functions: check_saga\nthe schema pgsaga is at version {SCHEMA_VERSION}\n")
    );
    assert!(!is_behind(&scene).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_at_once_all_end_well() {
    for scene in [old::without_schema().await, behind().await] {
        let mut all: Vec<Running> = (0..4).map(|_| Running::start(&scene.db, &["migrate"])).collect();
        for migrate in &mut all {
            let status = migrate.ended(PATIENCE).await;
            assert!(status.success(), "{status}, {}", migrate.out());
        }
        assert_eq!(all.iter().filter(|migrate| migrate.out().contains("applied")).count(), 1, "one does it");
        assert_eq!(old::version(scene.pool()).await, SCHEMA_VERSION);
        assert!(!is_behind(&scene).await);
        assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
    }
}

/// Its locks are its own: `pgsaga migrate` is run at every start of a deployment, when there is
/// nothing to do as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_does_not_wait_for_an_idle_worker() {
    let scene = Scene::with_worker().await;
    let held = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'
        and database = (select oid from pg_database where datname = current_database())";
    eventually(PATIENCE, "an idle worker holds both of its locks", async || {
        let held: i64 = sqlx::query_scalar(held).fetch_one(scene.pool()).await.unwrap();
        (held == 2).then_some(())
    })
    .await;
    run(&scene.db, &["migrate", "--lock-wait-seconds", "0"]).fine();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_another_says_whose_it_is() {
    let scene = Scene::new().await;
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    session.execute("begin").await.unwrap();
    sqlx::raw_sql(pgsaga_sql::ROLES).execute(&mut session).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    let mut migrate = Running::start(&scene.db, &["migrate", "--lock-wait-seconds", "0"]);
    migrate.wait_for_err(&format!("process {pid} of postgres, idle in transaction"), PATIENCE).await;
    assert_eq!(migrate.ended(PATIENCE).await.code(), Some(5));
}

/// Catalogs do not wait for each other: whoever makes the same schema a moment later fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_one_that_is_about_to_make_the_schema() {
    let scene = Scene::new().await;
    sqlx::raw_sql("drop schema pgsaga cascade").execute(scene.pool()).await.unwrap();
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    session.execute("begin").await.unwrap();
    sqlx::raw_sql(pgsaga_sql::ROLES).execute(&mut session).await.unwrap();
    let mut migrate = Running::start(&scene.db, &["migrate"]);
    let locked = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'pgsaga' and wait_event_type = 'Lock'";
    eventually(PATIENCE, "it waits", async || {
        let locked: i64 = sqlx::query_scalar(locked).fetch_one(scene.pool()).await.unwrap();
        (locked == 1).then_some(())
    })
    .await;
    session.execute("commit").await.unwrap();
    assert!(migrate.ended(PATIENCE).await.success());
    assert_eq!(old::version(scene.pool()).await, SCHEMA_VERSION);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_killed_leaves_what_was_there_and_the_next_one_succeeds() {
    let scene = behind().await;
    let (mut session, _) = open_transaction(&scene).await;
    let migrate = Running::start(&scene.db, &["migrate"]);
    eventually(PATIENCE, "it waits for the lock", async || (waiting(&scene).await == 1).then_some(())).await;
    // SIGKILL.
    drop(migrate);
    // Its server process does not wait for ever behind the application's transaction, holding up
    // everybody else.
    eventually(Duration::from_secs(10), "its server process ends", async || {
        (waiting(&scene).await == 0).then_some(())
    })
    .await;
    assert!(is_behind(&scene).await);
    session.execute("commit").await.unwrap();
    run(&scene.db, &["migrate"]).fine();
    assert!(!is_behind(&scene).await);
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}
