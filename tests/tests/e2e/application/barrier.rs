//! The participant's barrier: docs/races.md, R15, and DTM's rules.

use std::time::Duration;

use pgsaga_participant::{Barrier, Error, Verdict};
use pgsaga_tests::Database;
use sqlx::{Acquire as _, AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};

#[tokio::test]
async fn the_barrier_lets_each_op_do_its_work_once_and_nothing_be_undone_that_was_not_done() {
    let db = Database::new().await;
    let pool = db.pool();
    let (one, two) = tokio::join!(Barrier::install(pool), Barrier::install(pool));
    one.and(two).unwrap();

    assert_eq!(enter(pool, "a", "action").await, Verdict::Proceed);
    assert_eq!(enter(pool, "a", "action").await, Verdict::Skip, "a repeated action");
    assert_eq!(enter(pool, "a", "compensate").await, Verdict::Proceed);
    assert_eq!(enter(pool, "a", "compensate").await, Verdict::Skip, "a repeated compensation");
    for (step, forward, backward) in
        [("b", "action", "compensate"), ("c", "try", "cancel"), ("d", "action", "rollback")]
    {
        assert_eq!(enter(pool, step, backward).await, Verdict::Skip, "nothing to undo: {backward}");
        assert_eq!(enter(pool, step, forward).await, Verdict::Skip, "a late {forward}");
        assert_eq!(enter(pool, step, backward).await, Verdict::Skip, "again: {backward}");
    }
    assert_eq!(enter(pool, "e", "try").await, Verdict::Proceed);
    assert_eq!(enter(pool, "e", "confirm").await, Verdict::Proceed);
    assert_eq!(enter(pool, "e", "confirm").await, Verdict::Skip);

    // Work that rolls back takes the barrier's row along; several uses in one handler are numbered.
    let mut barrier = barrier("f", "action");
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(barrier.enter(&mut tx).await.unwrap(), Verdict::Proceed);
    assert_eq!(barrier.enter(&mut tx).await.unwrap(), Verdict::Proceed);
    tx.rollback().await.unwrap();
    assert_eq!(enter(pool, "f", "compensate").await, Verdict::Skip);

    let mut connection = pool.acquire().await.unwrap();
    assert!(matches!(barrier.enter(&mut connection).await, Err(Error::NoTransaction)));
    drop(connection);

    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', trans_type, gid, op, barrier_id, reason) from dtm_barrier.barrier where branch_id = 'b' order by op",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(rows, ["saga g action 01 compensate", "saga g compensate 01 compensate"]);
}

/// The login of a participant seldom owns the schema.
#[tokio::test]
async fn a_participants_login_may_enter_once_it_is_allowed_and_nothing_else() {
    let db = Database::new().await;
    let file = include_str!("../../../../producer/participant/sql/barrier.sql");
    for _ in 0..2 {
        sqlx::raw_sql(file).execute(db.pool()).await.unwrap();
    }
    let user = format!("{}_payments", db.name());
    let create = format!("create role \"{user}\" login");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(db.pool()).await.unwrap();
    let url = db.url().replace("postgres://postgres@", &format!("postgres://{user}@"));
    let mut login = PgConnection::connect(&url).await.unwrap();
    let enter = "select dtm_barrier.enter('saga', 'g', 'pay', 'action')";
    let refused = async |login: &mut PgConnection, statement: &str| {
        let error = login.execute(AssertSqlSafe(statement.to_owned())).await.expect_err(statement);
        assert_eq!(
            error.as_database_error().and_then(|error| error.code()).as_deref(),
            Some("42501"),
            "{error}"
        );
    };
    refused(&mut login, enter).await;

    // As the head of the file says it.
    let allow = file.lines().find_map(|line| line.strip_prefix("--   select dtm_barrier.allow(")).unwrap();
    assert_eq!(allow, "'payments');");
    for _ in 0..2 {
        let allow = format!("select dtm_barrier.allow('{user}')");
        sqlx::raw_sql(AssertSqlSafe(allow)).execute(db.pool()).await.unwrap();
    }
    let entered: bool = sqlx::query_scalar(enter).fetch_one(&mut login).await.unwrap();
    assert!(entered);
    for statement in [
        "delete from dtm_barrier.barrier",
        "update dtm_barrier.barrier set op = 'cancel'",
        "select setval('dtm_barrier.barrier_seq', 1)",
        "create table dtm_barrier.mine ()",
        "select dtm_barrier.allow('pgsaga_reader')",
    ] {
        refused(&mut login, statement).await;
    }
}

/// A second use under one key would look like a repeated call, and half of the work would be left
/// out.
#[tokio::test]
async fn a_second_enter_with_one_key_in_one_transaction_raises() {
    let db = Database::new().await;
    let pool = db.pool();
    Barrier::install(pool).await.unwrap();
    let enter = async |connection: &mut PgConnection, op: &str, barrier_id: &str| -> Result<bool, String> {
        sqlx::query_scalar("select dtm_barrier.enter('saga', 'g', 'pay', $1, $2)")
            .bind(op)
            .bind(barrier_id)
            .fetch_one(connection)
            .await
            .map_err(|error: sqlx::Error| error.as_database_error().unwrap().message().to_owned())
    };
    let again = "barrier_id: found \"01\" again for the action of branch \"pay\" in one transaction; allowed: another \
        barrier_id for each use: 01, 02, …";

    let mut tx = pool.begin().await.unwrap();
    assert_eq!(enter(&mut tx, "action", "01").await, Ok(true));
    assert_eq!(enter(&mut tx, "action", "02").await, Ok(true), "another use");
    assert_eq!(enter(&mut tx, "compensate", "01").await, Ok(true), "another op");
    assert_eq!(enter(&mut tx, "action", "01").await, Err(again.to_owned()));
    tx.rollback().await.unwrap();

    // What a savepoint takes back was not entered.
    let mut tx = pool.begin().await.unwrap();
    let mut savepoint = tx.begin().await.unwrap();
    assert_eq!(enter(&mut savepoint, "action", "01").await, Ok(true));
    savepoint.rollback().await.unwrap();
    let mut savepoint = tx.begin().await.unwrap();
    assert_eq!(enter(&mut savepoint, "action", "01").await, Ok(true));
    savepoint.commit().await.unwrap();
    let mut savepoint = tx.begin().await.unwrap();
    assert_eq!(enter(&mut savepoint, "action", "01").await, Err(again.to_owned()), "of an outer transaction");
    savepoint.rollback().await.unwrap();
    tx.commit().await.unwrap();

    // A repeated call is another transaction, also on the same connection.
    let mut connection = pool.acquire().await.unwrap();
    for _ in 0..2 {
        let mut tx = connection.begin().await.unwrap();
        assert_eq!(enter(&mut tx, "action", "01").await, Ok(false));
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_compensation_waits_for_its_action_in_flight() {
    let db = Database::new().await;
    Barrier::install(db.pool()).await.unwrap();
    for commit in [true, false] {
        let step = if commit { "kept" } else { "rolled-back" };
        let mut tx = db.pool().begin().await.unwrap();
        assert_eq!(barrier(step, "action").enter(&mut tx).await.unwrap(), Verdict::Proceed);
        let pool = db.pool().clone();
        let compensation = tokio::spawn(async move { enter(&pool, step, "compensate").await });
        pgsaga_tests::eventually(Duration::from_secs(30), "the compensation waits", async || {
            let waiting: bool = sqlx::query_scalar(
                "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
            )
            .fetch_one(db.pool())
            .await
            .unwrap();
            waiting.then_some(())
        })
        .await;
        if commit {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        let expected = if commit { Verdict::Proceed } else { Verdict::Skip };
        assert_eq!(compensation.await.unwrap(), expected, "{step}");
    }
}

fn barrier(step: &str, op: &str) -> Barrier {
    Barrier::from_query(&format!("gid=g&trans_type=saga&branch_id={step}&op={op}")).unwrap()
}

async fn enter(pool: &PgPool, step: &str, op: &str) -> Verdict {
    let mut tx = pool.begin().await.unwrap();
    let verdict = barrier(step, op).enter(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    verdict
}
