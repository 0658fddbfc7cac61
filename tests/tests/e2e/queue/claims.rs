//! What a claim must find.

use chrono::{DateTime, Utc};
use pgsaga_sql::query;
use pgsaga_tests::command::run;
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};
use sqlx::postgres::PgConnection;

use crate::session::{
    Ends, claim_from, claims, connect, declare_dead, hand_back, insert, register, rescue, settle,
};

/// A watermark that has just moved: every transaction that began before has ended.
async fn watermark(session: &mut PgConnection) -> DateTime<Utc> {
    sqlx::query_scalar("select clock_timestamp()").fetch_one(session).await.unwrap()
}

async fn found_from(session: &mut PgConnection, watermark: DateTime<Utc>) -> usize {
    let worker = register(session).await;
    claim_from(session, query::Claim::SQL, worker, 10, watermark).await.len()
}

/// docs/races.md, R18: the scan starts at the watermark, so what becomes due must lie above every
/// watermark that there may be.
#[tokio::test]
async fn a_saga_whose_time_was_long_ago_is_queued_above_every_watermark() {
    let scene = Scene::new().await;
    let mut session = connect(&scene).await;
    let watermark = watermark(&mut session).await;
    scene.saga("s").step("pay").column("run_at", "clock_timestamp() - interval '1 hour'").insert().await;
    assert_eq!(found_from(&mut session, watermark).await, 1, "an insert is raised to now");
}

#[tokio::test]
async fn what_was_handed_back_lies_above_every_watermark() {
    let mut held = claims(1, 1).await;
    let watermark = watermark(&mut held.session).await;
    hand_back(&mut held.session, held.worker, &held.tasks).await;
    assert_eq!(found_from(&mut held.session, watermark).await, 1, "a hand-back is raised to now");
}

#[tokio::test]
async fn what_was_rescued_lies_above_every_watermark() {
    let mut held = claims(1, 1).await;
    assert_eq!(declare_dead(&mut held.session, held.worker).await, 1);
    let watermark = watermark(&mut held.session).await;
    assert_eq!(rescue(&mut held.session, held.worker).await, 1);
    assert_eq!(found_from(&mut held.session, watermark).await, 1, "a rescue is raised to now");
}

#[tokio::test]
async fn a_try_whose_deadline_has_passed_lies_above_every_watermark() {
    let mut held = claims(1, 1).await;
    sqlx::raw_sql("update pgsaga.task set deadline = clock_timestamp() - interval '1 hour'")
        .execute(&mut held.session)
        .await
        .unwrap();
    let watermark = watermark(&mut held.session).await;
    assert_eq!(settle(&mut held.session, held.worker, &held.tasks, Ends::Again).await.len(), 1);
    assert_eq!(found_from(&mut held.session, watermark).await, 1, "a retry is raised to now");
}

#[tokio::test]
async fn what_a_paused_queue_keeps_back_lies_above_every_watermark() {
    let mut held = claims(1, 2).await;
    sqlx::raw_sql("select pgsaga.pause('default')").execute(&mut held.session).await.unwrap();
    let watermark = watermark(&mut held.session).await;
    assert_eq!(settle(&mut held.session, held.worker, &held.tasks, Ends::Advances).await.len(), 1);
    sqlx::raw_sql("select pgsaga.resume('default')").execute(&mut held.session).await.unwrap();
    assert_eq!(found_from(&mut held.session, watermark).await, 1, "a release is raised to now");
}

/// docs/races.md, R2: rows are decoded one by one, so one that cannot be costs its own saga only,
/// which becomes stuck.
#[tokio::test]
async fn a_row_that_cannot_be_decoded_hides_no_other_of_its_claim() {
    let mut scene = Scene::new().await;
    insert(&scene, 12, 1).await;
    // Neither is what an INSERT lets through: the first cannot be read, the second is no
    // definition.
    sqlx::raw_sql(
        "update pgsaga.saga set fresh_keys = '7' where gid = 's003';
         update pgsaga.saga set steps = '[{\"action\": 7}]' where gid = 's007'",
    )
    .execute(scene.pool())
    .await
    .unwrap();
    scene.start_worker(&[]).await;
    let failed = eventually(PATIENCE, "it has claimed", async || {
        let hit = scene.metric("pgsaga_claims_total{result=\"hit\"}").await;
        let failed = scene.metric("pgsaga_claims_total{result=\"error\"}").await;
        (hit + failed > 0.0).then_some(failed)
    })
    .await;
    assert_eq!(failed, 0.0, "a claim failed because of one row");
    for n in (0..12).filter(|n| ![3, 7].contains(n)) {
        assert_eq!(scene.ended(&format!("s{n:03}")).await.0, "succeeded");
    }
    for (gid, says) in [("s003", "step-0: fresh_keys: found "), ("s007", "01: steps cannot be read: ")] {
        let (status, reason) = scene.ended(gid).await;
        let reason = reason.unwrap();
        assert!(status == "stuck" && reason.starts_with(says), "{gid}: {status}: {reason}");
        let said = scene.workers[0].wait_for_log(gid, PATIENCE).await;
        assert!(said.contains("a row cannot be read: its saga needs a person"), "{said}");
    }
    assert_eq!(scene.metric("pgsaga_unreadable_total").await, 2.0);
    // Mended, it goes on.
    let mend = "update pgsaga.saga set fresh_keys = null where gid = 's003'";
    sqlx::raw_sql(mend).execute(scene.pool()).await.unwrap();
    run(&scene.db, &["retry", "s003"]).fine();
    assert_eq!(scene.ended("s003").await.0, "succeeded");
    run(&scene.db, &["force", "s007", "--comment", "nobody needs it"]).fine();
    assert_eq!(scene.ended("s007").await.0, "failed");
}
