//! Sessions that run the workers' own statements by hand, one at a time, so that a test chooses the
//! interleaving.

use chrono::{DateTime, Utc};
use pgsaga_sql::query::{self, ReleasedTask, SettledTask};
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

/// A worker as the database knows it: an id, and statements run by hand.
pub(crate) async fn register(connection: &mut PgConnection) -> i64 {
    let register = query::Register {
        lease_ms: 15_000,
        host: "test",
        process_id: 1,
        version: "test",
        environment: None,
        queues: None,
        participants: &[],
        transactional: &[],
    };
    let row = register.query().fetch_one(connection).await.unwrap();
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
    watermark: DateTime<Utc>,
) -> Vec<Claimed> {
    claim_on(connection, sql, worker, limit, watermark, None).await
}

/// The same for a worker that knows a server; `None` takes any.
pub(crate) async fn claim_on(
    connection: &mut PgConnection,
    sql: &str,
    worker: i64,
    limit: i64,
    watermark: DateTime<Utc>,
    server: Option<DateTime<Utc>>,
) -> Vec<Claimed> {
    let claim = query::Claim {
        worker_id: worker,
        tasks_max: limit,
        format_max: pgsaga_sql::FORMAT,
        definition_bytes_max: i64::MAX,
        lanes: &[1],
        watermarks: &[watermark],
        server_started_at: server,
        ..query::Claim::default()
    };
    let claim = claim.query_with(AssertSqlSafe(sql.to_owned()));
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
    claim_with(connection, query::Claim::SQL, worker, limit).await
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
) -> query::Query<'static> {
    settle_on(sql, worker, tasks, ends, None)
}

/// The same for a worker that knows a server; `None` takes any.
pub(crate) fn settle_on(
    sql: &str,
    worker: i64,
    tasks: &[Claimed],
    ends: Ends,
    server: Option<DateTime<Utc>>,
) -> query::Query<'static> {
    let mut settle =
        query::Settle { worker_id: worker, server_started_at: server, ..query::Settle::default() };
    settle.tasks.extend(tasks.iter().map(|task| {
        let settled = SettledTask {
            task_id: task.id,
            epoch: task.epoch,
            saga_id: task.saga_id,
            outcome: Some("success"),
            status_code: Some(200),
            duration_us: Some(1000),
            next_keeps_deadline: true,
            ..SettledTask::default()
        };
        let next = |step, attempt| SettledTask {
            next_step: Some(step),
            next_op: Some("action"),
            next_attempt: Some(attempt),
            next_counted: Some(0),
            next_unknown_before: Some(false),
            next_participant: Some(""),
            ..settled.clone()
        };
        match ends {
            Ends::Advances => SettledTask { in_place: true, ..next(task.step + 1, 1) },
            Ends::Again => SettledTask { next_delay_us: Some(0), ..next(task.step, 2) },
            Ends::Succeeds => SettledTask { saga_status: Some("succeeded"), ..settled },
        }
    }));
    settle.query_with(AssertSqlSafe(sql.to_owned()))
}

/// Gives tasks back, due at once.
pub(crate) async fn hand_back(connection: &mut PgConnection, worker: i64, tasks: &[Claimed]) {
    let released = tasks.iter().map(|task| ReleasedTask {
        task_id: task.id,
        epoch: task.epoch,
        ..ReleasedTask::default()
    });
    let release = query::Release { worker_id: worker, tasks: released.collect() };
    assert_eq!(release.query().fetch_all(connection).await.unwrap().len(), tasks.len());
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
    settle_with(connection, query::Settle::SQL, worker, tasks, ends).await
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

/// Buffers that this session's transaction has read of our tables and their indexes.
pub(crate) async fn buffers_read(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select sum(pg_stat_get_xact_blocks_fetched(c.oid))::bigint from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'pgsaga' and c.relkind in ('r', 'i')",
    )
    .fetch_one(session)
    .await
    .unwrap()
}
