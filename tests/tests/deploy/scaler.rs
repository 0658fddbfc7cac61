//! The autoscaler's question, as `docs/deploy/kubernetes` has it, and the role that may ask it.

use pgsaga_tests::Behaviour;
use pgsaga_tests::scene::{PATIENCE, Scene};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::files::{read, value};

const ROLE: &str = "docs/deploy/kubernetes/scaler_role.sql";

/// As KEDA asks it.
fn question() -> String {
    value(&read("docs/deploy/kubernetes/keda.yaml"), "query:").trim_matches('"').to_owned()
}

#[tokio::test]
async fn the_scaler_may_ask_its_question_and_nothing_else() {
    let scene = Scene::new().await;
    scene.saga("s").step("pay").insert().await;
    for _ in 0..2 {
        sqlx::raw_sql(AssertSqlSafe(read(ROLE))).execute(scene.pool()).await.unwrap();
    }
    let url = scene.db.url().replace("postgres://postgres@", "postgres://pgsaga_scaler@");
    let mut scaler = PgConnection::connect(&url).await.unwrap();
    let ready: i64 = sqlx::query_scalar(AssertSqlSafe(question())).fetch_one(&mut scaler).await.unwrap();
    assert_eq!(ready, 1);
    let error = scaler.execute("create temp table t ()").await.unwrap_err();
    assert_eq!(code(&error), "25006", "its transactions only read: {error}");

    // That is its own setting. What it may do is decided by its rights.
    scaler.execute("set default_transaction_read_only = off").await.unwrap();
    let others = names(
        scene.pool(),
        "select oid::regclass::text from pg_class where relnamespace = 'pgsaga'::regnamespace
         and relkind in ('r', 'p', 'v', 'm', 'S') and relname <> 'queues'",
    )
    .await;
    assert!(others.len() > 8, "{others:?}");
    let mut refused: Vec<String> =
        others.iter().map(|name| format!("select * from {name} limit 0")).collect();
    refused.extend(
        [
            "insert into pgsaga.saga (gid, steps) values ('t', '[{\"action\": \"\"}]')",
            "update pgsaga.saga set status = 'succeeded'",
            "delete from pgsaga.task",
            "update pgsaga.paused_queue set paused_at = now()",
            "select pgsaga.abort('s', 'no')",
            "select pgsaga.pause('default')",
            "create table pgsaga.mine ()",
            "set role pgsaga_worker",
        ]
        .map(str::to_owned),
    );
    for refused in refused {
        let error = scaler.execute(AssertSqlSafe(refused.clone())).await.expect_err(&refused);
        assert_eq!(code(&error), "42501", "{refused}: {error}");
    }
    let callable = names(
        scene.pool(),
        "select oid::regprocedure::text from pg_proc where pronamespace = 'pgsaga'::regnamespace
         and has_function_privilege('pgsaga_scaler', oid, 'execute')",
    )
    .await;
    assert_eq!(callable, Vec::<String>::new());
    let granted = names(
        scene.pool(),
        "select table_name || ' ' || privilege_type from information_schema.role_table_grants where grantee = 'pgsaga_scaler'",
    )
    .await;
    assert_eq!(granted, ["queues SELECT"]);
}

#[tokio::test]
async fn ready_is_what_is_due_or_runs_and_not_what_waits_or_is_paused() {
    let mut scene = Scene::new().await;
    let ready = async |scene: &Scene| -> i64 {
        sqlx::query_scalar(AssertSqlSafe(question())).fetch_one(scene.pool()).await.unwrap()
    };
    assert_eq!(ready(&scene).await, 0, "of nothing");
    for n in 0..3 {
        let saga = scene.saga(&format!("due-{n}")).column("request_timeout", "'60 seconds'").step("pay");
        saga.action(Behaviour::Hang).insert().await;
    }
    scene.saga("later").column("run_at", "now() + interval '1 hour'").step("pay").insert().await;
    scene.saga("paused").column("queue", "'slow'").step("pay").insert().await;
    assert_eq!(ready(&scene).await, 4);
    scene.pool().execute("select pgsaga.pause('slow')").await.unwrap();
    assert_eq!(ready(&scene).await, 3);

    scene.start_worker(&[]).await;
    scene.participant.wait_for_calls(3, PATIENCE).await;
    assert_eq!(ready(&scene).await, 3, "they run");
    scene.pool().execute("select pgsaga.resume('slow')").await.unwrap();
    scene.expect("paused", "succeeded", None, &["pay action"]).await;
    assert_eq!(ready(&scene).await, 3, "what has ended is not ready");
}

async fn names(pool: &PgPool, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_else(|| panic!("{error}")).into_owned()
}
