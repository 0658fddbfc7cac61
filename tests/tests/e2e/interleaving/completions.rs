//! A completion that comes while a worker settles: the settle does not know it, and plans anew.

use pgsaga_sql::query::{self, ParallelSaga, ParallelTask};
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use serde_json::json;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::session::{
    Claimed, Ends, claim, connect, declare_dead, hand_back, register, rescue, settle, settle_statement,
};

/// Two calls, or a call beside a step that waits, and a worker that holds the first call.
struct Held {
    scene: Scene,
    session: PgConnection,
    worker: i64,
    task: Claimed,
}

impl Held {
    async fn sequential() -> Held {
        let scene = Scene::new().await;
        scene.saga("s").step("a").step("b").insert().await;
        Held::claimed(scene).await
    }

    async fn beside_a_wait() -> Held {
        let scene = Scene::new().await;
        let saga = scene.saga("s").step("a").step("approval").waits(86_400.0);
        saga.step("c").with("after", json!(["approval"])).insert().await;
        Held::claimed(scene).await
    }

    async fn claimed(scene: Scene) -> Held {
        let mut session = connect(&scene).await;
        let worker = register(&mut session).await;
        let task = claim(&mut session, worker, 1).await.remove(0);
        Held { scene, session, worker, task }
    }

    async fn version(&mut self) -> i32 {
        let row =
            sqlx::query(query::PROGRESS).bind(vec![self.task.saga_id]).fetch_one(&mut self.session).await;
        row.unwrap().get("version")
    }

    /// Settles the success of `a`, planned from `version`; whether it was applied.
    async fn settle_parallel(&mut self, version: i32, completion: Option<&str>) -> bool {
        let mut statement =
            query::SettleParallel { worker_id: self.worker, ..query::SettleParallel::default() };
        statement.tasks.push(ParallelTask {
            task_id: self.task.id,
            epoch: self.task.epoch,
            saga_id: self.task.saga_id,
            outcome: Some("success"),
            known_completion: completion,
            ..ParallelTask::default()
        });
        statement.sagas.push(ParallelSaga {
            saga_id: self.task.saga_id,
            known_version: version,
            progress: Some("d.."),
            ..ParallelSaga::default()
        });
        !statement.query().fetch_all(&mut self.session).await.unwrap().is_empty()
    }
}

#[tokio::test]
async fn a_settle_that_does_not_know_the_completion_of_its_op_changes_nothing() {
    let mut held = Held::sequential().await;
    held.scene.complete("'s', 'a', 'failure', comment => 'no'").await.unwrap();
    for ends in [Ends::Advances, Ends::Again, Ends::Succeeds] {
        let settled = settle(&mut held.session, held.worker, &[held.task.clone()], ends).await;
        assert_eq!(settled, [0_i64; 0], "a settle goes past a completion that it has not seen");
    }

    let mut held = Held::beside_a_wait().await;
    held.scene.complete("'s', 'a', 'failure', comment => 'no'").await.unwrap();
    let version = held.version().await;
    assert!(
        !held.settle_parallel(version, None).await,
        "a settle goes past a completion that it has not seen"
    );
}

/// The settle's snapshot is older than the completion: it waits for its worker's row meanwhile.
#[tokio::test]
async fn a_settle_whose_snapshot_is_older_than_the_completion_changes_nothing() {
    for in_place in [true, false] {
        let mut held = Held::sequential().await;
        let lock = "begin; select from pgsaga.worker for update";
        let mut other = connect(&held.scene).await;
        sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
        let ends = if in_place { Ends::Advances } else { Ends::Again };
        let statement = settle_statement(query::Settle::SQL, held.worker, &[held.task.clone()], ends);
        let settling = statement.fetch_all(&mut held.session);
        let completing = async {
            eventually(PATIENCE, "the settle waits", async || {
                let waiting = "select count(*) from pg_stat_activity
                               where wait_event_type = 'Lock' and datname = current_database()";
                let count: i64 = sqlx::query_scalar(waiting).fetch_one(held.scene.pool()).await.unwrap();
                (count == 1).then_some(())
            })
            .await;
            held.scene.complete("'s', 'a', 'failure', comment => 'no'").await.unwrap();
            sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
        };
        let (settled, ()) = tokio::join!(settling, completing);
        assert_eq!(
            settled.unwrap().len(),
            0,
            "a settle goes past a completion that came behind its snapshot"
        );
    }
}

/// The plan's progress does not have it, so the settle would write over it.
#[tokio::test]
async fn what_was_planned_before_a_completion_is_planned_anew() {
    let mut held = Held::beside_a_wait().await;
    let before = held.version().await;
    held.scene.complete("'s', 'approval', 'success'").await.unwrap();
    assert!(!held.settle_parallel(before, None).await, "a settle writes over what was reported");
    let progress: String =
        sqlx::query_scalar("select progress from pgsaga.saga").fetch_one(held.scene.pool()).await.unwrap();
    assert_eq!(progress, "ar.");
    assert_eq!(broken(held.scene.pool()).await, Vec::<String>::new());
}

/// Where an advance in place is under way, the completion of its op waits, and comes too late.
#[tokio::test]
async fn a_completion_waits_for_an_advance_that_is_under_way() {
    let mut held = Held::sequential().await;
    sqlx::raw_sql("begin").execute(&mut held.session).await.unwrap();
    let settled = settle(&mut held.session, held.worker, &[held.task.clone()], Ends::Advances).await;
    assert_eq!(settled.len(), 1);
    let (scene, session) = (&held.scene, &mut held.session);
    let committing = async {
        eventually(PATIENCE, "the completion waits", async || {
            let waiting = "select count(*) from pg_stat_activity
                           where wait_event_type = 'Lock' and datname = current_database()";
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(scene.pool()).await.unwrap();
            (count == 1).then_some(())
        })
        .await;
        sqlx::raw_sql("commit").execute(session).await.unwrap();
    };
    let (completed, ()) = tokio::join!(scene.complete("'s', 'a', 'failure', comment => 'no'"), committing);
    let refused = completed.unwrap_err();
    assert_eq!(
        refused.as_database_error().unwrap().message(),
        "the action of step \"a\" of saga s is over, or has not begun"
    );
    let marked = "select count(*) from pgsaga.task where completion is not null";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(marked).fetch_one(scene.pool()).await.unwrap(),
        0,
        "the next step bears it"
    );
}

/// Two sessions report at the same moment: the first counts, the second learns it.
#[tokio::test]
async fn of_two_completions_at_the_same_moment_the_first_counts() {
    let held = Held::sequential().await;
    let mut first = connect(&held.scene).await;
    sqlx::raw_sql("begin; select pgsaga.complete('s', 'a', 'success', '1')")
        .execute(&mut first)
        .await
        .unwrap();
    for (second, refused) in
        [("'success', '1'", false), ("'success', '2'", true), ("'failure', comment => 'no'", true)]
    {
        let committing = async {
            eventually(PATIENCE, "the second waits, or the first has committed", async || {
                let waiting = "select count(*) filter (where wait_event_type = 'Lock') = 1
                                 or not bool_or(state = 'idle in transaction')
                               from pg_stat_activity where datname = current_database()";
                let ready: bool = sqlx::query_scalar(waiting).fetch_one(held.scene.pool()).await.unwrap();
                ready.then_some(())
            })
            .await;
            sqlx::raw_sql("commit").execute(&mut first).await.unwrap();
        };
        let arguments = format!("'s', 'a', {second}");
        let (completed, ()) = tokio::join!(held.scene.complete(&arguments), committing);
        assert_eq!(completed.is_err(), refused, "{second}: {completed:?}");
    }
    assert_eq!(broken(held.scene.pool()).await, Vec::<String>::new());
}

/// Release and rescue leave the mark, and the end of a wait.
#[tokio::test]
async fn a_task_keeps_what_was_reported_of_it_through_a_release_and_a_rescue() {
    let mut held = Held::sequential().await;
    held.scene.complete("'s', 'a', 'success'").await.unwrap();
    let marked = "select completion || ' ' || participant from pgsaga.task";
    let look = async |scene: &Scene| -> Option<String> {
        sqlx::query_scalar(marked).fetch_one(scene.pool()).await.unwrap()
    };
    hand_back(&mut held.session, held.worker, &[held.task.clone()]).await;
    assert_eq!(look(&held.scene).await.as_deref(), Some("success "), "any worker may plan it");
    assert_eq!(claim(&mut held.session, held.worker, 1).await.len(), 1);
    assert_eq!(declare_dead(&mut held.session, held.worker).await, 1);
    assert_eq!(rescue(&mut held.session, held.worker).await, 1);
    assert_eq!(look(&held.scene).await.as_deref(), Some("success "));
}

/// Nobody was called, so nothing was lost.
#[tokio::test]
async fn a_rescue_records_no_try_of_a_wait() {
    let scene = Scene::new().await;
    scene.saga("step").step("approval").waits(0.001).insert().await;
    scene.saga("call").step("a").insert().await;
    let accepted = "update pgsaga.task t set wait = '1 day', wait_ends_at = now() + interval '1 day', attempt = 2, last_outcome = 'ongoing'
                    from pgsaga.saga s where s.id = t.saga_id and s.gid = 'call'";
    sqlx::query(accepted).execute(scene.pool()).await.unwrap();
    let mut session = connect(&scene).await;
    let worker = register(&mut session).await;
    assert_eq!(claim(&mut session, worker, 2).await.len(), 2);
    assert_eq!(declare_dead(&mut session, worker).await, 1);
    assert_eq!(rescue(&mut session, worker).await, 2);
    let kept = "select string_agg(attempt || ' ' || last_outcome || ' ' || lost || ' ' || (wait_ends_at is not null), ', ') from pgsaga.task";
    let kept: String = sqlx::query_scalar(kept).fetch_one(scene.pool()).await.unwrap();
    assert_eq!(kept, "2 ongoing 0 true, 2 ongoing 0 true", "a wait is not lost with its worker");
    assert_eq!(scene.history("step").await, ["approval action 1 ongoing"]);
    assert_eq!(scene.history("call").await, [""; 0]);
}
