//! The first use of a queue (docs/races.md, R30): each transaction makes a lane of its own, and all
//! lanes of a class are one to workers and to people.

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::session::connect;

/// A producer's session, in a transaction. A wait for another transaction is an error at once.
async fn transaction(scene: &Scene) -> PgConnection {
    let mut session = connect(scene).await;
    session.execute("set role pgsaga_producer; set lock_timeout = '1ms'; begin").await.unwrap();
    session
}

/// Inserts sagas of one step for this queue.
async fn submit(scene: &Scene, session: &mut PgConnection, queue: &str, gids: &[&str]) {
    for gid in gids {
        let steps = scene.saga(gid).step("pay").steps();
        sqlx::query(
            "insert into pgsaga.saga (gid, steps, queue, request_timeout) values ($1, $2, $3, '1 minute')",
        )
        .bind(gid)
        .bind(steps)
        .bind(queue)
        .execute(&mut *session)
        .await
        .unwrap_or_else(|error| panic!("{gid} waits for another transaction: {error}"));
    }
}

async fn lanes(scene: &Scene, queue: &str) -> i64 {
    sqlx::query_scalar("select count(*) from pgsaga.lane where queue = $1")
        .bind(queue)
        .fetch_one(scene.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn transactions_that_use_new_queues_in_any_order_wait_for_nobody() {
    let scene = Scene::with_worker().await;
    let (mut one, mut two) = (transaction(&scene).await, transaction(&scene).await);
    submit(&scene, &mut one, "qa", &["one-a"]).await;
    submit(&scene, &mut two, "qb", &["two-b"]).await;
    submit(&scene, &mut one, "qb", &["one-b"]).await;
    submit(&scene, &mut two, "qa", &["two-a", "two-a-again"]).await;

    // Neither has ended, and everybody else goes on.
    let mut other = transaction(&scene).await;
    submit(&scene, &mut other, "qa", &["other"]).await;
    other.execute("commit").await.unwrap();
    scene.expect("other", "succeeded", None, &["pay action"]).await;

    one.execute("commit").await.unwrap();
    for gid in ["one-a", "one-b"] {
        scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }
    two.execute("rollback").await.unwrap();
    assert_eq!((lanes(&scene, "qa").await, lanes(&scene, "qb").await), (2, 1), "a rollback leaves no lane");

    // From now on a lane is visible, and nobody makes another one.
    let mut later = transaction(&scene).await;
    submit(&scene, &mut later, "qa", &["later"]).await;
    later.execute("commit").await.unwrap();
    scene.expect("later", "succeeded", None, &["pay action"]).await;
    assert_eq!(lanes(&scene, "qa").await, 2);
    scene.healthy().await;
}

/// A class with four lanes: a list has it once, a pause stops all of it, and a worker's limit holds
/// for all of it.
#[tokio::test]
async fn the_lanes_of_a_class_are_one_to_people_and_to_limits() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    let mut sessions = Vec::new();
    for n in 0..4 {
        let mut session = transaction(&scene).await;
        for m in 0..10 {
            let gid = format!("s{n}{m}");
            scene.participant.on(&format!("/{gid}/pay"), "action", Behaviour::Gate(gate.clone()));
            submit(&scene, &mut session, "bulk", &[&gid]).await;
        }
        sessions.push(session);
    }
    for mut session in sessions {
        session.execute("commit").await.unwrap();
    }
    assert_eq!(lanes(&scene, "bulk").await, 4);
    let listed = run(&scene.db, &["queues", "--json"]).fine();
    let bulk: Vec<&str> = listed.lines().filter(|line| line.contains("\"bulk\"")).collect();
    assert!(matches!(&bulk[..], [line] if line.contains("\"due\":40")), "{listed}");

    run(&scene.db, &["pause", "bulk"]).fine();
    scene.start_worker(&["--queue", "bulk=3", "--queue", "default"]).await;
    scene.saga("beside").step("pay").insert().await;
    scene.expect("beside", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.metric("pgsaga_claimed_total").await, 1.0, "nothing of the paused queue is claimed");

    run(&scene.db, &["resume", "bulk"]).fine();
    scene.participant.wait_for_calls(4, PATIENCE).await;
    // Twice the limit, so that the next tasks are at hand.
    eventually(PATIENCE, "the worker holds what it may", async || {
        (scene.metric("pgsaga_claimed_total").await >= 7.0).then_some(())
    })
    .await;
    scene.saga("also").step("pay").insert().await;
    scene.expect("also", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.metric("pgsaga_claimed_total").await, 8.0, "the limit holds for the whole queue");
    assert_eq!(scene.participant.calls().len(), 5, "two of the others, three of the queue");
    gate.open();
    scene.all_ended(PATIENCE).await;
    scene.healthy().await;
}

/// Ids of lanes have gaps, because a transaction that rolls back burns one. Turns of queues must
/// not follow from the ids: with the remainder of a division by the number of lanes, `flood` and
/// `few` would always come in this order.
#[tokio::test]
async fn queues_take_turns_whatever_the_ids_of_their_lanes() {
    let mut scene = Scene::new().await;
    let url = scene.participant.url("/pay");
    for (queue, lane, count) in [("flood", 4, 2000), ("few", 7, 20)] {
        let insert = format!(
            "select setval('pgsaga.lane_id_seq', {lane}, false);
             insert into pgsaga.saga (gid, queue, steps) select '{queue}' || n, '{queue}', '[{{\"action\": \"{url}\"}}]'
             from generate_series(1, {count}) n"
        );
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(scene.pool()).await.unwrap();
    }
    scene.start_worker(&["--concurrency", "4"]).await;
    let succeeded = async |queue: &str| -> i64 {
        sqlx::query_scalar("select count(*) from pgsaga.saga where queue = $1 and status = 'succeeded'")
            .bind(queue)
            .fetch_one(scene.pool())
            .await
            .unwrap()
    };
    eventually(PATIENCE, "the few are done", async || (succeeded("few").await == 20).then_some(())).await;
    assert!(succeeded("flood").await < 1000, "the few did not wait for the flood");
}
