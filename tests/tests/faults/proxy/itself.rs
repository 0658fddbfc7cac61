//! The proxy does what it says.

use std::time::Duration;

use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{Database, Fault, Proxy, eventually};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::timeout;

use super::cluster;

/// Long enough to show that something hangs.
const SILENCE: Duration = Duration::from_millis(300);

async fn start() -> (Database, Proxy) {
    let db = cluster().await.database().await;
    sqlx::raw_sql("create table noted (n int)").execute(db.pool()).await.unwrap();
    let proxy = Proxy::start(db.tcp_url().unwrap()).await.unwrap();
    (db, proxy)
}

async fn connect(proxy: &Proxy) -> PgConnection {
    PgConnection::connect(proxy.url()).await.unwrap()
}

/// Prepared on its first use, as a worker's statements are.
async fn note(connection: &mut PgConnection, n: i32) -> Result<(), sqlx::Error> {
    let statement = "-- Notes a number\ninsert into noted values ($1)";
    sqlx::query(statement).bind(n).execute(connection).await.map(drop)
}

async fn run(connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}

async fn noted(db: &Database) -> Vec<i32> {
    sqlx::query_scalar("select n from noted order by n").fetch_all(db.pool()).await.unwrap()
}

/// Waits until the server has so many sessions of the proxy's clients.
async fn sessions(db: &Database, expected: i64) {
    eventually(PATIENCE, &format!("{expected} sessions"), async || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() and client_addr is not null";
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db.pool()).await.unwrap();
        (count == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reply_that_is_cut_off_was_committed_and_a_request_that_is_cut_off_was_not() {
    let (db, proxy) = start().await;
    let mut first = connect(&proxy).await;
    note(&mut first, 1).await.unwrap();
    // By now it is prepared: the marker is nowhere in what is sent.
    let lost = proxy.inject(Fault::cut_before_reply("-- Notes a number"));
    note(&mut first, 2).await.unwrap_err();
    assert_eq!((noted(&db).await, lost.struck()), (vec![1, 2], 1));

    let mut second = connect(&proxy).await;
    note(&mut second, 3).await.unwrap();
    let never = proxy.inject(Fault::cut_before_request("-- Notes a number").times(2));
    note(&mut second, 4).await.unwrap_err();
    let mut third = connect(&proxy).await;
    run(&mut third, "select 1").await.unwrap();
    note(&mut third, 5).await.unwrap_err();
    let mut fourth = connect(&proxy).await;
    note(&mut fourth, 6).await.unwrap();
    assert_eq!((noted(&db).await, never.struck()), (vec![1, 2, 3, 6], 2));
}

#[tokio::test]
async fn the_reply_of_a_commit_is_cut_off_and_the_transaction_stands() {
    let (db, proxy) = start().await;
    let mut connection = connect(&proxy).await;
    let lost = proxy.inject(Fault::cut_before_reply("COMMIT"));
    let mut transaction = connection.begin().await.unwrap();
    note(&mut transaction, 1).await.unwrap();
    assert_eq!(noted(&db).await, Vec::<i32>::new());
    transaction.commit().await.unwrap_err();
    assert_eq!((noted(&db).await, lost.struck()), (vec![1], 1));
}

#[tokio::test]
async fn what_is_stalled_arrives_when_the_stall_is_over_also_what_its_client_has_given_up() {
    let (db, proxy) = start().await;
    let (mut one, mut other) = (connect(&proxy).await, connect(&proxy).await);
    let stalled = proxy.inject(Fault::stall().always());
    assert_eq!(stalled.struck(), 2);
    timeout(SILENCE, note(&mut one, 1)).await.unwrap_err();
    drop(one);
    let mut late = {
        let mut note = Box::pin(note(&mut other, 2));
        timeout(SILENCE, &mut note).await.unwrap_err();
        let mut third = Box::pin(PgConnection::connect(proxy.url()));
        timeout(SILENCE, &mut third).await.unwrap_err();
        assert_eq!(noted(&db).await, Vec::<i32>::new());
        stalled.lift();
        note.await.unwrap();
        third.await.unwrap()
    };
    run(&mut late, "select 1").await.unwrap();
    assert_eq!(stalled.struck(), 3);
    // The first gave up while it prepared: its connection is gone on the server, too.
    sessions(&db, 2).await;
    assert_eq!(noted(&db).await, [2]);
}

#[tokio::test]
async fn a_delay_is_paid_on_the_way_there_and_on_the_way_back() {
    let (_db, proxy) = start().await;
    let mut connection = connect(&proxy).await;
    let by = Duration::from_millis(100);
    let slow = proxy.inject(Fault::delay(by).always());
    let started = std::time::Instant::now();
    run(&mut connection, "select 1").await.unwrap();
    assert!(started.elapsed() >= 2 * by, "{:?}", started.elapsed());
    slow.lift();
    let started = std::time::Instant::now();
    run(&mut connection, "select 1").await.unwrap();
    assert!(started.elapsed() < 2 * by && slow.struck() == 1, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_reset_ends_both_sides_of_those_that_are_meant() {
    let (db, proxy) = start().await;
    let (mut meant, mut spared) = (connect(&proxy).await, connect(&proxy).await);
    note(&mut meant, 1).await.unwrap();
    run(&mut spared, "select 1").await.unwrap();
    let reset = proxy.inject(Fault::reset().on("-- Notes").now());
    assert_eq!(reset.struck(), 1);
    sessions(&db, 1).await;
    match note(&mut meant, 2).await.unwrap_err() {
        sqlx::Error::Io(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
    run(&mut spared, "select 1").await.unwrap();
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn half_open_connections_are_silent_on_one_side_and_gone_on_the_other() {
    let (db, proxy) = start().await;
    let mut silent = connect(&proxy).await;
    let gone = proxy.inject(Fault::server_gone().now());
    sessions(&db, 0).await;
    {
        let mut asking = Box::pin(run(&mut silent, "select 1"));
        timeout(SILENCE, &mut asking).await.unwrap_err();
        gone.lift();
        asking.await.unwrap_err();
    }
    let mut vanished = connect(&proxy).await;
    note(&mut vanished, 1).await.unwrap();
    let gone = proxy.inject(Fault::client_gone().on("-- Notes"));
    note(&mut vanished, 2).await.unwrap_err();
    drop(vanished);
    sessions(&db, 1).await;
    gone.lift();
    sessions(&db, 0).await;

    let mut checked = connect(&proxy).await;
    let gone = proxy.inject(Fault::server_gone().after("-- Notes"));
    note(&mut checked, 3).await.unwrap();
    assert_eq!(gone.struck(), 0);
    timeout(SILENCE, checked.ping()).await.unwrap_err();
    assert_eq!(gone.struck(), 1);
}
