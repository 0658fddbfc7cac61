//! Sagas that stand where a test wants them.

use pgsaga_tests::Behaviour::{Ok, Refuse, Status};
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene};
use sqlx::AssertSqlSafe;

/// Its compensation of `stock` is refused: it is stuck. The participant is repaired afterwards.
pub(crate) async fn stuck(scene: &Scene, gid: &str) {
    let saga = scene.saga(gid).step("stock").compensate(Refuse("warehouse closed".into()));
    saga.step("pay").action(Refuse("card declined".into())).insert().await;
    assert_eq!(scene.ended(gid).await.0, "stuck");
    scene.participant.on(&format!("/{gid}/stock"), "compensate", Ok);
}

/// After its first try of `pay` it waits for an hour.
pub(crate) async fn waiting(scene: &Scene, gid: &str) {
    let saga = scene.saga(gid).column("retry_interval", "'1 hour'").step("stock").step("pay");
    saga.action(Status(503)).insert().await;
    eventually(PATIENCE, "the first try is settled", async || {
        (scene.history(gid).await.len() == 2).then_some(())
    })
    .await;
    scene.participant.on(&format!("/{gid}/pay"), "action", Ok);
}

/// Decisions as `"skip by postgres: why"`.
pub(crate) async fn decisions(scene: &Scene, gid: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select concat(decision, ' by ', decided_by, ': ', message) from pgsaga.saga_timeline
         where gid = $1 and kind = 'decision' order by seq",
    )
    .bind(gid)
    .fetch_all(scene.pool())
    .await
    .unwrap()
}

/// A URL that logs in as a new user who is a member of `role` and of nothing else.
pub(crate) async fn login(scene: &Scene, role: &str) -> String {
    let user = format!("{}_{role}", scene.db.name());
    let create = AssertSqlSafe(format!("create role {user} login in role {role}"));
    sqlx::raw_sql(create).execute(scene.pool()).await.unwrap();
    scene.db.url().replace("postgres://postgres@", &format!("postgres://{user}@"))
}
