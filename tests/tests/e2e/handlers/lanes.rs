//! Lanes of participants: the tasks of a named participant reach the workers that serve it, and
//! cost the others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pgsaga_sql::query;
use pgsaga_tests::command::run;
use pgsaga_tests::eventually;
use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_worker::{Call, Database, HandlerError, Participant, Worker};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::sync::Notify;

use crate::session::{buffers_read, register};

fn participant(name: &str) -> Participant {
    let fine = |_: Call<()>| async { Ok::<(), HandlerError>(()) };
    Participant::new(name).action("do", fine).compensate("undo", fine)
}

async fn worker(scene: &Scene, names: &[&str]) -> LocalWorker {
    let builder = LocalWorker::builder(scene.db.url());
    let builder = names.iter().fold(builder, |builder, name| builder.participant(participant(name)));
    LocalWorker::start(builder).await
}

/// Inserts a saga whose steps call these participants, one after the other.
async fn insert(scene: &Scene, gid: &str, names: &[&str], columns: &str, values: &str) {
    let step = |(nth, name): (usize, &&str)| {
        let url = |path: &str| format!("participant:{name}/{path}");
        json!({"name": format!("{name}{nth}"), "action": url("do"), "compensate": url("undo")})
    };
    let steps = json!(names.iter().enumerate().map(step).collect::<Vec<_>>());
    let insert = format!(
        "insert into pgsaga.saga (gid, steps, retry_interval{columns}) values ($1, $2, '20 milliseconds'{values})"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(gid).bind(steps).execute(scene.pool()).await.unwrap();
}

/// The participants that have lanes.
async fn lanes(scene: &Scene) -> Vec<String> {
    sqlx::query_scalar("select distinct participant from pgsaga.lane where participant > '' order by 1")
        .fetch_all(scene.pool())
        .await
        .unwrap()
}

/// Where the task of a saga is: the participant of its lane.
async fn lane(scene: &Scene, gid: &str) -> Option<String> {
    sqlx::query_scalar(
        "select l.participant from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id join pgsaga.lane l on l.id = t.lane
         where s.gid = $1 and t.worker is null",
    )
    .bind(gid)
    .fetch_optional(scene.pool())
    .await
    .unwrap()
}

async fn succeeds(scene: &Scene, gid: &str) {
    assert_eq!(scene.ended(gid).await, ("succeeded".to_owned(), None));
    scene.healthy().await;
}

#[tokio::test]
async fn participants_that_all_workers_serve_have_no_lanes_of_their_own() {
    let scene = Scene::new().await;
    let (one, other) = (worker(&scene, &["a", "b"]).await, worker(&scene, &["a", "b"]).await);
    for nth in 0..20 {
        insert(&scene, &format!("s{nth}"), &["a", "b", "a"], "", "").await;
    }
    for nth in 0..20 {
        succeeds(&scene, &format!("s{nth}")).await;
    }
    assert_eq!(lanes(&scene).await, [""; 0]);
    one.ended().await;
    other.ended().await;
}

#[tokio::test]
async fn a_saga_goes_through_workers_of_which_each_serves_one_participant() {
    let scene = Scene::new().await;
    let (one, other) = (worker(&scene, &["a"]).await, worker(&scene, &["b"]).await);
    for nth in 0..20 {
        insert(&scene, &format!("s{nth}"), &["a", "b", "a", "b"], "", "").await;
    }
    for nth in 0..20 {
        succeeds(&scene, &format!("s{nth}")).await;
    }
    assert!(!lanes(&scene).await.is_empty());
    // Nothing of this was an attempt.
    assert_eq!(
        scene.history("s0").await,
        ["a0 action 1 success", "b1 action 1 success", "a2 action 1 success", "b3 action 1 success"]
    );
    one.ended().await;
    other.ended().await;
}

/// A worker with a poll of a second would need seconds for these steps.
#[tokio::test]
async fn a_step_reaches_the_worker_that_serves_it_as_soon_as_an_insert_does() {
    let scene = Scene::new().await;
    let (one, other) = (worker(&scene, &["a"]).await, worker(&scene, &["b"]).await);
    insert(&scene, "first", &["a", "b", "a"], "", "").await;
    succeeds(&scene, "first").await;
    let mut took = Vec::new();
    for nth in 0..9 {
        let gid = format!("s{nth}");
        // Only a notification reaches a worker that is idle.
        let idle = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                    where d.datname = current_database() and locktype = 'advisory' and granted";
        eventually(PATIENCE, "a worker is idle", async || {
            let locks: i64 = sqlx::query_scalar(idle).fetch_one(scene.pool()).await.unwrap();
            (locks > 0).then_some(())
        })
        .await;
        insert(&scene, &gid, &["a", "b", "a", "b", "a"], "", "").await;
        succeeds(&scene, &gid).await;
        let us: i64 = sqlx::query_scalar(
            "select (date_part('epoch', finished_at - created_at) * 1e6)::bigint from pgsaga.saga where gid = $1",
        )
        .bind(&gid)
        .fetch_one(scene.pool())
        .await
        .unwrap();
        took.push(us);
    }
    took.sort_unstable();
    assert!(took[4] < 1_000_000, "five steps on two workers take {took:?} µs");
    one.ended().await;
    other.ended().await;
}

#[tokio::test]
async fn a_participant_that_nobody_serves_waits_and_a_decision_or_its_deadline_needs_none_of_its_workers() {
    let mut scene = Scene::new().await;
    scene.start_worker(&[]).await;
    insert(&scene, "waits", &["gone"], "", "").await;
    let named = Some("participant:gone".to_owned());
    eventually(PATIENCE, "the task is in a lane of its own", async || {
        (lane(&scene, "waits").await == named).then_some(())
    })
    .await;
    insert(&scene, "aborted", &["gone"], "", "").await;
    assert_eq!(lane(&scene, "aborted").await, named, "the INSERT knows the lane");
    sqlx::query("select pgsaga.abort('aborted', 'no longer wanted')").execute(scene.pool()).await.unwrap();
    assert_eq!(scene.ended("aborted").await.0, "failed");
    insert(&scene, "skipped", &["gone"], "", "").await;
    sqlx::query("select pgsaga.skip('skipped', 'gone0', 'not needed')").execute(scene.pool()).await.unwrap();
    assert_eq!(scene.ended("skipped").await.0, "succeeded");
    insert(&scene, "completed", &["gone"], "", "").await;
    let called = "with called as (
                    update pgsaga.task t set attempt = 2, counted = 1, unknown_before = true, last_outcome = 'unknown'
                    from pgsaga.saga s where s.id = t.saga_id and s.gid = 'completed' returning t.saga_id
                  )
                  insert into pgsaga.history (saga_id, step, op, attempt, outcome) select saga_id, 1, 'action', 1, 'unknown' from called";
    sqlx::query(called).execute(scene.pool()).await.unwrap();
    scene.complete("'completed', 'gone0', 'success'").await.unwrap();
    assert_eq!(scene.ended("completed").await.0, "succeeded");
    insert(&scene, "overdue", &["gone"], ", timeout_to_fail", ", '1500 milliseconds'").await;
    assert_eq!(
        scene.ended("overdue").await,
        ("failed".to_owned(), Some("gone0: timeout after 1.5 seconds".to_owned()))
    );
    assert_eq!(lane(&scene, "waits").await, named);
    let shown = run(&scene.db, &["show", "waits", "--json"]).fine();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["next"][0]["unserved"], json!(true), "{shown:#}");
    let unserved: i64 = sqlx::query_scalar("select sum(unserved)::bigint from pgsaga.queues")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert_eq!(unserved, 1);
    let late = worker(&scene, &["gone"]).await;
    succeeds(&scene, "waits").await;
    late.ended().await;
}

/// A worker that goes on from its own participant to another one keeps the row, and its lane. When
/// it drains, the row goes where others look.
#[tokio::test]
async fn a_task_that_is_given_back_leaves_the_lane_of_the_step_before() {
    let mut scene = Scene::new().await;
    let (calls, may_end) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (called, wait) = (Arc::clone(&calls), Arc::clone(&may_end));
    let work = move |_: Call<()>| {
        let (called, wait) = (Arc::clone(&called), Arc::clone(&wait));
        async move {
            // The third call is that of the second of two sagas.
            if called.fetch_add(1, Ordering::SeqCst) == 2 {
                wait.notified().await;
            }
            Ok::<(), HandlerError>(())
        }
    };
    let own = Participant::new("own").action("do", work);
    let database = Database::new(scene.db.url()).concurrency(1);
    let builder = Worker::builder(database).lease(Duration::from_secs(2)).participant(own);
    let mut first = LocalWorker::start(builder.allow_addresses(vec!["127.0.0.0/8".parse().unwrap()])).await;
    let insert = async |gids: &[&str], steps: &Value| {
        let insert = "insert into pgsaga.saga (gid, steps) select unnest($1::text[]), $2";
        sqlx::query(insert).bind(gids).bind(steps).execute(scene.pool()).await.unwrap();
    };
    let one = json!([{"name": "own", "action": "participant:own/do"}]);
    insert(&["first"], &one).await;
    succeeds(&scene, "first").await;
    // As if another worker had met a task of the participant, which it does not serve.
    sqlx::query(query::OPEN_LANES).bind(vec!["participant:own"]).execute(scene.pool()).await.unwrap();
    let mut two = one.clone();
    two.as_array_mut().unwrap().push(json!({"name": "other", "action": scene.participant.url("/s/other")}));
    insert(&["s0", "s1"], &two).await;
    // The handler of one saga has the only slot, for which the second step of the other waits.
    eventually(PATIENCE, "one is at its second step", async || {
        let at = "select count(*) from pgsaga.task where step = 2 and worker is not null";
        let at: i64 = sqlx::query_scalar(at).fetch_one(scene.pool()).await.unwrap();
        (at == 1 && calls.load(Ordering::SeqCst) == 3).then_some(())
    })
    .await;
    first.stop();
    may_end.notify_one();
    first.ended().await;
    let lanes = "select l.participant from pgsaga.task t join pgsaga.lane l on l.id = t.lane";
    let lanes: Vec<String> = sqlx::query_scalar(lanes).fetch_all(scene.pool()).await.unwrap();
    assert_eq!(lanes, ["", ""], "where every worker looks");
    scene.start_worker(&[]).await;
    succeeds(&scene, "s0").await;
    succeeds(&scene, "s1").await;
}

/// What a claim reads does not follow from how many tasks of others are due.
#[tokio::test]
async fn a_claim_reads_as_little_beside_many_due_tasks_of_others() {
    let scene = Scene::new().await;
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    let worker = register(&mut session).await;
    sqlx::query(query::OPEN_LANES).bind(vec!["participant:gone"]).execute(&mut session).await.unwrap();
    let mut buffers = Vec::new();
    for others in [0, 20_000] {
        let insert = "insert into pgsaga.saga (gid, steps) select 'n' || n, $2 from generate_series(1, $1) n";
        let steps = json!([{"name": "gone", "action": "participant:gone/do"}]);
        sqlx::query(insert).bind(others).bind(steps).execute(&mut session).await.unwrap();
        sqlx::raw_sql("vacuum analyze pgsaga.task").execute(&mut session).await.unwrap();
        let claim = query::Claim {
            worker_id: worker,
            tasks_max: 10,
            format_max: pgsaga_sql::FORMAT,
            definition_bytes_max: i64::MAX,
            ..query::Claim::default()
        };
        let mut turn = session.begin().await.unwrap();
        let before = buffers_read(&mut turn).await;
        let rows = claim.query().fetch_all(&mut *turn).await.unwrap();
        let after = buffers_read(&mut turn).await;
        assert!(rows.iter().all(|row| row.get::<Option<i64>, _>("id").is_none()), "it claims none of them");
        turn.rollback().await.unwrap();
        buffers.push(after - before);
    }
    assert!(buffers[1] <= buffers[0] + 20, "a claim reads {buffers:?} buffers, alone and beside 20,000");
}
