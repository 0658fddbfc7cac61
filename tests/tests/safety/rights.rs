//! Producers that try to cheat, and tenants that share one database.

use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Behaviour, Worker};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

const GUIDE: &str = include_str!("../../../docs/safety.md");
const STEPS: &str = "'[{\"name\": \"a\", \"action\": \"\"}]'";

/// A session of a new login role with just these rights. Roles belong to the cluster: their names
/// are the database's.
async fn session(scene: &Scene, user: &str, role: &str) -> PgConnection {
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(scene.pool()).await.unwrap();
    let user = format!("{database}_{user}");
    scene.pool().execute(AssertSqlSafe(format!("create role {user} login in role {role}"))).await.unwrap();
    let url = scene.db.url().replace("postgres://postgres@", &format!("postgres://{user}@"));
    PgConnection::connect(&url).await.unwrap()
}

/// The SQLSTATE that a statement ends with; nothing where it works.
async fn refused(session: &mut PgConnection, statement: &str) -> Option<String> {
    let result = session.execute(AssertSqlSafe(statement.to_owned())).await;
    result.err().map(|error| match error.as_database_error().and_then(|error| error.code()) {
        Some(code) => code.into_owned(),
        None => panic!("{statement}: {error}"),
    })
}

const NO_RIGHT: &str = "42501";
/// What a producer may read of every saga.
const READABLE: [&str; 10] =
    ["id", "gid", "status", "reason", "result", "created_at", "finished_at", "queue", "priority", "run_at"];

/// Each column that an INSERT may not give, and each way to change or see what is another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_tries_to_cheat_is_refused_by_the_database() {
    let scene = Scene::new().await;
    scene.saga("victim").step("a").insert().await;
    let mut producer = session(&scene, "shop", "pgsaga_producer").await;

    let columns: Vec<String> = sqlx::query_scalar(
        "select attname::text from pg_attribute where attrelid = 'pgsaga.saga'::regclass and attnum > 0 and not attisdropped",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    // README.md's table of columns that an INSERT may give is compared with the rights elsewhere.
    let given = [
        "gid",
        "steps",
        "queue",
        "priority",
        "run_at",
        "timeout_to_fail",
        "retry_interval",
        "retry_limit",
        "compensate_retry_limit",
        "compensate_failed",
        "request_timeout",
        "headers",
        "labels",
        "result_mapping",
    ];
    let mut kept = 0;
    for column in columns.iter().filter(|column| !given.contains(&column.as_str())) {
        for statement in [
            format!("insert into pgsaga.saga (steps, {column}) values ({STEPS}, default)"),
            format!("update pgsaga.saga set {column} = default where gid = 'victim'"),
        ] {
            assert_eq!(refused(&mut producer, &statement).await.as_deref(), Some(NO_RIGHT), "{statement}");
        }
        kept += 1;
    }
    assert!(kept >= 10 && kept + given.len() == columns.len(), "{columns:?}");
    for column in given {
        let statement = format!("update pgsaga.saga set {column} = default");
        assert_eq!(refused(&mut producer, &statement).await.as_deref(), Some(NO_RIGHT), "{statement}");
    }
    for column in columns.iter().filter(|column| !READABLE.contains(&column.as_str())) {
        let statement = format!("select {column} from pgsaga.saga");
        assert_eq!(refused(&mut producer, &statement).await.as_deref(), Some(NO_RIGHT), "{statement}");
    }

    for statement in [
        "delete from pgsaga.saga where gid = 'victim'",
        "truncate pgsaga.saga cascade",
        "insert into pgsaga.saga (gid, steps) values ('victim', '[{\"action\": \"\"}]') on conflict (gid) do update set steps = excluded.steps",
        "insert into pgsaga.saga (gid, steps) values ('b', '[{\"action\": \"\"}]') returning *",
        "copy pgsaga.saga to stdout",
        "copy (select steps from pgsaga.saga) to stdout",
        "select s from pgsaga.saga s",
        "select 1 from pgsaga.saga where steps::text like '%a%'",
        "select gid from pgsaga.saga order by labels",
        "select gid from pgsaga.saga for update",
        "do $$ begin lock table pgsaga.saga in access exclusive mode; end $$",
        "do $$ begin lock table pgsaga.task in access share mode; end $$",
        "insert into pgsaga.task (saga_id, step, op, run_at) values (1, 1, 'compensate', now())",
        "update pgsaga.task set epoch = epoch + 1",
        "delete from pgsaga.task",
        "select * from pgsaga.task",
        "insert into pgsaga.history (saga_id, seq) values (1, 1)",
        "delete from pgsaga.history",
        "select * from pgsaga.history",
        "select * from pgsaga.saga_timeline",
        "select * from pgsaga.queue_stats",
        "select * from pgsaga.queues",
        "select * from pgsaga.stuck",
        "select * from pgsaga.worker",
        "insert into pgsaga.worker (lease_ms, host, pid, version) values (2000, 'x', 1, 'x')",
        "update pgsaga.paused_queue set paused_at = now()",
        "insert into pgsaga.migration (version, name) values (99, 'contract_everything')",
        "update pgsaga.function set digest = ''",
        "select nextval('pgsaga.saga_id_seq')",
        "select setval('pgsaga.saga_id_seq', 1)",
        "select pgsaga.force('victim', 'x')",
        "select pgsaga.skip('victim', 'a', 'x')",
        "select pgsaga.decide('victim', 'skip', 'a', 'x')",
        "select pgsaga.resolve('victim', 'succeeded', 'x')",
        "select pgsaga.retry('victim')",
        "select pgsaga.purge_sagas('1 hour', 0, 100, 100)",
        "select pgsaga.drop_history_partition(0)",
        "create table pgsaga.mine ()",
        "create trigger mine before insert on pgsaga.saga for each row execute function suppress_redundant_updates_trigger()",
        "alter table pgsaga.saga disable trigger all",
        "alter table pgsaga.saga owner to current_user",
        "create or replace function pgsaga.check_saga() returns trigger language plpgsql as 'begin return new; end'",
        "grant update on pgsaga.saga to current_user",
        "set role pgsaga_owner",
        "set role pgsaga_worker",
        "set session_replication_role = replica",
    ] {
        assert_eq!(refused(&mut producer, statement).await.as_deref(), Some(NO_RIGHT), "{statement}");
    }
    // A function or a table of one's own in front of ours changes nothing of what runs with its
    // owner's rights.
    for statement in [
        "create temp table task (saga_id bigint)",
        "create temp table saga (id bigint)",
        "set search_path = pg_temp, public",
        "insert into pgsaga.saga (gid, steps) values ('own', '[{\"name\": \"a\", \"action\": \"\"}]')",
    ] {
        assert_eq!(refused(&mut producer, statement).await, None, "{statement}");
    }
    let tasks: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.task").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(tasks, 2, "the victim's and one's own");
    assert_eq!(scene.status("victim").await.unwrap().0, "submitted");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

/// The SQL of the guide's chapter on tenants, as it stands there.
fn tenants_sql() -> &'static str {
    let chapter = GUIDE.split("\n## Tenants").nth(1).unwrap();
    chapter.split("```sql\n").nth(1).unwrap().split("```").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_share_a_database_see_and_make_only_their_own_sagas() {
    let mut scene = Scene::new().await;
    scene.pool().execute(tenants_sql()).await.unwrap();
    let mut ours = session(&scene, "ours", "pgsaga_producer").await;
    let mut others = session(&scene, "others", "pgsaga_producer").await;
    let insert = |gid: &str, tenant: &str| {
        format!(
            "insert into pgsaga.saga (gid, steps, labels) values ('{gid}', {STEPS}, jsonb_build_object('tenant', {tenant})) returning gid"
        )
    };
    assert_eq!(refused(&mut ours, &insert("ours-1", "current_user")).await, None);
    assert_eq!(refused(&mut others, &insert("others-1", "current_user")).await, None);
    let again = insert("ours-1", "current_user").replace(" returning gid", " on conflict (gid) do nothing");
    assert_eq!(refused(&mut ours, &again).await, None, "submitting is idempotent");
    for stolen in [
        insert("x", "'somebody'"),
        format!("insert into pgsaga.saga (gid, steps, labels) values ('x', {STEPS}, '{{}}')"),
        format!("insert into pgsaga.saga (gid, steps) values ('x', {STEPS})"),
        "select pgsaga.abort('ours-1', 'not yours')".to_owned(),
        "set role pgsaga_owner".to_owned(),
        "alter table pgsaga.saga disable row level security".to_owned(),
    ] {
        assert_eq!(refused(&mut others, &stolen).await.as_deref(), Some(NO_RIGHT), "{stolen}");
    }
    let sees = async |session: &mut PgConnection| -> Vec<String> {
        sqlx::query_scalar("select gid from pgsaga.saga order by gid").fetch_all(session).await.unwrap()
    };
    assert_eq!(sees(&mut ours).await, ["ours-1"]);
    assert_eq!(sees(&mut others).await, ["others-1"]);
    let mut reader = session(&scene, "reader", "pgsaga_reader").await;
    assert_eq!(sees(&mut reader).await, ["others-1", "ours-1"]);

    // A worker with nothing but its role's rights works for all of them, and decisions find every
    // saga.
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(scene.pool()).await.unwrap();
    let user = format!("{database}_fleet");
    let fleet = format!("create role {user} login in role pgsaga_worker");
    scene.pool().execute(AssertSqlSafe(fleet)).await.unwrap();
    let url = scene.db.url().replace("postgres://postgres@", &format!("postgres://{user}@"));
    scene.workers.push(Worker::spawn(&url, &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    for gid in ["ours-1", "others-1"] {
        assert_eq!(scene.ended(gid).await.0, "succeeded", "{gid}");
    }
    let saga = scene.saga("refused").step("a").step("b").action(Behaviour::Refuse("no".into()));
    saga.insert().await;
    scene.expect("refused", "failed", Some("b: no"), &["a action", "b action", "a compensate"]).await;
    assert_eq!(
        scene.metric("pgsaga_database_errors_total{class=\"other\"}").await,
        0.0,
        "no right was missing"
    );
    let mut operator = session(&scene, "operator", "pgsaga_operator").await;
    scene.workers[0].terminate();
    scene.workers[0].wait_exit(PATIENCE).await;
    assert_eq!(refused(&mut ours, &insert("ours-2", "current_user")).await, None);
    assert_eq!(refused(&mut operator, "select pgsaga.abort('ours-2', 'a person said so')").await, None);
}

#[tokio::test]
async fn whoever_completes_may_do_nothing_else() {
    let scene = Scene::new().await;
    scene.saga("s").step("approval").waits(86_400.0).insert().await;
    let complete = "select pgsaga.complete('s', 'approval', 'success')";
    let mut completer = session(&scene, "bank", "pgsaga_completer").await;
    for statement in [
        "select pgsaga.abort('s', 'no')".to_owned(),
        "select pgsaga.skip('s', 'approval', 'no')".to_owned(),
        "select pgsaga.decide('s', 'complete-success', 'approval', null)".to_owned(),
        "select from pgsaga.saga".to_owned(),
        "select from pgsaga.history".to_owned(),
        "update pgsaga.task set completion = 'success'".to_owned(),
        format!("insert into pgsaga.saga (steps) values ({STEPS})"),
    ] {
        assert_eq!(refused(&mut completer, &statement).await.as_deref(), Some(NO_RIGHT), "{statement}");
    }
    for (user, role, code) in [
        ("shop", "pgsaga_producer", Some(NO_RIGHT)),
        ("eye", "pgsaga_reader", Some(NO_RIGHT)),
        ("chief", "pgsaga_operator", None),
        ("serve", "pgsaga_worker", None),
    ] {
        let mut other = session(&scene, user, role).await;
        other.execute("begin").await.unwrap();
        assert_eq!(refused(&mut other, complete).await.as_deref(), code, "{role}");
        other.execute("rollback").await.unwrap();
    }
    assert_eq!(refused(&mut completer, complete).await, None);
    let by: String = sqlx::query_scalar("select decided_by from pgsaga.history where kind = 'completion'")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert!(by.ends_with("_bank"), "{by}");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}
