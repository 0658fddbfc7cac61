//! The participant's barrier: docs/races.md, R15, and DTM's rules.

use std::time::Duration;

use pgsaga_participant::{Barrier, Error, Verdict};
use pgsaga_tests::Database;
use sqlx::PgPool;

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
