//! Sessions that run the workers' own statements by hand, one at a time, so that a test chooses the interleaving.

use chrono::{DateTime, Utc};
use pgsaga_sql::query;
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Row as _};

/// A worker as the database knows it: an id, and statements run by hand.
pub(crate) async fn register(connection: &mut PgConnection) -> i64 {
    let row = sqlx::query(query::REGISTER)
        .bind(15_000)
        .bind("test")
        .bind(1)
        .bind("test")
        .fetch_one(connection)
        .await
        .unwrap();
    row.get("id")
}

pub(crate) async fn connect(scene: &Scene) -> PgConnection {
    PgConnection::connect(scene.db.url()).await.unwrap()
}

#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) saga_id: i64,
    pub(crate) epoch: i32,
    pub(crate) step: i16,
}

pub(crate) async fn claim_with(
    connection: &mut PgConnection,
    sql: &str,
    worker: i64,
    limit: i64,
) -> Vec<Claimed> {
    claim_from(connection, sql, worker, limit, DateTime::UNIX_EPOCH).await
}

pub(crate) async fn claim_from(
    connection: &mut PgConnection,
    sql: &str,
    worker: i64,
    limit: i64,
    mark: DateTime<Utc>,
) -> Vec<Claimed> {
    claim_on(connection, sql, worker, limit, mark, None).await
}

/// The same for a worker that knows a server; `None` takes any.
pub(crate) async fn claim_on(
    connection: &mut PgConnection,
    sql: &str,
    worker: i64,
    limit: i64,
    mark: DateTime<Utc>,
    server: Option<DateTime<Utc>>,
) -> Vec<Claimed> {
    let claim = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(worker)
        .bind(limit)
        .bind(pgsaga_sql::FORMAT)
        .bind(i64::MAX)
        .bind(vec![1i32])
        .bind(vec![mark])
        .bind(Vec::<String>::new())
        .bind(None::<Vec<String>>)
        .bind(None::<Vec<i64>>)
        .bind(0i32)
        .bind(false)
        .bind(Vec::<String>::new())
        .bind(Vec::<i64>::new())
        .bind(server)
        .bind(Vec::<i64>::new());
    let task = |row: &PgRow| {
        Some(Claimed {
            id: row.get::<Option<i64>, _>("id")?,
            saga_id: row.get("saga_id"),
            epoch: row.get("epoch"),
            step: row.get("step"),
        })
    };
    claim.fetch_all(connection).await.unwrap().iter().filter_map(task).collect()
}

pub(crate) async fn claim(connection: &mut PgConnection, worker: i64, limit: i64) -> Vec<Claimed> {
    claim_with(connection, query::CLAIM, worker, limit).await
}

/// What a settle says of a task.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    /// The next step, in place.
    Advances,
    /// The saga, well.
    Succeeds,
    /// The same step once more, now.
    Again,
}

pub(crate) fn settle_statement(
    sql: &str,
    worker: i64,
    tasks: &[Claimed],
    ends: Ends,
) -> Query<'static, Postgres, PgArguments> {
    settle_on(sql, worker, tasks, ends, None)
}

/// The same for a worker that knows a server; `None` takes any.
pub(crate) fn settle_on(
    sql: &str,
    worker: i64,
    tasks: &[Claimed],
    ends: Ends,
    server: Option<DateTime<Utc>>,
) -> Query<'static, Postgres, PgArguments> {
    let n = tasks.len();
    let (advances, goes_on) = (matches!(ends, Ends::Advances), !matches!(ends, Ends::Succeeds));
    let next_step = |task: &Claimed| goes_on.then_some(task.step + i16::from(advances));
    let next_attempt = goes_on.then_some(if advances { 1i32 } else { 2 });
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(worker)
        .bind(tasks.iter().map(|t| t.id).collect::<Vec<_>>())
        .bind(tasks.iter().map(|t| t.epoch).collect::<Vec<_>>())
        .bind(tasks.iter().map(|t| t.saga_id).collect::<Vec<_>>())
        .bind(vec!["success"; n])
        .bind(vec![Some(200i16); n])
        .bind(vec![1000i32; n])
        .bind(vec![None::<String>; n])
        .bind(vec![advances; n])
        .bind(tasks.iter().map(next_step).collect::<Vec<_>>())
        .bind(vec![goes_on.then_some("action"); n])
        .bind(vec![next_attempt; n])
        .bind(vec![goes_on.then_some(0i32); n])
        .bind(vec![goes_on.then_some(false); n])
        .bind(vec![None::<String>; n])
        .bind(vec![matches!(ends, Ends::Again).then_some(0i64); n])
        .bind(vec![(!goes_on).then_some("succeeded"); n])
        .bind(vec![None::<String>; n])
        .bind(vec![None::<String>; n])
        .bind(vec![None::<String>; n])
        .bind(vec![goes_on.then_some(""); n])
        .bind(vec![false; n])
        .bind(vec![true; n])
        .bind(vec![false; n])
        .bind(None::<String>)
        .bind(None::<String>)
        .bind(server)
}

/// Gives tasks back, due at once.
pub(crate) async fn hand_back(connection: &mut PgConnection, worker: i64, tasks: &[Claimed]) {
    let n = tasks.len();
    let statement = sqlx::query(query::HAND_BACK)
        .bind(worker)
        .bind(tasks.iter().map(|t| t.id).collect::<Vec<_>>())
        .bind(tasks.iter().map(|t| t.epoch).collect::<Vec<_>>())
        .bind(vec![0i64; n])
        .bind(vec![None::<String>; n]);
    assert_eq!(statement.fetch_all(connection).await.unwrap().len(), n);
}

/// How many rows of the worker's could be declared dead: none while a statement of it is open.
pub(crate) async fn declare_dead(connection: &mut PgConnection, worker: i64) -> usize {
    sqlx::query(query::DECLARE_DEAD).bind(worker).bind(0i64).fetch_all(connection).await.unwrap().len()
}

/// Requeues what a worker held; how many there were.
pub(crate) async fn rescue(connection: &mut PgConnection, worker: i64) -> i64 {
    sqlx::query(query::RESCUE)
        .bind(worker)
        .bind(100i64)
        .bind(pgsaga_sql::FORMAT)
        .fetch_one(connection)
        .await
        .unwrap()
        .get("rescued")
}

/// Settles tasks and returns the ids of those that were applied.
pub(crate) async fn settle_with(
    connection: &mut PgConnection,
    sql: &str,
    worker: i64,
    tasks: &[Claimed],
    ends: Ends,
) -> Vec<i64> {
    let rows = settle_statement(sql, worker, tasks, ends).fetch_all(connection).await.unwrap();
    rows.iter().filter_map(|row| row.get::<Option<i64>, _>("task_id")).collect()
}

pub(crate) async fn settle(
    connection: &mut PgConnection,
    worker: i64,
    tasks: &[Claimed],
    ends: Ends,
) -> Vec<i64> {
    settle_with(connection, query::SETTLE, worker, tasks, ends).await
}

pub(crate) async fn insert(scene: &Scene, count: usize, steps: usize) {
    for n in 0..count {
        let mut saga = scene.saga(&format!("s{n:03}"));
        for step in 0..steps {
            saga = saga.step(&format!("step-{step}"));
        }
        saga.insert().await;
    }
}

pub(crate) async fn step_of(scene: &Scene, task: &Claimed) -> i16 {
    sqlx::query_scalar("select step from pgsaga.task where id = $1")
        .bind(task.id)
        .fetch_one(scene.pool())
        .await
        .unwrap()
}

/// Takes a rule out of a statement; fails when the statement no longer has it in these words.
pub(crate) fn without(sql: &str, rule: &str, instead: &str) -> String {
    assert!(sql.contains(rule), "the statement no longer says {rule:?}");
    sql.replace(rule, instead)
}

/// A registered worker that holds the first task of each saga.
pub(crate) struct Claims {
    pub(crate) scene: Scene,
    pub(crate) session: PgConnection,
    pub(crate) worker: i64,
    pub(crate) tasks: Vec<Claimed>,
}

/// Inserts `count` sagas of `steps` steps and claims them all.
pub(crate) async fn claims(count: usize, steps: usize) -> Claims {
    let scene = Scene::new().await;
    insert(&scene, count, steps).await;
    let mut session = connect(&scene).await;
    let worker = register(&mut session).await;
    let tasks = claim(&mut session, worker, count as i64 * 2).await;
    Claims { scene, session, worker, tasks }
}

/// A rescue that sleeps for a second between its snapshot and its locks.
pub(crate) fn slow_rescue() -> String {
    let paused = without(
        query::RESCUE,
        "with lost as materialized (",
        "with pause as materialized (select pg_sleep(1)), lost as materialized (",
    );
    without(
        &paused,
        "from (select distinct saga_id from lost) i",
        "from (select distinct saga_id from lost, pause) i",
    )
}

/// Waits until such a rescue has its snapshot.
pub(crate) async fn rescue_sleeps(scene: &Scene) {
    let asleep =
        "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    eventually(PATIENCE, "the rescue sleeps", async || {
        let sleeping: i64 = sqlx::query_scalar(asleep).fetch_one(scene.pool()).await.unwrap();
        (sleeping > 0).then_some(())
    })
    .await;
}
