//! A standby that lacks the last of the primary's WAL: what it lacks is lost, and it gives the same
//! numbers again.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use pgsaga_sql::query;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, Pair, Replication, Worker};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::session::{Claimed, Ends, claim, claim_on, connect, insert, register, settle_on, step_of};

/// More than the numbers that a sequence writes to the WAL ahead.
const LOST: usize = 48;

/// The largest number given so far.
async fn given(scene: &Scene, sequence: &'static str) -> i64 {
    let last = AssertSqlSafe(format!("select last_value from pgsaga.{sequence}"));
    sqlx::query_scalar(last).fetch_one(scene.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asynchronous_standby_lacks_is_lost_whole_and_its_numbers_are_given_again_without_harm() {
    let pair = Pair::new(Replication::Asynchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    let gate = Gate::new();
    scene.workers.push(Worker::spawn(&pair.url(&scene.db), &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    let held = Behaviour::Sequence(vec![Behaviour::Ok.behind(&gate)]);
    scene
        .saga("kept")
        .column("request_timeout", "'60 seconds'")
        .step("pay")
        .step("ship")
        .action(held.clone())
        .insert()
        .await;
    scene.participant.wait_for_calls(2, PATIENCE).await;
    pair.caught_up().await;
    pair.cut_replication().await;

    // Their first calls are still open when the other history begins.
    for n in 0..LOST {
        scene
            .saga(&format!("lost-{n}"))
            .column("request_timeout", "'60 seconds'")
            .step("pay")
            .action(held.clone())
            .step("ship")
            .insert()
            .await;
    }
    scene.participant.wait_for_calls(2 + LOST, PATIENCE).await;
    let (task, saga) = (given(&scene, "task_id_seq").await, given(&scene, "saga_id_seq").await);
    pair.kill_primary();
    pair.promote().await;
    scene.db.move_to(&pair.standby);
    scene.workers[0].wait_for_log("continues another history", PATIENCE).await;
    scene.workers[0].ready().await;
    assert!(given(&scene, "task_id_seq").await < task, "the control: the numbers of tasks are given again");
    assert!(given(&scene, "saga_id_seq").await < saga, "the control: so are those of sagas");
    for n in 0..2 * LOST {
        scene.saga(&format!("new-{n}")).step("pay").step("ship").insert().await;
    }
    scene.ended("new-60").await;
    gate.open();
    scene.all_ended(PATIENCE).await;
    for n in 0..2 * LOST {
        let gid = format!("new-{n}");
        assert_eq!(scene.participant.ops_for(&gid), ["pay action", "ship action"], "{gid}");
        assert_eq!(scene.ended(&gid).await.0, "succeeded");
    }
    let (status, _) = scene.ended("kept").await;
    assert_eq!(status, "succeeded");
    assert_eq!(
        scene.history("kept").await,
        ["pay action 1 success", "ship action 1 unknown", "ship action 2 success"]
    );
    let sagas: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.saga").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(sagas as usize, 2 * LOST + 1, "nothing is left of the lost ones");
    assert!(
        (0..LOST).all(|n| scene.participant.ops_for(&format!("lost-{n}")) == ["pay action"]),
        "nobody goes on with what is lost"
    );
    scene.healthy().await;
    assert!(scene.workers[0].is_running());
}

/// A worker's memory of the lost part names (task, worker, epoch). Each of the three is given
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_fact_of_a_lost_history_settles_nothing_on_the_server_that_was_promoted() {
    let pair = Pair::new(Replication::Asynchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    let mut old = connect(&scene).await;
    let worker = register(&mut old).await;
    let known: DateTime<Utc> =
        sqlx::query_scalar("select pg_postmaster_start_time()").fetch_one(&mut old).await.unwrap();
    pair.caught_up().await;
    pair.cut_replication().await;
    insert(&scene, LOST, 2).await;
    let facts = claim(&mut old, worker, LOST as i64).await;
    assert_eq!(facts.len(), LOST);
    pair.kill_primary();
    pair.promote().await;
    scene.db.move_to(&pair.standby);

    for n in 0..2 * LOST {
        scene.saga(&format!("new-{n}")).step("pay").step("ship").insert().await;
    }
    let mut new = connect(&scene).await;
    let epoch = DateTime::UNIX_EPOCH;
    assert_eq!(claim_on(&mut new, query::Claim::SQL, worker, 1000, epoch, Some(known)).await.len(), 0);
    let claimed = claim(&mut new, worker, 1000).await;
    assert_eq!(claimed.len(), 2 * LOST, "the control: without the server's name they are claimed");
    let again: Vec<&Claimed> = facts
        .iter()
        .filter(|fact| {
            claimed.iter().any(|now| (now.id, now.epoch, now.step) == (fact.id, fact.epoch, fact.step))
        })
        .collect();
    assert!(again.len() >= 2, "another saga's task under the same number: {again:?}");

    let settle = async |new: &mut PgConnection, fact: &Claimed, server| {
        let fact = [fact.clone()];
        let settle = settle_on(query::Settle::SQL, worker, &fact, Ends::Advances, server);
        settle.fetch_all(new).await.unwrap().len()
    };
    assert_eq!(settle(&mut new, again[0], Some(known)).await, 0);
    assert_eq!(step_of(&scene, again[0]).await, 1);
    assert!(settle(&mut new, again[1], None).await > 0);
    assert_eq!(
        step_of(&scene, again[1]).await,
        2,
        "the control: without the server's name a step of another saga is skipped without a call"
    );
}

/// Two workers with one id would take each other's claims for their own.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_worker_is_never_given_again_though_the_sequence_steps_back() {
    let pair = Pair::new(Replication::Asynchronous).await;
    let mut scene = Scene::on(&pair.primary).await;
    let mut old = connect(&scene).await;
    pair.caught_up().await;
    pair.cut_replication().await;
    let by_sequence =
        "insert into pgsaga.worker (lease_ms, host, pid, version) values (1, 'x', 1, 'x') returning id";
    let ids = async |session: &mut PgConnection| {
        let (mut random, mut numbered) = (HashSet::new(), HashSet::new());
        for _ in 0..LOST {
            random.insert(register(session).await);
            numbered
                .insert(sqlx::query_scalar::<_, i64>(by_sequence).fetch_one(&mut *session).await.unwrap());
        }
        (random, numbered)
    };
    let (random, numbered) = ids(&mut old).await;
    pair.kill_primary();
    pair.promote().await;
    scene.db.move_to(&pair.standby);
    let mut new = connect(&scene).await;
    let (random_again, numbered_again) = ids(&mut new).await;
    assert_eq!(random.len(), LOST);
    assert!(random.iter().all(|id| (1..1 << 52).contains(id)));
    assert!(random.is_disjoint(&random_again));
    assert!(!numbered.is_disjoint(&numbered_again), "the control: a sequence gives them again");
    drop(PgConnection::close(new).await);
}
