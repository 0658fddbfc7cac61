//! What the crate asks of the database beside submitting: a start by the database's clock, results,
//! aborts.

use std::collections::BTreeSet;
use std::time::Duration;

use pgsaga_producer::{Error, Producer, Saga, SagaStatus, Status, Step, Waiter, abort, status, submit_many};
use pgsaga_tests::Database;

fn saga(gid: &str) -> Saga {
    Saga::new().gid(gid).unwrap().step(Step::new("a").action("http://a/"))
}

#[tokio::test]
async fn a_delay_is_added_to_the_database_s_clock() {
    let db = Database::new().await;
    let delay = Duration::from_secs(3600);
    saga("one").run_after(delay).submit(db.pool()).await.unwrap();
    submit_many(db.pool(), &[saga("many").run_after(delay), saga("now")]).await.unwrap();
    let late: Vec<String> = sqlx::query_scalar(
        "select gid from pgsaga.saga where run_at - created_at between interval '59 minutes' and '61 minutes' order by gid",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    assert_eq!(late, ["many", "one"]);
}

#[tokio::test]
async fn a_result_is_read_as_it_was_kept() {
    let db = Database::new().await;
    saga("done").submit(db.pool()).await.unwrap();
    let open = status(db.pool(), "done").await.unwrap().unwrap();
    assert_eq!(open, Status { status: SagaStatus::Submitted, reason: None, result: None });
    assert_eq!(open.read_result::<u8>().unwrap(), None);
    sqlx::query(
        r#"update pgsaga.saga set status = 'succeeded', finished_at = now(), result = '{"id": 1.10, "of": ["a"]}'"#,
    )
    .execute(db.pool())
    .await
    .unwrap();
    let ended = Waiter::new(db.pool().clone()).wait("done", Duration::from_secs(30)).await.unwrap();
    assert_eq!(Some(&ended), status(db.pool(), "done").await.unwrap().as_ref());
    assert_eq!(ended.result.as_deref(), Some(r#"{"id": 1.10, "of": ["a"]}"#));
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Answer {
        of: Vec<String>,
    }
    assert_eq!(ended.read_result().unwrap(), Some(Answer { of: vec!["a".to_owned()] }));
}

#[tokio::test]
async fn an_abort_rolls_a_saga_back_or_says_why_it_cannot() {
    let db = Database::new().await;
    saga("open").submit(db.pool()).await.unwrap();
    saga("done").submit(db.pool()).await.unwrap();
    sqlx::query("update pgsaga.saga set status = 'succeeded', finished_at = now() where gid = 'done'")
        .execute(db.pool())
        .await
        .unwrap();
    let why = |error: Error| error.to_string();

    assert_eq!(abort(db.pool(), "open", "changed my mind").await.unwrap(), SagaStatus::Aborting);
    let aborting = status(db.pool(), "open").await.unwrap().unwrap();
    assert_eq!(aborting.status, SagaStatus::Aborting);
    assert!(aborting.reason.unwrap().ends_with("changed my mind"));
    assert_eq!(
        Producer::behind_pgbouncer().abort(db.pool(), "open", "again").await.unwrap(),
        SagaStatus::Aborting
    );

    let unknown = abort(db.pool(), "nobody", "x").await.unwrap_err();
    assert!(matches!(&unknown, Error::NoSaga { gid } if gid == "nobody"), "{unknown:?}");
    assert_eq!(why(unknown), "there is no saga nobody to abort; is its transaction committed?");
    let late = abort(db.pool(), "done", "x").await.unwrap_err();
    assert!(matches!(late, Error::TooLate { .. }), "{late:?}");
    assert!(why(late).starts_with("saga done cannot be aborted: "));
    let empty = abort(db.pool(), "open", "").await.unwrap_err();
    assert!(matches!(empty, Error::Reason { .. }), "{empty:?}");
    assert!(why(empty).starts_with("the reason to abort saga open is refused: "));
}

#[tokio::test]
async fn the_statuses_are_those_that_the_table_allows() {
    let db = Database::new().await;
    let check = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'saga_status_check'";
    let check: String = sqlx::query_scalar(check).fetch_one(db.pool()).await.unwrap();
    let allowed: BTreeSet<&str> = check.split('\'').skip(1).step_by(2).collect();
    assert_eq!(allowed, SagaStatus::ALL.map(SagaStatus::as_str).into(), "{check}");
}

/// An application may be older than the schema.
#[tokio::test]
async fn a_status_that_only_a_newer_release_knows_holds_up_its_own_waiter_only() {
    let db = Database::new().await;
    saga("newer").submit(db.pool()).await.unwrap();
    saga("done").submit(db.pool()).await.unwrap();
    for sql in [
        "alter table pgsaga.saga drop constraint saga_status_check, drop constraint finished_at_when_finished",
        "update pgsaga.saga set status = 'archived', finished_at = now() where gid = 'newer'",
        "update pgsaga.saga set status = 'succeeded', finished_at = now() where gid = 'done'",
    ] {
        sqlx::query(sql).execute(db.pool()).await.unwrap();
    }
    let waiter = Waiter::new(db.pool().clone());
    let (newer, done) = tokio::join!(
        waiter.wait("newer", Duration::from_secs(1)),
        waiter.wait("done", Duration::from_secs(30))
    );
    assert_eq!(done.unwrap().status, SagaStatus::Succeeded);
    assert!(matches!(newer, Err(Error::Deadline { status: None, database: None, .. })), "{newer:?}");
    let refused = status(db.pool(), "newer").await.unwrap_err().to_string();
    assert!(refused.contains("found \"archived\", which this release does not know"), "{refused}");
}
