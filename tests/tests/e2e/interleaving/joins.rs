//! Parallel sagas: a settle writes only what was planned from the row as it stands (docs/races.md,
//! R7).

use pgsaga_sql::query::{self, NewTask, ParallelSaga, ParallelTask};
use pgsaga_tests::scene::{Scene, broken};
use serde_json::json;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::session::{Claimed, claim, connect, declare_dead, register, rescue};

/// Two steps that end at the same moment, and one that waits for both.
struct Join {
    scene: Scene,
    session: PgConnection,
    /// Holds `a`.
    one: i64,
    a: Claimed,
    /// Holds `b`.
    two: i64,
    b: Claimed,
}

impl Join {
    async fn claimed_by_two() -> Join {
        let scene = Scene::new().await;
        let saga = scene.saga("s").step("a").step("b").with("after", json!([]));
        saga.step("join").with("after", json!(["a", "b"])).insert().await;
        let mut session = connect(&scene).await;
        let (one, two) = (register(&mut session).await, register(&mut session).await);
        let mut first = claim(&mut session, one, 1).await.remove(0);
        let mut second = claim(&mut session, two, 1).await.remove(0);
        let (mut one, mut two) = (one, two);
        if first.step > second.step {
            (first, second, one, two) = (second, first, two, one);
        }
        Join { scene, session, one, a: first, two, b: second }
    }

    /// What a worker reads before it plans.
    async fn version(&mut self) -> (i32, String) {
        let row = sqlx::query(query::PROGRESS).bind(vec![self.a.saga_id]).fetch_one(&mut self.session).await;
        let row = row.unwrap();
        (row.get("version"), row.get("progress"))
    }

    /// Settles a success that was planned from `version`; whether it was applied.
    async fn settle(
        &mut self,
        worker: i64,
        task: &Claimed,
        version: i32,
        progress: &str,
        join: bool,
    ) -> bool {
        let mut settle = query::SettleParallel { worker_id: worker, ..query::SettleParallel::default() };
        settle.tasks.push(ParallelTask {
            task_id: task.id,
            epoch: task.epoch,
            saga_id: task.saga_id,
            outcome: Some("success"),
            status_code: Some(200),
            duration_us: Some(1000),
            ..ParallelTask::default()
        });
        settle.sagas.push(ParallelSaga {
            saga_id: task.saga_id,
            known_version: version,
            progress: Some(progress),
            keeps_deadline: true,
            ..ParallelSaga::default()
        });
        if join {
            settle.new_tasks.push(NewTask {
                saga_id: task.saga_id,
                step: 3,
                op: "action",
                participant: "",
                wait_us: None,
            });
        }
        !settle.query().fetch_all(&mut self.session).await.unwrap().is_empty()
    }
}

/// The second waits for nothing and sees that it is late; planned anew, it starts the join.
#[tokio::test]
async fn of_two_settles_that_were_planned_from_one_version_the_second_plans_anew() {
    let mut join = Join::claimed_by_two().await;
    let (one, a, two, b) = (join.one, join.a.clone(), join.two, join.b.clone());
    let (version, progress) = join.version().await;
    assert_eq!(progress, "aa.");
    assert!(join.settle(one, &a, version, "da.", false).await);
    assert!(
        !join.settle(two, &b, version, "ad.", false).await,
        "the join is lost: neither has seen the other"
    );
    let (version, progress) = join.version().await;
    assert_eq!(progress, "da.");
    assert!(join.settle(two, &b, version, "dda", true).await);
    assert_eq!(broken(join.scene.pool()).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_planned_before_a_rescue_is_planned_anew() {
    let mut join = Join::claimed_by_two().await;
    let (one, a, two) = (join.one, join.a.clone(), join.two);
    let (version, _) = join.version().await;
    assert_eq!(declare_dead(&mut join.session, two).await, 1);
    assert_eq!(rescue(&mut join.session, two).await, 1);
    assert!(
        !join.settle(one, &a, version, "da.", false).await,
        "a settle goes past the rescue that it has not seen"
    );
    let (version, _) = join.version().await;
    assert!(join.settle(one, &a, version, "da.", false).await);
    assert_eq!(broken(join.scene.pool()).await, Vec::<String>::new());
}

/// A retry that a person asks for interrupts no task: only the version tells of it.
#[tokio::test]
async fn what_was_planned_before_a_decision_is_planned_anew() {
    let mut join = Join::claimed_by_two().await;
    let (one, a) = (join.one, join.a.clone());
    sqlx::query("update pgsaga.task set worker = null, run_at = run_at + interval '1 hour' where id = $1")
        .bind(join.b.id)
        .execute(&mut join.session)
        .await
        .unwrap();
    let (version, _) = join.version().await;
    sqlx::raw_sql("select pgsaga.retry('s')").execute(&mut join.session).await.unwrap();
    let applied = join.settle(one, &a, version, "da.", false).await;
    assert!(!applied, "a settle goes past the decision that it has not seen");
    let (version, _) = join.version().await;
    assert!(join.settle(one, &a, version, "da.", false).await);
    assert_eq!(broken(join.scene.pool()).await, Vec::<String>::new());
}
