//! Retention: what finished long ago goes, and nothing else.

use std::time::Duration;

use pgsaga_sql::query;
use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Worker, eventually};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::roles::login;
use crate::session::connect;

const DAY_US: i64 = 86_400_000_000;
const PURGED_SAGAS: &str = "pgsaga_purged_sagas_total";
const PURGED_ROWS: &str = "pgsaga_purged_history_rows_total";
pub(super) const DROPPED: &str = "pgsaga_dropped_partitions_total";

pub(super) async fn sql(scene: &Scene, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(scene.pool()).await.unwrap();
}

async fn gids(scene: &Scene) -> Vec<String> {
    sqlx::query_scalar("select gid from pgsaga.saga order by gid").fetch_all(scene.pool()).await.unwrap()
}

async fn history_rows(scene: &Scene) -> i64 {
    sqlx::query_scalar("select count(*) from pgsaga.history").fetch_one(scene.pool()).await.unwrap()
}

pub(super) async fn partitions(scene: &Scene) -> Vec<i64> {
    sqlx::query_scalar(query::HISTORY_PARTITIONS).fetch_all(scene.pool()).await.unwrap()
}

/// So many sagas of one step that succeeded some time ago, from this id on, and later ones get
/// higher ids.
pub(super) async fn succeeded(scene: &Scene, first_id: i64, count: i64, age: &str) {
    let mut session = connect(scene).await;
    let insert = format!(
        "set session_replication_role = replica;
         insert into pgsaga.saga (id, gid, status, steps, created_at, finished_at) overriding system value
         select n, 'old-' || n, 'succeeded', '[{{\"action\": \"\"}}]', clock_timestamp() - interval '{age}', clock_timestamp() - interval '{age}'
         from generate_series({first_id}, {first_id} + {count} - 1) n;
         insert into pgsaga.history (saga_id, step, op, attempt, outcome)
         select n, 1, 'action', 1, 'success' from generate_series({first_id}, {first_id} + {count} - 1) n;
         select setval('pgsaga.saga_id_seq', greatest({first_id} + {count} - 1, (select last_value from pgsaga.saga_id_seq)));"
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut session).await.unwrap();
    session.close().await.unwrap();
}

/// From now on ids are given from here on.
pub(super) async fn next_id(scene: &Scene, id: i64) {
    sql(
        scene,
        &format!("select setval('pgsaga.saga_id_seq', {id}, false); select pgsaga.make_history_partitions()"),
    )
    .await;
}

async fn purge_sagas(session: &mut PgConnection, after: i64, most: i32) -> PgRow {
    let statement =
        query::PurgeSagas { age_us: DAY_US, after_id: after, before_id: 1_000_000, sagas_max: most };
    statement.query().fetch_one(session).await.unwrap()
}

/// How many rows went; `None` where the partition is to be dropped.
async fn purge_history(session: &mut PgConnection, part: i64, last_id: i64) -> Option<i32> {
    let statement = query::PurgeHistory {
        age_us: DAY_US,
        partition: part,
        after_saga_id: -1,
        after_seq: 0,
        last_saga_id: last_id,
        rows_max: 1000,
    };
    let row = statement.query().fetch_one(session).await.unwrap();
    row.get::<Option<i32>, _>("walked").map(|_| row.get("purged"))
}

async fn drop_partition(session: &mut PgConnection, part: i64) -> bool {
    sqlx::query_scalar(query::DROP_HISTORY_PARTITION).bind(part).fetch_one(session).await.unwrap()
}

pub(super) async fn eventually_counts(scene: &Scene, series: &str, count: f64) {
    eventually(PATIENCE, &format!("{series} is {count}"), async || {
        (scene.metric(series).await == count).then_some(())
    })
    .await;
}

/// Lets a worker beat so often.
pub(super) async fn beats(worker: &Worker, count: f64) {
    let before = worker.metric("pgsaga_heartbeats_total").await.unwrap();
    eventually(PATIENCE, "some heartbeats", async || {
        (worker.metric("pgsaga_heartbeats_total").await.unwrap() >= before + count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_finished_long_ago_goes_with_its_history_and_everything_else_stays() {
    let mut scene = Scene::with_worker().await;
    let refuse = || Behaviour::Refuse("no".into());
    scene.saga("succeeded").step("a").step("b").insert().await;
    scene.saga("failed").step("a").step("b").action(refuse()).insert().await;
    scene.saga("stuck").step("a").compensate(refuse()).step("b").action(refuse()).insert().await;
    let open = scene.saga("open").column("retry_interval", "'1 hour'").step("a");
    open.step("b").action(Behaviour::Status(500)).insert().await;
    scene.saga("just-ended").step("a").insert().await;
    scene.saga("young").step("a").insert().await;
    scene.saga("last").step("a").insert().await;
    for (gid, status) in [
        ("succeeded", "succeeded"),
        ("failed", "failed"),
        ("stuck", "stuck"),
        ("just-ended", "succeeded"),
        ("young", "succeeded"),
        ("last", "succeeded"),
    ] {
        assert_eq!(scene.ended(gid).await.0, status);
    }
    eventually(PATIENCE, "it waits for its next try", async || {
        (scene.history("open").await.len() == 2).then_some(())
    })
    .await;
    let rows = history_rows(&scene).await;
    // A worker that is not told to deletes nothing.
    sql(
        &scene,
        "update pgsaga.saga set created_at = created_at - interval '3 days' where gid <> 'young';
         update pgsaga.saga set finished_at = finished_at - interval '3 days' where gid not in ('young', 'just-ended')",
    )
    .await;
    beats(&scene.workers[0], 5.0).await;
    assert_eq!((gids(&scene).await.len(), history_rows(&scene).await), (7, rows), "something went unasked");
    scene.workers[0].terminate();
    scene.workers[0].wait_exit(PATIENCE).await;
    scene.workers.clear();

    scene.start_worker(&["--retention", "2d"]).await;
    // They go in the order of their ids.
    eventually(PATIENCE, "the last one is gone", async || scene.status("last").await.is_none().then_some(()))
        .await;
    assert_eq!(gids(&scene).await, ["just-ended", "open", "stuck", "young"]);
    eventually_counts(&scene, PURGED_SAGAS, 3.0).await;
    eventually_counts(&scene, PURGED_ROWS, 6.0).await;
    assert_eq!(history_rows(&scene).await, rows - 6);
    assert_eq!(
        scene.history("stuck").await,
        ["a action 1 success", "b action 1 failure", "a compensate 1 failure"]
    );
    let said = scene.workers[0].wait_for_log("finished sagas are deleted", PATIENCE).await;
    assert!(said.contains("\"sagas\":3"), "{said}");
    run(&scene.db, &["doctor"]).fine();
    let shown = run(&scene.db, &["show", "failed"]);
    assert_eq!(shown.code, Some(4), "{shown:?}");
    // The next gid of that name is a new saga.
    scene.saga("succeeded").step("a").insert().await;
    assert_eq!(scene.ended("succeeded").await.0, "succeeded");
    assert_eq!(scene.metric("pgsaga_database_errors_total{class=\"other\"}").await, 0.0);
    assert_eq!(scene.metric(DROPPED).await, 0.0);
}

#[tokio::test]
async fn many_go_in_batches_and_no_check_is_ever_red() {
    let scene = Scene::new().await;
    succeeded(&scene, 1, 10, "3 days").await;
    sql(&scene, "update pgsaga.saga set status = 'stuck', reason = '01: x', finished_at = null where id = 4; insert into pgsaga.stuck (saga_id, step, reason) values (4, '01', '01: x')").await;
    scene.healthy().await;
    let mut session = connect(&scene).await;
    sqlx::raw_sql("set lock_timeout = '5s'").execute(&mut session).await.unwrap();
    // Someone looks at one of them for long.
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql("select from pgsaga.saga where id = 6 for share").execute(&mut *open).await.unwrap();

    let (mut after, mut purged) = (0, Vec::new());
    for _ in 0..4 {
        let row = purge_sagas(&mut session, after, 3).await;
        after = row.get("last_id");
        purged.push((
            row.get::<i32, _>("purged"),
            row.get::<i32, _>("walked"),
            row.get::<Option<i64>, _>("kept_id"),
            row.get::<Option<String>, _>("refused_why"),
        ));
        scene.healthy().await;
        purge_history(&mut session, 0, 2).await;
        scene.healthy().await;
    }
    assert_eq!(purged, [(3, 3, None, None), (1, 3, Some(4), None), (3, 3, None, None), (1, 1, None, None)]);
    open.rollback().await.unwrap();
    assert_eq!(purge_sagas(&mut session, 0, 3).await.get::<i32, _>("purged"), 1, "the one that was locked");
    assert_eq!(purge_history(&mut session, 0, 1_000_000).await, Some(7));
    assert_eq!((gids(&scene).await.as_slice(), history_rows(&scene).await), (&["old-4".to_owned()][..], 1));
    scene.healthy().await;
}

#[tokio::test]
async fn a_whole_partition_is_dropped_and_new_ones_are_made_as_before() {
    let mut scene = Scene::new().await;
    succeeded(&scene, 1, 2500, "3 days").await;
    next_id(&scene, 1_000_000).await;
    succeeded(&scene, 1_000_000, 10, "3 days").await;
    next_id(&scene, 4_000_000).await;
    scene.saga("young").step("a").insert().await;
    scene.start_worker(&["--retention", "1d"]).await;
    assert_eq!(scene.ended("young").await.0, "succeeded");
    eventually_counts(&scene, DROPPED, 4.0).await;
    assert_eq!(partitions(&scene).await, Vec::from_iter(4..=12));
    assert_eq!(scene.metric(PURGED_SAGAS).await, 2510.0);
    assert_eq!(scene.metric(PURGED_ROWS).await, 0.0, "its rows are not deleted one by one");
    assert_eq!((gids(&scene).await, history_rows(&scene).await), (vec!["young".to_owned()], 1));

    // The partitions ahead are still ahead. Behind the last one, the first saga gets the next ones.
    next_id(&scene, 12_999_999).await;
    for gid in ["before-the-border", "behind-the-border"] {
        scene.saga(gid).step("a").insert().await;
        scene.expect(gid, "succeeded", None, &["a action"]).await;
    }
    assert_eq!(partitions(&scene).await, Vec::from_iter(4..=21), "without a gap");
    run(&scene.db, &["doctor"]).fine();
}

#[tokio::test]
async fn a_partition_with_one_stuck_saga_loses_all_other_history() {
    let mut scene = Scene::new().await;
    succeeded(&scene, 1, 2500, "3 days").await;
    sql(&scene, "update pgsaga.saga set status = 'stuck', reason = '01: x', finished_at = null where id = 1200; insert into pgsaga.stuck (saga_id, step, reason) values (1200, '01', '01: x')").await;
    next_id(&scene, 1_000_000).await;
    scene.start_worker(&["--retention", "1m"]).await;
    eventually_counts(&scene, PURGED_ROWS, 2499.0).await;
    assert_eq!(gids(&scene).await, ["old-1200"]);
    assert_eq!((history_rows(&scene).await, scene.metric(DROPPED).await), (1, 0.0));
    run(&scene.db, &["doctor"]).fine();
    // A person sees to it, and it gets old.
    run(&scene.db, &["resolve", "old-1200", "succeeded", "--comment", "done by hand"]).fine();
    sql(&scene, "update pgsaga.saga set finished_at = finished_at - interval '3 days'").await;
    eventually_counts(&scene, DROPPED, 1.0).await;
    assert_eq!((gids(&scene).await.len(), history_rows(&scene).await), (0, 0));
}

/// Its rows need not be deleted one by one: before long its last saga is old enough.
#[tokio::test]
async fn history_waits_for_its_partition_to_be_dropped_where_that_is_soon() {
    let scene = Scene::new().await;
    succeeded(&scene, 1, 5, "3 days").await;
    succeeded(&scene, 6, 5, "23 hours").await;
    let mut session = connect(&scene).await;
    assert_eq!(purge_sagas(&mut session, 0, 100).await.get::<i32, _>("purged"), 5);
    assert_eq!(purge_history(&mut session, 0, 10).await, Some(5), "its ids are still given");
    next_id(&scene, 1_000_000).await;
    sql(&scene, "delete from pgsaga.saga where id < 10").await;
    assert_eq!(purge_history(&mut session, 0, 10).await, None);
    scene.healthy().await;
    // A saga that ended so late that the partition stays: what is left over in it does not.
    sql(&scene, "update pgsaga.saga set created_at = created_at - interval '6 hours'").await;
    assert_eq!(purge_sagas(&mut session, 0, 100).await.get::<i32, _>("purged"), 0);
    assert_eq!(purge_history(&mut session, 0, 10).await, Some(4));
    // Nor where it will be there for much longer.
    sql(&scene, "update pgsaga.saga set created_at = clock_timestamp(), finished_at = clock_timestamp(); insert into pgsaga.history (saga_id, step, op, attempt, outcome) values (5, 1, 'action', 1, 'success')").await;
    assert_eq!(purge_history(&mut session, 0, 10).await, Some(1));
    assert_eq!(history_rows(&scene).await, 1);
}

/// A transaction can be open for longer than sagas are kept.
#[tokio::test]
async fn no_partition_is_dropped_from_under_a_saga_that_is_not_committed_yet() {
    let mut scene = Scene::new().await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    let steps = scene.saga("late").step("a").steps();
    let insert = sqlx::query("insert into pgsaga.saga (gid, steps) values ('late', $1)").bind(steps);
    insert.execute(&mut *open).await.unwrap();
    next_id(&scene, 1_000_000).await;
    let mut session = connect(&scene).await;
    assert!(!drop_partition(&mut session, 0).await, "dropped beside an open insert");
    open.commit().await.unwrap();
    assert!(!drop_partition(&mut session, 0).await, "dropped from under a saga");
    scene.start_worker(&[]).await;
    scene.expect("late", "succeeded", None, &["a action"]).await;
    assert!(!drop_partition(&mut session, 8).await, "dropped ahead");
    assert!(!drop_partition(&mut session, 1).await, "dropped while its ids are given");
    sql(&scene, "delete from pgsaga.saga").await;
    assert!(drop_partition(&mut session, 0).await);
    assert!(!drop_partition(&mut session, 0).await, "it is gone");
}

#[tokio::test]
async fn a_drop_gives_up_where_somebody_reads_the_history_for_long() {
    let scene = Scene::with_worker().await;
    next_id(&scene, 1_000_000).await;
    let mut session = connect(&scene).await;
    let mut psql = connect(&scene).await;
    let mut open = psql.begin().await.unwrap();
    sqlx::raw_sql("select count(*) from pgsaga.history").execute(&mut *open).await.unwrap();
    let started = std::time::Instant::now();
    assert!(!drop_partition(&mut session, 0).await);
    assert!(started.elapsed() < Duration::from_secs(3), "it waited for {:?}", started.elapsed());
    scene.saga("beside").step("a").insert().await;
    scene.expect("beside", "succeeded", None, &["a action"]).await;
    open.rollback().await.unwrap();
    assert!(drop_partition(&mut session, 0).await);
}

#[tokio::test]
async fn one_worker_does_it_for_all_and_another_after_it() {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        scene.start_worker(&["--retention", "1m"]).await;
    }
    // Each has seen the other.
    for worker in &scene.workers {
        beats(worker, 2.0).await;
    }
    succeeded(&scene, 1, 6000, "3 days").await;
    eventually_counts(&scene, PURGED_ROWS, 6000.0).await;
    let mut purged = Vec::new();
    for worker in &scene.workers {
        purged.push(worker.metric(PURGED_SAGAS).await.unwrap());
    }
    let first = purged.iter().position(|count| *count > 0.0).unwrap();
    assert_eq!((purged[first], purged[1 - first]), (6000.0, 0.0));
    scene.workers[first].kill9();
    scene.workers.remove(first);
    succeeded(&scene, 7000, 10, "3 days").await;
    eventually_counts(&scene, PURGED_SAGAS, 10.0).await;
}

#[tokio::test]
async fn a_worker_needs_no_more_than_its_role_for_it_and_others_may_not() {
    let mut scene = Scene::new().await;
    succeeded(&scene, 1, 10, "3 days").await;
    next_id(&scene, 1_000_000).await;
    succeeded(&scene, 1_000_000, 10, "3 days").await;
    let url = login(&scene, "pgsaga_worker").await;
    scene.workers.push(Worker::spawn(&url, &["--lease-seconds", "2", "--retention", "1d"]));
    scene.workers[0].ready().await;
    eventually_counts(&scene, DROPPED, 1.0).await;
    eventually_counts(&scene, PURGED_ROWS, 10.0).await;
    assert_eq!(scene.metric("pgsaga_database_errors_total{class=\"other\"}").await, 0.0);

    let calls = [
        "select pgsaga.purge_sagas('1 minute', 0, 1000000, 10)",
        "select pgsaga.purge_history('1 minute', 0, 0, 0, 1000000, 10)",
        "select pgsaga.drop_history_partition(0)",
    ];
    let mut session = connect(&scene).await;
    for role in ["pgsaga_producer", "pgsaga_reader", "pgsaga_operator", "pgsaga_worker"] {
        sqlx::raw_sql(AssertSqlSafe(format!("set role {role}"))).execute(&mut session).await.unwrap();
        for call in calls {
            let done = sqlx::raw_sql(call).execute(&mut session).await;
            let code =
                done.err().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()));
            let expected = (role != "pgsaga_worker").then_some("42501");
            assert_eq!(code.as_deref(), expected, "{role}: {call}");
        }
    }
    // Not even a worker may delete what has just ended.
    for age in ["'59 seconds'", "'-1 day'", "null"] {
        let call = format!("select pgsaga.purge_sagas({age}, 0, 1000000, 10)");
        let done = sqlx::raw_sql(AssertSqlSafe(call)).execute(&mut session).await;
        let Err(error) = done else { panic!("{age} is taken") };
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "22023", "{age}: {error}");
    }
}

#[tokio::test]
async fn less_than_a_minute_is_refused() {
    let scene = Scene::new().await;
    for (given, allowed) in [("59s", "allowed: 1m or more"), ("soon", "allowed: a duration such as")] {
        let mut worker = Worker::spawn(scene.db.url(), &["--retention", given]);
        assert_eq!(worker.wait_exit(PATIENCE).await.code(), Some(2));
        assert!(worker.log().join("\n").contains(allowed), "{:?}", worker.log());
    }
}
