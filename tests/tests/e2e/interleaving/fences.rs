//! What keeps a worker from writing what is not its own any more.

use pgsaga_sql::query;
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use sqlx::{Connection as _, Row as _};

use crate::session::{
    Claimed, Claims, Ends, claim, claims, connect, declare_dead, hand_back, insert, register, rescue, settle,
};

async fn run_isolated(connection: &mut sqlx::PgConnection, worker: i64, task: &Claimed) -> Option<i32> {
    let statement = sqlx::query(query::RUN_ISOLATED).bind(worker).bind(task.id).bind(task.epoch);
    statement.fetch_optional(connection).await.unwrap().map(|row| row.get("epoch"))
}

/// docs/races.md, R1: an epoch that every write raises, also where the row is replaced: what was
/// known of it before fits nothing.
#[tokio::test]
async fn every_write_to_a_task_raises_its_epoch() {
    let scene = Scene::new().await;
    insert(&scene, 1, 3).await;
    let mut session = connect(&scene).await;
    let worker = register(&mut session).await;
    let mut last = 0;
    let mut raised = async |by: &str| {
        let epoch: i32 =
            sqlx::query_scalar("select epoch from pgsaga.task").fetch_one(scene.pool()).await.unwrap();
        assert!(epoch > last, "{by} leaves the epoch at {epoch}, it was {last}");
        last = epoch;
    };
    let make_due = "update pgsaga.task set run_at = clock_timestamp() - interval '1 minute'";

    sqlx::raw_sql(make_due).execute(&mut session).await.unwrap();
    let defer = query::Defer {
        participants: &[&scene.participant.address().to_string()],
        delay_us: 0,
        lanes: &[1],
        watermarks: &[chrono::DateTime::UNIX_EPOCH],
        lane_tasks_max: 10,
        only_if_nobody_may_call: false,
    };
    let deferred: i64 = defer.query().fetch_one(&mut session).await.unwrap().get("deferred");
    assert_eq!(deferred, 1);
    raised("defer").await;

    let tasks = claim(&mut session, worker, 1).await;
    raised("claim").await;
    hand_back(&mut session, worker, &tasks).await;
    raised("release").await;
    let mut tasks = claim(&mut session, worker, 1).await;
    raised("claim").await;
    tasks[0].epoch = run_isolated(&mut session, worker, &tasks[0]).await.unwrap();
    raised("run_isolated").await;
    assert_eq!(settle(&mut session, worker, &tasks, Ends::Advances).await.len(), 1);
    raised("the advance in place").await;

    tasks[0].epoch += 1;
    assert_eq!(settle(&mut session, worker, &tasks, Ends::Again).await.len(), 1);
    raised("the task of the next try").await;
    assert_eq!(claim(&mut session, worker, 1).await.len(), 1);
    raised("claim").await;
    assert_eq!(declare_dead(&mut session, worker).await, 1);
    assert_eq!(rescue(&mut session, worker).await, 1);
    raised("the task that a rescue makes").await;
}

/// docs/races.md, R12 for the statements that move claimed rows: none commits after its worker was
/// declared dead.
#[tokio::test]
async fn no_settle_commits_after_its_workers_rescue() {
    let Claims { scene, mut session, worker, tasks } = claims(2, 2).await;
    let mut rescuer = connect(&scene).await;

    let mut open = session.begin().await.unwrap();
    assert_eq!(settle(&mut open, worker, &tasks[..1], Ends::Advances).await.len(), 1);
    assert_eq!(
        declare_dead(&mut rescuer, worker).await,
        0,
        "while its settle is open it cannot be declared dead"
    );
    open.commit().await.unwrap();

    let mut open = session.begin().await.unwrap();
    assert!(run_isolated(&mut open, worker, &tasks[1]).await.is_some());
    assert_eq!(declare_dead(&mut rescuer, worker).await, 0, "nor while it marks a task as isolated");
    open.commit().await.unwrap();

    assert_eq!(declare_dead(&mut rescuer, worker).await, 1);
    let now = Claimed { epoch: tasks[0].epoch + 1, ..tasks[0].clone() };
    assert_eq!(
        settle(&mut session, worker, &[now], Ends::Advances).await.len(),
        0,
        "a dead worker settles nothing"
    );
    let now = Claimed { epoch: tasks[1].epoch + 1, ..tasks[1].clone() };
    assert_eq!(run_isolated(&mut session, worker, &now).await, None);
    assert_eq!(rescue(&mut rescuer, worker).await, 2);
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

/// docs/races.md, R6: what is written for a saga follows from the task that was locked, not from
/// what the worker says.
#[tokio::test]
async fn a_settle_of_a_task_that_is_anothers_finishes_nothing() {
    let Claims { scene, mut session, worker, tasks } = claims(1, 1).await;
    hand_back(&mut session, worker, &tasks).await;
    let other = register(&mut session).await;
    assert_eq!(claim(&mut session, other, 1).await.len(), 1);
    assert_eq!(settle(&mut session, worker, &tasks, Ends::Succeeds).await.len(), 0);
    let status = scene.status("s000").await.unwrap().0;
    assert_eq!(status, "submitted", "finished by a settle whose task was another's");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

/// docs/races.md, R5: whatever replaces, deletes or interrupts tasks locks the saga, so that no two
/// sessions do so at a time.
#[tokio::test]
async fn what_inserts_or_deletes_tasks_locks_the_saga_first() {
    let Claims { scene, mut session, worker, tasks } = claims(1, 1).await;
    let mut turning = connect(&scene).await;
    let mut open = turning.begin().await.unwrap();
    sqlx::raw_sql("select from pgsaga.saga for no key update").execute(&mut *open).await.unwrap();
    let again = settle(&mut session, worker, &tasks, Ends::Again).await;
    assert_eq!(again.len(), 0, "a settle goes on without the saga's lock");
    let mut rescuer = connect(&scene).await;
    assert_eq!(declare_dead(&mut rescuer, worker).await, 1);
    assert_eq!(rescue(&mut rescuer, worker).await, 0, "a rescue goes on without the saga's lock");

    let pool = scene.pool().clone();
    let abort = tokio::spawn(async move {
        sqlx::query_scalar::<_, String>("select pgsaga.abort('s000', 'x')").fetch_one(&pool).await.unwrap()
    });
    let waiting = "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    eventually(PATIENCE, "the abort waits", async || {
        sqlx::query_scalar::<_, bool>(waiting).fetch_one(scene.pool()).await.unwrap().then_some(())
    })
    .await;
    let free = sqlx::query("select id from pgsaga.task for update skip locked").fetch_all(scene.pool()).await;
    assert_eq!(free.unwrap().len(), 1, "an abort locks tasks before the saga");
    open.commit().await.unwrap();
    assert_eq!(abort.await.unwrap(), "aborting");
    assert_eq!(rescue(&mut rescuer, worker).await, 1);
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}
