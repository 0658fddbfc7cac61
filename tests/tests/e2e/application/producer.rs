//! The producer crate against a real database.

use std::time::Duration;

use pgsaga_producer::{Error, Saga, SagaStatus, Step, Waiter, status, submit_many};
use pgsaga_tests::Database;

#[tokio::test]
async fn submitting_again_changes_nothing_and_a_rolled_back_saga_never_was() {
    let db = Database::new().await;
    let saga = Saga::new()
        .gid("order-42")
        .unwrap()
        .step(Step::unnamed().action(""))
        .retry_interval(Duration::from_micros(1_500_001))
        .request_timeout(Duration::from_secs(1))
        .retry_limit(3)
        .header("traceparent", "00-1-2-01")
        .label("customer", "7");
    let mut tx = db.pool().begin().await.unwrap();
    assert!(saga.submit(&mut *tx).await.unwrap().created);
    tx.rollback().await.unwrap();
    assert_eq!(status(db.pool(), "order-42").await.unwrap(), None);

    assert!(saga.submit(db.pool()).await.unwrap().created);
    assert!(!saga.submit(db.pool()).await.unwrap().created);
    assert_eq!(status(db.pool(), "order-42").await.unwrap().unwrap().status, SagaStatus::Submitted);
    let row: String = sqlx::query_scalar(
        "select concat_ws(' ', retry_interval, request_timeout, retry_limit, headers, labels) from pgsaga.saga",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(row, r#"00:00:01.500001 00:00:01 3 {"traceparent": "00-1-2-01"} {"customer": "7"}"#);

    let without_gid = Saga::new().step(Step::unnamed().action(""));
    let first = without_gid.submit(db.pool()).await.unwrap();
    let second = without_gid.submit(db.pool()).await.unwrap();
    assert!(first.created && second.created && first.gid != second.gid && first.gid.len() == 36);
    let tasks: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!(tasks, 3, "one first task a saga");
}

#[tokio::test]
async fn many_sagas_go_in_with_one_statement_and_answer_in_their_order() {
    let db = Database::new().await;
    let saga = |label: &str| Saga::new().step(Step::unnamed().action("")).label("n", label);
    saga("old").gid("old").unwrap().submit(db.pool()).await.unwrap();
    let mut sagas = Vec::new();
    for n in 0..600 {
        sagas.push(saga(&format!("made {n}")));
        sagas.push(saga(&format!("given {n}")).gid(format!("given-{}", 599 - n)).unwrap());
    }
    sagas.push(saga("again").gid("old").unwrap());
    sagas.push(saga("twice").gid("given-0").unwrap());
    let submitted = submit_many(db.pool(), &sagas).await.unwrap();
    assert_eq!(submitted.len(), sagas.len());
    let stored: std::collections::HashMap<String, String> =
        sqlx::query_as("select gid, labels ->> 'n' from pgsaga.saga")
            .fetch_all(db.pool())
            .await
            .unwrap()
            .into_iter()
            .collect();
    assert_eq!(stored.len(), 1_201);
    for n in 0..600 {
        let (made, given) = (&submitted[2 * n], &submitted[2 * n + 1]);
        assert!(made.created && given.created);
        assert_eq!(stored[&made.gid], format!("made {n}"));
        assert_eq!(
            (given.gid.clone(), &stored[&given.gid]),
            (format!("given-{}", 599 - n), &format!("given {n}"))
        );
    }
    assert!(!submitted[1_200].created && !submitted[1_201].created);
    assert_eq!((submitted[1_200].gid.as_str(), stored["old"].as_str()), ("old", "old"));
    let tasks: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.task").fetch_one(db.pool()).await.unwrap();
    assert_eq!(tasks, 1_201, "one first task a saga");

    let bad = [saga("x"), Saga::new()];
    assert!(matches!(submit_many(db.pool(), &bad).await, Err(Error::InvalidInBatch { index: 1, .. })));
    assert_eq!(submit_many(db.pool(), &[]).await.unwrap(), []);
}

/// No poll storm: what a thousand waiters ask of the database in two seconds.
#[tokio::test]
async fn a_thousand_waiters_cost_the_database_next_to_nothing() {
    let (db, waiter) = a_thousand_sagas().await;
    let observer = Database::new().await;
    let committed = async || -> i64 {
        let name: String = db.url().split('/').nth(3).unwrap().split('?').next().unwrap().to_owned();
        sqlx::query_scalar("select xact_commit from pg_stat_database where datname = $1")
            .bind(name)
            .fetch_one(observer.pool())
            .await
            .unwrap()
    };
    let before = committed().await;
    let waits = (0..1_000).map(|n| waiter.wait(format!("g{n}"), Duration::from_secs(2)));
    for wait in futures_util::future::join_all(waits).await {
        assert!(matches!(wait, Err(Error::Deadline { .. })));
    }
    // Statistics arrive late, but those of two seconds ago have.
    let statements = committed().await - before;
    assert!((1..100).contains(&statements), "{statements} statements in two seconds");
}

#[tokio::test]
async fn a_thousand_waiters_each_get_their_answer() {
    let (db, waiter) = a_thousand_sagas().await;
    let waits: Vec<_> = (0..1_000)
        .map(|n| {
            let waiter = waiter.clone();
            tokio::spawn(async move { waiter.wait(format!("g{n}"), Duration::from_secs(60)).await })
        })
        .collect();
    assert!(matches!(
        waiter.wait("g1", Duration::from_millis(100)).await,
        Err(Error::Deadline { status: Some(SagaStatus::Submitted), .. })
    ));
    assert!(
        matches!(waiter.wait("absent", Duration::from_millis(100)).await, Err(Error::Unknown { gid }) if gid == "absent")
    );
    sqlx::query("update pgsaga.saga set status = 'stuck', reason = 'pay: no' where gid = 'g7'")
        .execute(db.pool())
        .await
        .unwrap();
    sqlx::query("update pgsaga.saga set status = 'succeeded', finished_at = now() where gid <> 'g7'")
        .execute(db.pool())
        .await
        .unwrap();
    for (n, wait) in waits.into_iter().enumerate() {
        let ended = wait.await.unwrap().unwrap();
        let expected =
            if n == 7 { (SagaStatus::Stuck, Some("pay: no")) } else { (SagaStatus::Succeeded, None) };
        assert_eq!((ended.status, ended.reason.as_deref()), expected);
    }
    // Nobody waits any more; the next one starts the looking anew.
    assert_eq!(waiter.wait("g3", Duration::from_secs(60)).await.unwrap().status, SagaStatus::Succeeded);

    db.pool().close().await;
    assert!(matches!(
        waiter.wait("g3", Duration::from_millis(50)).await,
        Err(Error::Deadline { status: None, database: Some(_), .. })
    ));
}

/// The sagas `g0` to `g999`, and somebody to wait for them. No worker runs.
async fn a_thousand_sagas() -> (Database, Waiter) {
    let db = Database::new().await;
    let sagas: Vec<_> = (0..1_000)
        .map(|n| Saga::new().gid(format!("g{n}")).unwrap().step(Step::unnamed().action("")))
        .collect();
    submit_many(db.pool(), &sagas).await.unwrap();
    let waiter = Waiter::new(db.pool().clone());
    (db, waiter)
}
