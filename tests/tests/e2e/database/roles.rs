//! Least rights: what producers and workers can do, and what they cannot.

use pgsaga_tests::command::run_as;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

/// A session with just the rights of one of our roles.
async fn session(scene: &Scene, role: &str) -> PgConnection {
    let mut connection = PgConnection::connect(scene.db.url()).await.unwrap();
    connection.execute(AssertSqlSafe(format!("set role {role}"))).await.unwrap();
    connection
}

/// A URL that logs in as a new user who is a member of `role` and nothing else. Roles belong to the
/// cluster, which other tests share: the name is the database's.
pub(crate) async fn login(scene: &Scene, role: &str) -> String {
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(scene.pool()).await.unwrap();
    let user = format!("{database}_{role}");
    scene.pool().execute(AssertSqlSafe(format!("create role {user} login in role {role}"))).await.unwrap();
    scene.db.url().replace("postgres://postgres@", &format!("postgres://{user}@"))
}

#[tokio::test]
async fn a_producer_can_insert_and_read_its_columns_and_nothing_else() {
    let scene = Scene::new().await;
    let mut producer = session(&scene, "pgsaga_producer").await;
    for allowed in [
        "insert into pgsaga.saga (gid, steps) values ('a', '[{\"action\": \"\"}]')",
        "insert into pgsaga.saga (gid, steps) values ('a', '[{\"action\": \"\"}]') on conflict (gid) do nothing",
        "insert into pgsaga.saga (steps, retry_interval, retry_limit, request_timeout, headers, labels) values ('[{\"action\": \"\"}]', '1 s', 3, '1 s', '{}', '{}') returning gid",
        "select gid, status, reason, result from pgsaga.saga",
    ] {
        if let Err(error) = producer.execute(allowed).await {
            panic!("{allowed}: {error}");
        }
    }
    for refused in [
        "select steps from pgsaga.saga",
        "select * from pgsaga.saga",
        "insert into pgsaga.saga (gid, steps, status) values ('b', '[{\"action\": \"\"}]', 'succeeded')",
        "insert into pgsaga.saga (gid, steps, format) values ('b', '[{\"action\": \"\"}]', 9)",
        "update pgsaga.saga set status = 'succeeded'",
        "delete from pgsaga.saga",
        "truncate pgsaga.saga",
        "select * from pgsaga.task",
        "insert into pgsaga.task (saga_id, step, run_at) values (1, 1, now())",
        "select * from pgsaga.history",
        "select * from pgsaga.worker",
        "select * from pgsaga.saga_timeline",
        "select pgsaga.make_history_partitions()",
        "create table pgsaga.mine ()",
        "alter table pgsaga.saga disable trigger all",
    ] {
        let error = producer.execute(refused).await.expect_err(refused);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{refused}: {error}");
    }
}

#[tokio::test]
async fn a_worker_needs_no_more_than_its_role() {
    let mut scene = Scene::new().await;
    let url = login(&scene, "pgsaga_worker").await;
    scene.workers.push(pgsaga_tests::Worker::spawn(&url, &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    scene
        .saga("refused")
        .step("a")
        .action(Behaviour::Unknown(1))
        .step("b")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene
        .expect("refused", "failed", Some("b: no"), &["a action", "a action", "b action", "a compensate"])
        .await;
    scene
        .saga("stuck")
        .step("a")
        .compensate(Behaviour::Refuse("never".into()))
        .step("b")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.expect("stuck", "stuck", Some("a: never"), &["a action", "b action", "a compensate"]).await;
    scene
        .saga("held")
        .column("request_timeout", "'60 seconds'")
        .step("a")
        .action(Behaviour::Sequence(vec![Behaviour::Hang]))
        .insert()
        .await;
    scene.participant.wait_for_calls(8, PATIENCE).await;
    scene.workers[0].kill9();
    scene.workers.clear();
    scene.workers.push(pgsaga_tests::Worker::spawn(&url, &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    scene.expect("held", "succeeded", None, &["a action", "a action"]).await;
    assert_eq!(
        scene.metric("pgsaga_database_errors_total{class=\"other\"}").await,
        0.0,
        "no right was missing"
    );
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));

    let mut worker = session(&scene, "pgsaga_worker").await;
    for refused in [
        "insert into pgsaga.saga (gid, steps) values ('b', '[{\"action\": \"\"}]')",
        "update pgsaga.saga set steps = '[]'",
        "delete from pgsaga.saga",
        "delete from pgsaga.history",
        "update pgsaga.history set outcome = 'success'",
    ] {
        let error = worker.execute(refused).await.expect_err(refused);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{refused}: {error}");
    }
}

#[tokio::test]
async fn functions_are_not_executable_by_everybody_and_set_their_search_path() {
    let scene = Scene::new().await;
    let open: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'pgsaga'::regnamespace
         and (has_function_privilege('public', p.oid, 'execute') or not coalesce(p.proconfig::text like '%search_path%', false))",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert_eq!(open, Vec::<String>::new());
}

/// From Postgres 16 on CREATEROLE does not let a user grant the roles that another one has made.
/// Before, only a user without CREATEROLE meets the same.
#[tokio::test]
async fn a_second_administrator_is_told_each_grant_that_helps() {
    let db = Cluster::shared().await.empty_database("").await;
    let is_16: bool = sqlx::query_scalar("select current_setting('server_version_num')::int >= 160000")
        .fetch_one(db.pool())
        .await
        .unwrap();
    let user = format!("{}_second", db.name());
    let (attribute, options) = if is_16 { ("createrole", " with set true, inherit true") } else { ("", "") };
    db.pool().execute(AssertSqlSafe(format!("create role {user} login {attribute}"))).await.unwrap();
    let url = db.url().replace("postgres://postgres@", &format!("postgres://{user}@"));
    for helps in [
        format!("grant pgsaga_owner to {user}{options}"),
        format!("grant create on database {} to {user}", db.name()),
    ] {
        let said = run_as(&url, &["migrate"]);
        assert_eq!(said.code, Some(5), "{}", said.err);
        assert!(said.err.contains(&format!("user {user} may not")), "{}", said.err);
        assert!(said.err.trim_end().ends_with(&format!("allows it: {helps}")), "{}", said.err);
        db.pool().execute(AssertSqlSafe(helps)).await.unwrap();
    }
    run_as(&url, &["migrate"]).fine();
    run_as(&url, &["migrate"]).fine();
    run_as(&url, &["doctor"]).fine();
}
