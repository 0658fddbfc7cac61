//! Plans of the hot statements: index loops whatever the statistics say (docs/races.md, R24).

use pgsaga_sql::query;
use pgsaga_tests::scene::Scene;
use pgsaga_tests::sized;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::session::{Ends, buffers_read, claim, register, settle};

/// Elements of each array of a statement that is planned with its values.
const GROUP: usize = 1000;

/// Every node of a plan that reads one of our big tables, with the tables it names.
fn nodes<'a>(plan: &'a Value, found: &mut Vec<(&'a str, &'a str)>) {
    if let (Some(node), Some(table)) = (plan["Node Type"].as_str(), plan["Relation Name"].as_str()) {
        found.push((node, table));
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

/// Prepares a statement, has it planned without its values (as workers do) or with them (as they do
/// behind a pooler, where no statement is kept), and returns the plan.
async fn plan(connection: &mut PgConnection, name: &str, sql: &str, with_values: bool) -> Value {
    connection.execute(AssertSqlSafe(format!("prepare p_{name} as {sql}"))).await.unwrap();
    let types: Vec<String> = sqlx::query_scalar(
        "select unnest(parameter_types)::text from pg_prepared_statements where name = $1",
    )
    .bind(format!("p_{name}"))
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let value = |of: &String| if with_values { value(of) } else { "null".to_owned() };
    let values: Vec<String> = types.iter().map(value).collect();
    let mode = if with_values { "force_custom_plan" } else { "force_generic_plan" };
    connection.execute(AssertSqlSafe(format!("set plan_cache_mode = {mode}"))).await.unwrap();
    let explain = format!("explain (format json) execute p_{name}({})", values.join(", "));
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain))
        .persistent(false)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    connection.execute(AssertSqlSafe(format!("deallocate p_{name}"))).await.unwrap();
    plan[0]["Plan"].clone()
}

/// A value of this type: an array is as long as a group under load.
fn value(of: &str) -> String {
    let (element, array) = of.strip_suffix("[]").map_or((of, false), |element| (element, true));
    let value = match element {
        "boolean" => "true",
        "jsonb" => "{}",
        "timestamp with time zone" => "-infinity",
        _ => "1",
    };
    if array { format!("'{{{}}}'", vec![value; GROUP].join(",")) } else { format!("'{value}'") }
}

const HOT: [(&str, &str); 11] = [
    ("claim", query::Claim::SQL),
    ("peek", query::Peek::SQL),
    ("details", query::DETAILS),
    ("settle", query::Settle::SQL),
    ("settle_parallel", query::SettleParallel::SQL),
    ("progress", query::PROGRESS),
    ("defer", query::Defer::SQL),
    ("still_held", query::STILL_HELD),
    ("release", query::Release::SQL),
    ("run_isolated", query::RUN_ISOLATED),
    ("interrupted", query::INTERRUPTED),
];

async fn assert_index_loops(scene: &Scene, with_values: bool, when: &str) {
    let mut connection = PgConnection::connect(scene.db.url()).await.unwrap();
    // Behind a pooler there are no settings, and each plan is of its moment.
    let settings: &[_] = if with_values { &[("jit", "off")] } else { &pgsaga_worker::db::PLANNER };
    for (setting, value) in settings {
        connection.execute(AssertSqlSafe(format!("set {setting} = {value}"))).await.unwrap();
    }
    for (name, sql) in HOT {
        let plan = plan(&mut connection, name, sql, with_values).await;
        let mut found = Vec::new();
        nodes(&plan, &mut found);
        for (node, table) in found {
            // A bitmap has no order: a claim would read and sort all that is due. Behind a pooler
            // it knows how many it wants.
            let fine = matches!(node, "Index Scan" | "Index Only Scan" | "Tid Scan" | "ModifyTable")
                || with_values && node == "Bitmap Heap Scan";
            assert!(fine || !matches!(table, "task" | "saga"), "{name}, {when}: {node} on {table}\n{plan:#}");
        }
    }
}

/// Looks at the plans with the statistics of every moment in the life of `rows` sagas.
async fn assert_index_loops_at_every_moment(rows: i64, with_values: bool) {
    let scene = Scene::new().await;
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    if !with_values {
        let when = "new and empty, as a worker plans that will keep its plan while the tables grow";
        assert_index_loops(&scene, with_values, when).await;
    }
    session
        .execute(
            "alter table pgsaga.task set (autovacuum_enabled = off); alter table pgsaga.saga set (autovacuum_enabled = off);
             analyze pgsaga.task; analyze pgsaga.saga",
        )
        .await
        .unwrap();
    let many = format!(
        "insert into pgsaga.saga (gid, steps) select 'n' || n, '[{{\"action\": \"\"}}]' from generate_series(1, {rows}) n"
    );
    session.execute(AssertSqlSafe(many.clone())).await.unwrap();
    let look =
        async |when: &str| assert_index_loops(&scene, with_values, &format!("{rows} rows, {when}")).await;
    look("analysed while empty").await;

    session.execute("analyze pgsaga.task; analyze pgsaga.saga").await.unwrap();
    look("due tasks, analysed").await;

    session
        .execute("delete from pgsaga.task; update pgsaga.saga set status = 'succeeded', finished_at = clock_timestamp()")
        .await
        .unwrap();
    look("after a mass delete").await;
    session.execute("vacuum analyze pgsaga.task").await.unwrap();
    session.execute("analyze pgsaga.saga").await.unwrap();
    look("finished sagas and an empty queue, vacuumed").await;

    let mut rolled_back = session.begin().await.unwrap();
    rolled_back.execute(AssertSqlSafe(many.replace("'n'", "'r'"))).await.unwrap();
    rolled_back.rollback().await.unwrap();
    look("after a rolled back insert").await;
}

#[tokio::test]
async fn the_hot_statements_use_index_loops_whatever_the_statistics_say() {
    assert_index_loops_at_every_moment(sized(50_000, 200_000), false).await;
}

/// Not so many rows that any plan would use the index: reading them all would cost less than a
/// thousand look-ups.
#[tokio::test]
async fn the_hot_statements_use_index_loops_also_when_they_are_planned_with_their_values() {
    assert_index_loops_at_every_moment(20_000, true).await;
}

/// What a claim and its settle cost does not follow from how many sagas are done.
#[tokio::test]
async fn claims_and_settles_read_as_little_beside_a_million_finished_sagas() {
    let scene = Scene::new().await;
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    let worker = register(&mut session).await;
    session.execute("insert into pgsaga.saga (gid, steps) select 'n' || n, '[{\"action\": \"\"}]' from generate_series(1, 500) n").await.unwrap();
    session.execute("vacuum analyze pgsaga.task, pgsaga.saga").await.unwrap();
    let alone = buffers_of_a_turn(&mut session, worker).await;
    session
        .execute(
            "set session_replication_role = replica;
             insert into pgsaga.saga (id, gid, status, steps, finished_at) overriding system value
             select n, 'done-' || n, 'succeeded', '[{\"action\": \"\"}]', clock_timestamp() from generate_series(1000001, 2000000) n;
             reset session_replication_role",
        )
        .await
        .unwrap();
    assert_index_loops(&scene, false, "a million finished sagas that the statistics do not know").await;
    let unknown = buffers_of_a_turn(&mut session, worker).await;
    session.execute("vacuum analyze pgsaga.saga").await.unwrap();
    assert_index_loops(&scene, false, "a million finished sagas, analysed").await;
    let known = buffers_of_a_turn(&mut session, worker).await;
    // Each of the hundred sagas is looked up twice, in an index of up to two more levels. A scan
    // would read twenty thousand.
    for (beside, when) in [(unknown, "unknown to the statistics"), (known, "analysed")] {
        for (beside, alone, what) in [(beside.0, alone.0, "a claim"), (beside.1, alone.1, "a settle")] {
            assert!(
                beside <= alone + 400,
                "{what} reads {alone} buffers alone, {beside} beside a million, {when}"
            );
        }
    }
}

/// What a claim of the next hundred tasks and the settle that ends their sagas read.
async fn buffers_of_a_turn(session: &mut PgConnection, worker: i64) -> (i64, i64) {
    for (setting, value) in pgsaga_worker::db::PLANNER {
        session.execute(AssertSqlSafe(format!("set {setting} = {value}"))).await.unwrap();
    }
    let mut turn = session.begin().await.unwrap();
    let before = buffers_read(&mut turn).await;
    let claimed = claim(&mut turn, worker, 100).await;
    let between = buffers_read(&mut turn).await;
    let settled = settle(&mut turn, worker, &claimed, Ends::Succeeds).await;
    let after = buffers_read(&mut turn).await;
    turn.commit().await.unwrap();
    assert_eq!((claimed.len(), settled.len()), (100, 100));
    (between - before, after - between)
}

/// With an old snapshot held open every dead row stays; the watermark keeps a claim from walking
/// over them.
#[tokio::test]
async fn a_claim_from_the_watermark_does_not_walk_over_what_a_held_snapshot_keeps() {
    let scene = Scene::new().await;
    let mut holder = PgConnection::connect(scene.db.url()).await.unwrap();
    holder.execute("begin isolation level repeatable read").await.unwrap();
    holder.execute("select count(*) from pgsaga.task").await.unwrap();
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    session.execute("insert into pgsaga.saga (gid, steps) select 'n' || n, '[{\"action\": \"\"}]' from generate_series(1, 20000) n").await.unwrap();
    session.execute("delete from pgsaga.task").await.unwrap();
    let insert =
        "insert into pgsaga.worker (lease_ms, host, pid, version) values (1000, 'x', 1, 'x') returning id";
    let worker: i64 = sqlx::query_scalar(insert).fetch_one(&mut session).await.unwrap();
    session.execute(AssertSqlSafe(format!("prepare claim as {}", query::Claim::SQL))).await.unwrap();
    let mut buffers = async |watermark: &str| -> i64 {
        let explain = format!(
            "explain (analyze, buffers, format json) execute claim({worker}, 100, 2::smallint, 1000000, '{{1}}', array[{watermark}]::timestamptz[], '{{}}', null, null, 0, false, '{{}}', '{{}}', null, '{{}}', '{{}}', null)"
        );
        let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain))
            .persistent(false)
            .fetch_one(&mut session)
            .await
            .unwrap();
        plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap()
            + plan[0]["Plan"]["Shared Read Blocks"].as_i64().unwrap()
    };
    let from_the_beginning = buffers("'-infinity'").await;
    let from_the_watermark = buffers("clock_timestamp()").await;
    assert!(from_the_beginning > 200, "the control: {from_the_beginning} buffers without a watermark");
    assert!(
        from_the_watermark < 100,
        "{from_the_watermark} buffers from the watermark, {from_the_beginning} without"
    );
    holder.execute("rollback").await.unwrap();
}
