//! The interleavings of docs/races.md that sequential sagas can meet, as sessions that run the
//! workers' own statements. Each rule has a control: the statement without the rule, which must go
//! wrong.

use std::time::Duration;

use pgsaga_sql::query;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Behaviour, eventually};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::session::{
    Claimed, Claims, Ends, claim, claim_from, claim_with, claims, connect, insert, register, rescue,
    rescue_sleeps, settle, settle_statement, settle_with, slow_rescue, step_of, without,
};

/// docs/races.md, R1: the settle commits, the reply to COMMIT is lost, the worker says the same
/// again.
#[tokio::test]
async fn a_repeated_settle_skips_no_step() {
    let Claims { scene, mut session, worker, tasks } = claims(1, 3).await;
    assert_eq!(settle(&mut session, worker, &tasks, Ends::Advances).await.len(), 1);
    assert_eq!(
        settle(&mut session, worker, &tasks, Ends::Advances).await.len(),
        0,
        "the repeat finds another epoch"
    );
    assert_eq!(step_of(&scene, &tasks[0]).await, 2);
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());

    let unfenced = without(query::Settle::SQL, " and epoch = i.epoch", "");
    settle_with(&mut session, &unfenced, worker, &tasks, Ends::Advances).await;
    assert_eq!(step_of(&scene, &tasks[0]).await, 3, "control: without the epoch a step is skipped");
}

/// docs/races.md, R2: a claim whose reply is lost leaves rows that a living worker does not know.
#[tokio::test]
async fn a_forgotten_claim_under_a_live_lease_is_handed_back() {
    let mut scene = Scene::with_worker().await;
    let worker: i64 =
        sqlx::query_scalar("select id from pgsaga.worker").fetch_one(scene.pool()).await.unwrap();
    // Inserted and claimed under that worker's id in one transaction, which it cannot see before it
    // is over.
    let steps = scene.saga("forgotten").step("pay").steps();
    let mut session = connect(&scene).await;
    let mut lost = session.begin().await.unwrap();
    sqlx::query("insert into pgsaga.saga (gid, steps) values ('forgotten', $1)")
        .bind(steps)
        .execute(&mut *lost)
        .await
        .unwrap();
    assert_eq!(claim(&mut lost, worker, 10).await.len(), 1);
    lost.commit().await.unwrap();
    scene.expect("forgotten", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.metric("pgsaga_reconciled_total").await, 1.0);
    assert_eq!(scene.metric("pgsaga_rescued_total").await, 0.0, "its worker never died");
    scene.workers.clear();
}

/// docs/races.md, R6 and R8: a settle never waits for a row; what somebody has locked goes into the
/// next group.
#[tokio::test]
async fn one_open_psql_holds_up_one_saga_and_nobody_else() {
    let Claims { scene, mut session, worker, tasks } = claims(100, 1).await;
    assert_eq!(tasks.len(), 100);

    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql("select from pgsaga.saga where gid = 's042' for update").execute(&mut *open).await.unwrap();
    sqlx::raw_sql("set lock_timeout = '5s'").execute(&mut session).await.unwrap();
    let applied = settle(&mut session, worker, &tasks, Ends::Succeeds).await;
    assert_eq!(applied.len(), 99);
    assert_eq!(
        broken(scene.pool()).await,
        Vec::<String>::new(),
        "the locked saga still has its task and no new history"
    );

    let left: Vec<Claimed> = tasks.iter().filter(|task| !applied.contains(&task.id)).cloned().collect();
    let waiting = without(query::Settle::SQL, "for no key update skip locked", "for no key update");
    sqlx::raw_sql("set lock_timeout = '300ms'").execute(&mut session).await.unwrap();
    let blocked =
        settle_statement(&waiting, worker, &left, Ends::Succeeds).fetch_all(&mut session).await.unwrap_err();
    assert_eq!(
        blocked.as_database_error().unwrap().code().unwrap(),
        "55P03",
        "control: without SKIP LOCKED it waits"
    );
    open.rollback().await.unwrap();
    assert_eq!(
        settle(&mut session, worker, &left, Ends::Succeeds).await.len(),
        1,
        "settled with the next group"
    );
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}

/// The same with a real worker: it settles the others, and the locked one once the lock is gone.
#[tokio::test]
async fn a_worker_settles_a_locked_saga_once_the_lock_is_gone() {
    let scene = Scene::with_worker().await;
    scene.saga("locked").step("pay").action(Behaviour::Slow(Duration::from_millis(300))).insert().await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql("select from pgsaga.saga where gid = 'locked' for update")
        .execute(&mut *open)
        .await
        .unwrap();
    eventually(PATIENCE, "a settle meets the lock", async || {
        (scene.metric("pgsaga_settled_total{result=\"locked\"}").await > 0.0).then_some(())
    })
    .await;
    scene.saga("free").step("pay").insert().await;
    scene.expect("free", "succeeded", None, &["pay action"]).await;
    assert_eq!(scene.status("locked").await.unwrap().0, "submitted");
    open.rollback().await.unwrap();
    scene.expect("locked", "succeeded", None, &["pay action"]).await;
}

/// docs/races.md, R9, the control: what `outcome::clean` takes out of an answer would fail the
/// whole group.
#[tokio::test]
async fn an_unclean_message_would_fail_its_whole_group() {
    let Claims { scene, mut session, worker, tasks } = claims(2, 1).await;
    let unclean = query::Settle::SQL.replace(
        "status_code, duration_us, message, $1, (select",
        "status_code, duration_us, chr(0), $1, (select",
    );
    assert_ne!(unclean, query::Settle::SQL);
    let failed =
        settle_statement(&unclean, worker, &tasks, Ends::Succeeds).fetch_all(&mut session).await.unwrap_err();
    let code = failed.as_database_error().unwrap().code().unwrap().into_owned();
    assert!(code.starts_with("22") || code.starts_with("54"), "{code}");
    assert_eq!(scene.count("submitted").await, 2);
    assert_eq!(settle(&mut session, worker, &tasks, Ends::Succeeds).await.len(), 2);
}

/// docs/races.md, R10: UNLOGGED, the table is empty after a crash and its identity restarts.
#[tokio::test]
async fn the_worker_table_is_logged_and_its_ids_are_never_reused() {
    let scene = Scene::new().await;
    let persistence: i8 =
        sqlx::query_scalar("select relpersistence from pg_class where oid = 'pgsaga.worker'::regclass")
            .fetch_one(scene.pool())
            .await
            .unwrap();
    assert_eq!(persistence as u8, b'p');
    let mut session = connect(&scene).await;
    let first = register(&mut session).await;
    sqlx::raw_sql("delete from pgsaga.worker").execute(&mut session).await.unwrap();
    assert_ne!(register(&mut session).await, first);
}

/// docs/races.md, R12: a claim that commits after its worker's rescue would leave tasks of a dead
/// id that nobody looks for.
#[tokio::test]
async fn no_claim_commits_after_its_workers_rescue() {
    let scene = Scene::new().await;
    insert(&scene, 3, 1).await;
    let (mut slow, mut rescuer) = (connect(&scene).await, connect(&scene).await);
    let worker = register(&mut rescuer).await;
    let declare_dead = async |session: &mut PgConnection| {
        sqlx::query(query::DECLARE_DEAD).bind(worker).bind(0i64).fetch_all(session).await.unwrap().len()
    };

    let mut open = slow.begin().await.unwrap();
    assert_eq!(claim(&mut open, worker, 1).await.len(), 1);
    assert_eq!(declare_dead(&mut rescuer).await, 0, "while its claim is open it cannot be declared dead");
    open.commit().await.unwrap();
    assert_eq!(declare_dead(&mut rescuer).await, 1);
    assert_eq!(claim(&mut slow, worker, 10).await.len(), 0, "a dead worker claims nothing");
    let row = sqlx::query(query::RESCUE)
        .bind(worker)
        .bind(100i64)
        .bind(pgsaga_sql::FORMAT)
        .fetch_one(&mut rescuer)
        .await
        .unwrap();
    assert_eq!((row.get::<i64, _>("found"), row.get::<i64, _>("rescued")), (1, 1));
    sqlx::query(query::BURY).bind(worker).execute(&mut rescuer).await.unwrap();
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());

    let worker = register(&mut rescuer).await;
    let unheld = without(query::Claim::SQL, " for key share", "");
    let mut open = slow.begin().await.unwrap();
    assert!(!claim_with(&mut open, &unheld, worker, 1).await.is_empty());
    assert_eq!(
        sqlx::query(query::DECLARE_DEAD).bind(worker).bind(0i64).fetch_all(&mut rescuer).await.unwrap().len(),
        1
    );
    rescue(&mut rescuer, worker).await;
    sqlx::query(query::BURY).bind(worker).execute(&mut rescuer).await.unwrap();
    open.commit().await.unwrap();
    let found = broken(scene.pool()).await;
    assert!(
        found.iter().any(|place| place.contains("not registered")),
        "control: without the lock a task is orphaned: {found:?}"
    );
}

/// docs/races.md, R12 for a worker that signs off: its farewell waits for its own open claim, else
/// the claim's task would be left to nobody.
#[tokio::test]
async fn a_farewell_waits_for_the_workers_own_open_claim() {
    let scene = Scene::new().await;
    insert(&scene, 2, 1).await;
    let (mut slow, mut leaving) = (connect(&scene).await, connect(&scene).await);
    for waits in [true, false] {
        let retire = if waits { query::RETIRE.to_owned() } else { without(query::RETIRE, " for update", "") };
        let worker = register(&mut leaving).await;
        let mut open = slow.begin().await.unwrap();
        assert_eq!(claim(&mut open, worker, 1).await.len(), 1);
        sqlx::raw_sql("set lock_timeout = '200ms'").execute(&mut leaving).await.unwrap();
        let left = sqlx::query(AssertSqlSafe(retire)).bind(worker).execute(&mut leaving).await;
        assert_eq!(left.is_err(), waits, "{left:?}; without FOR UPDATE it does not wait");
        open.commit().await.unwrap();
    }
}

/// A rescue must not take a row that its own snapshot did not see: it would record it and not
/// delete it.
#[tokio::test]
async fn a_rescue_leaves_alone_a_task_that_moved_under_it() {
    let scene = Scene::new().await;
    insert(&scene, 1, 1).await;
    let (mut mover, mut rescuer) = (connect(&scene).await, connect(&scene).await);
    let worker = register(&mut rescuer).await;
    let task = claim(&mut rescuer, worker, 1).await.remove(0);
    let moving = async {
        rescue_sleeps(&scene).await;
        sqlx::query("update pgsaga.task set epoch = epoch + 1 where id = $1")
            .bind(task.id)
            .execute(&mut mover)
            .await
            .unwrap();
    };
    let sleeping =
        sqlx::query(AssertSqlSafe(slow_rescue())).bind(worker).bind(100i64).bind(pgsaga_sql::FORMAT);
    let (row, ()) = tokio::join!(async { sleeping.fetch_one(&mut rescuer).await.unwrap() }, moving);
    assert_eq!((row.get::<i64, _>("found"), row.get::<i64, _>("rescued")), (1, 0));
    assert_eq!(rescue(&mut rescuer, worker).await, 1, "the next look has it");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());

    let worker = register(&mut rescuer).await;
    sqlx::query(query::DECLARE_DEAD).bind(worker).bind(0i64).execute(&mut rescuer).await.unwrap();
    sqlx::query(query::RUN_ISOLATED)
        .bind(worker)
        .bind(task.id)
        .bind(task.epoch)
        .fetch_all(&mut rescuer)
        .await
        .unwrap();
}

/// docs/races.md, R11: after the clock stepped back a claimed row lies in the future; its worker's
/// rescue must still find it.
#[tokio::test]
async fn a_clock_that_steps_back_hides_no_task_from_the_rescue() {
    let scene = Scene::new().await;
    insert(&scene, 1, 1).await;
    let mut session = connect(&scene).await;
    let worker = register(&mut session).await;
    claim(&mut session, worker, 1).await;
    sqlx::raw_sql("update pgsaga.task set run_at = clock_timestamp() + interval '1 hour'")
        .execute(&mut session)
        .await
        .unwrap();
    sqlx::query(query::RETIRE).bind(worker).execute(&mut session).await.unwrap();
    let buried = sqlx::query(query::BURY).bind(worker).execute(&mut session).await.unwrap();
    assert_eq!(buried.rows_affected(), 0, "nobody is buried who holds something");
    assert_eq!(rescue(&mut session, worker).await, 1);
    let lost: i16 = sqlx::query_scalar("select lost from pgsaga.task").fetch_one(&mut session).await.unwrap();
    assert_eq!(lost, 0, "a worker that signed off did not die");
}

/// A saga that somebody had locked is settled soon after, also where outcomes never stop coming.
#[tokio::test]
async fn a_locked_saga_does_not_starve_under_load() {
    let mut scene = Scene::with_worker().await;
    scene.saga("locked").step("pay").action(Behaviour::Slow(Duration::from_millis(300))).insert().await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql("select from pgsaga.saga where gid = 'locked' for update")
        .execute(&mut *open)
        .await
        .unwrap();
    let url = scene.participant.url("/load");
    let pool = scene.pool().clone();
    let load = tokio::spawn(async move {
        for n in 0.. {
            let insert = "insert into pgsaga.saga (gid, steps) values ('load-' || $1, jsonb_build_array(jsonb_build_object('action', $2::text)))";
            sqlx::query(insert).bind(n).bind(&url).execute(&pool).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await; // outcomes closer together than the pause of a locked one
        }
    });
    eventually(PATIENCE, "a settle meets the lock", async || {
        (scene.metric("pgsaga_settled_total{result=\"locked\"}").await > 2.0).then_some(())
    })
    .await;
    open.rollback().await.unwrap();
    assert_eq!(scene.ended("locked").await.0, "succeeded");
    assert!(!load.is_finished(), "the load went on all the while");
    load.abort();
    scene.workers.clear();
}

/// Not every error is in the values: one row's own trouble holds up nobody, and is over when the
/// trouble is.
#[tokio::test]
async fn a_row_that_the_database_refuses_to_change_holds_up_nobody() {
    let scene = Scene::with_worker().await;
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
         create trigger refuse after update on pgsaga.saga for each row when (new.gid = 'refused') execute function refuse()",
    )
    .execute(scene.pool())
    .await
    .unwrap();
    for n in 0..30 {
        scene
            .saga(&format!("fine-{n}"))
            .step("pay")
            .action(Behaviour::Slow(Duration::from_millis(50)))
            .insert()
            .await;
    }
    scene.saga("refused").step("pay").action(Behaviour::Slow(Duration::from_millis(50))).insert().await;
    eventually(PATIENCE, "the others end", async || (scene.count("succeeded").await == 30).then_some(()))
        .await;
    assert_eq!(scene.status("refused").await.unwrap().0, "submitted");
    sqlx::raw_sql("drop trigger refuse on pgsaga.saga").execute(scene.pool()).await.unwrap();
    scene.expect("refused", "succeeded", None, &["pay action"]).await;
}

/// docs/races.md, R18: an insert that commits late has an old run_at; a watermark that had passed
/// it would hide it. The lease is long, so that the watermark's periodic backstop does not help.
#[tokio::test]
async fn a_watermark_does_not_pass_a_late_committer() {
    let mut scene = Scene::new().await;
    scene.start_worker(&["--lease-seconds", "3600"]).await;
    let late_steps = scene.saga("late").step("pay").steps();
    let mut session = connect(&scene).await;
    let mut late = session.begin().await.unwrap();
    sqlx::query("insert into pgsaga.saga (gid, steps) values ('late', $1)")
        .bind(late_steps)
        .execute(&mut *late)
        .await
        .unwrap();
    for n in 0..30 {
        let gid = format!("on-time-{n}");
        scene.saga(&gid).step("pay").insert().await;
        assert_eq!(scene.ended(&gid).await.0, "succeeded");
    }
    late.commit().await.unwrap();
    scene.expect("late", "succeeded", None, &["pay action"]).await;

    // The control: a watermark that had passed the late row would hide it.
    scene.workers.clear();
    scene.saga("hidden").step("pay").insert().await;
    let worker = register(&mut session).await;
    let after = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut session).await.unwrap();
    assert_eq!(claim_from(&mut session, query::Claim::SQL, worker, 10, after).await.len(), 0);
    assert_eq!(claim(&mut session, worker, 10).await.len(), 1);
}

/// docs/races.md, R19: nobody is idle when an INSERT runs, so it does not notify; a worker looks,
/// becomes idle, and looks again; then the producer commits. The wake-up is only a hint: the worker
/// goes on looking.
#[tokio::test]
async fn an_insert_that_commits_after_the_worker_looked_does_not_wait_long() {
    let mut scene = Scene::new().await;
    let steps = scene.saga("s").step("pay").steps();
    let mut session = connect(&scene).await;
    let mut open = session.begin().await.unwrap();
    sqlx::query("insert into pgsaga.saga (gid, steps) values ('s', $1)")
        .bind(steps)
        .execute(&mut *open)
        .await
        .unwrap();
    scene.start_worker(&[]).await;
    eventually(PATIENCE, "it has looked for half a second", async || {
        (scene.metric("pgsaga_claims_total{result=\"empty\"}").await >= 9.0).then_some(())
    })
    .await;
    open.commit().await.unwrap();
    let committed = std::time::Instant::now();
    let call = scene.participant.wait_for_calls(1, PATIENCE).await.remove(0);
    let waited = call.started - committed;
    assert!(waited < Duration::from_secs(3), "found by polling after {waited:?}");
}

/// docs/races.md, R21: an old worker leaves a row of a newer format alone.
#[tokio::test]
async fn a_row_of_an_unknown_format_is_left_to_a_newer_worker() {
    let scene = Scene::new().await;
    insert(&scene, 2, 1).await;
    sqlx::query(
        "update pgsaga.task set format = $1 where saga_id = (select id from pgsaga.saga where gid = 's000')",
    )
    .bind(pgsaga_sql::FORMAT + 1)
    .execute(scene.pool())
    .await
    .unwrap();
    let mut scene = scene;
    scene.start_worker(&[]).await;
    scene.expect("s001", "succeeded", None, &["step-0 action"]).await;
    scene.saga("later").step("pay").insert().await;
    scene.expect("later", "succeeded", None, &["pay action"]).await;
    assert!(scene.participant.calls_for("s000").is_empty());
    assert_eq!(scene.status("s000").await.unwrap().0, "submitted");

    // The control: without the rule it is claimed.
    let mut session = connect(&scene).await;
    let worker = register(&mut session).await;
    let blind = without(query::Claim::SQL, "t.worker is null and t.format <= $3\n", "t.worker is null\n");
    assert_eq!(claim_with(&mut session, &blind, worker, 10).await.len(), 1);
}

/// docs/races.md, R13 to 23 that need aborts, deadlines or repairs belong to a later version; these
/// statements must not deadlock with each other today.
#[tokio::test]
async fn a_rescue_and_a_late_settle_of_the_same_task_apply_once() {
    let Claims { scene, mut session, worker, tasks } = claims(50, 1).await;
    assert_eq!(
        sqlx::query(query::DECLARE_DEAD).bind(worker).bind(0i64).fetch_all(&mut session).await.unwrap().len(),
        1
    );
    let mut rescuer = connect(&scene).await;
    let (applied, rescued) = tokio::join!(settle(&mut session, worker, &tasks, Ends::Succeeds), async {
        rescue(&mut rescuer, worker).await
    });
    assert_eq!((applied.len(), rescued), (0, 50), "a worker that was declared dead settles nothing");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
}
