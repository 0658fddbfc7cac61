//! Rows with extreme and unreadable values beside workers: each costs its own saga only.

use std::time::{Duration, Instant};

use pgsaga_tests::command::run;
use pgsaga_tests::extremes::{Extreme, apply, extremes};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, eventually, sized};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{OPEN, written};

/// Sagas that nobody has touched.
const GOOD: usize = 100;

/// Writes the saga `gid` of this kind down, due now, with steps that the scene's participant
/// serves.
async fn write(scene: &Scene, kind: &str, gid: &str) -> i64 {
    let sql = written(kind, gid).replace("http://shop.example:8080/pay", &scene.participant.url("/pay"));
    scene.pool().execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    let due = "update pgsaga.task set run_at = clock_timestamp() from pgsaga.saga s
               where s.id = saga_id and s.gid = $1 returning s.id";
    let due: Option<i64> = sqlx::query_scalar(due).bind(gid).fetch_optional(scene.pool()).await.unwrap();
    match due {
        Some(id) => id,
        None => {
            let id = sqlx::query_scalar("select id from pgsaga.saga where gid = $1").bind(gid);
            id.fetch_one(scene.pool()).await.unwrap()
        }
    }
}

async fn good(scene: &Scene, prefix: &str) {
    for nth in 0..GOOD {
        let saga = scene.saga(&format!("{prefix}{nth}")).step("a").step("b");
        let saga = if nth % 2 == 0 { saga } else { saga.with("after", json!([])) };
        saga.insert().await;
    }
}

async fn good_ends(scene: &Scene, prefix: &str) {
    eventually(PATIENCE, &format!("every good saga {prefix} ends"), async || {
        let ended: i64 = sqlx::query_scalar(
            "select count(*) from pgsaga.saga where starts_with(gid, $1) and status = 'succeeded'",
        )
        .bind(prefix)
        .fetch_one(scene.pool())
        .await
        .unwrap();
        (ended == GOOD as i64).then_some(())
    })
    .await;
}

/// Nobody can know the saga of a task that names another one: that saga has no task any more, which
/// `doctor` tells.
fn loses_its_saga(extreme: &Extreme) -> bool {
    (extreme.table, extreme.column.as_str()) == ("task", "saga_id")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_row_costs_more_than_its_own_saga() {
    let mut scene = Scene::new().await;
    let mut victims = Vec::new();
    let mut lost = Vec::new();
    for (nth, extreme) in extremes(scene.pool()).await.into_iter().enumerate() {
        for kind in OPEN {
            let gid = format!("v{nth}-{kind}");
            let id = write(&scene, kind, &gid).await;
            if !apply(scene.pool(), extreme.table, &extreme.column, &extreme.value, id).await {
                // Refused, so it is one more good saga; a stuck one waits for its person.
                continue;
            }
            if loses_its_saga(&extreme) {
                lost.push(id);
            } else {
                victims.push((id, format!("{kind}: {extreme}")));
            }
        }
    }
    assert!(victims.len() > sized(150, 500), "only {} values were taken", victims.len());
    // A person has what is stuck tried again: that works, or is refused in words.
    let retry = "do $$ declare g text; begin
        for g in select gid from pgsaga.saga where status = 'stuck' loop
          begin perform pgsaga.retry(g); exception when others then raise notice '%: %', g, sqlerrm; end;
        end loop; end $$";
    scene.pool().execute(retry).await.unwrap();
    good(&scene, "before").await;
    for _ in 0..2 {
        scene.start_worker(&[]).await;
    }
    good(&scene, "after").await;
    good_ends(&scene, "before").await;
    good_ends(&scene, "after").await;

    eventually(2 * PATIENCE, "every other saga ends or is stuck", async || {
        let open: Vec<i64> = sqlx::query_scalar(
            "select id from pgsaga.saga where finished_at is null and status <> 'stuck' and id <> all ($1)",
        )
        .bind(&lost)
        .fetch_all(scene.pool())
        .await
        .unwrap();
        let still: Vec<&str> =
            victims.iter().filter(|(id, _)| open.contains(id)).map(|(_, what)| what.as_str()).collect();
        if !open.is_empty() {
            eprintln!("{} open: {:#?}", open.len(), still.iter().take(10).collect::<Vec<_>>());
        }
        open.is_empty().then_some(())
    })
    .await;
    for worker in &mut scene.workers {
        assert!(worker.is_running());
        worker.ready().await;
        let failed = worker.metric("pgsaga_claims_total{result=\"error\"}").await;
        assert_eq!(failed, Some(0.0), "a claim failed because of a row");
    }
    // Who is stuck says why, and doctor names whoever lost its task.
    let said = run(&scene.db, &["doctor"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    for id in lost {
        let gid: String = sqlx::query_scalar("select gid from pgsaga.saga where id = $1")
            .bind(id)
            .fetch_one(scene.pool())
            .await
            .unwrap();
        assert!(said.out.contains(&format!("open_sagas_can_go_on: saga {gid}: ")), "{gid}");
    }
    assert!(!said.out.contains("the check could not run"), "{}", said.out);
}

/// CHECKs refuse such words. Without them, as after a restore by hand, a worker names the word and
/// those that it knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_no_worker_knows_is_named() {
    let mut scene = Scene::new().await;
    let words = [
        ("last_outcome", "attempt_outcome", "success, failure, ongoing, unknown, unsent"),
        ("interrupt", "task_interrupt", "unwind, skip, end"),
        ("op", "op", "action, compensate"),
    ];
    let mut expected = Vec::new();
    for (column, domain, allowed) in words {
        let id = write(&scene, "sequential", column).await;
        let sql = format!(
            "alter domain pgsaga.{domain} drop constraint {domain}_check;
             update pgsaga.task set {column} = 'later' where saga_id = {id}"
        );
        scene.pool().execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        expected.push((column, format!("{column}: found \"later\"; allowed: {allowed}")));
    }
    scene.start_worker(&[]).await;
    for (gid, named) in expected {
        let reason = eventually(PATIENCE, &format!("{gid} is stuck"), async || {
            let (status, reason) = scene.status(gid).await?;
            (status == "stuck").then(|| reason.unwrap())
        })
        .await;
        assert!(reason.contains(&named), "{reason}");
    }
}

/// Rows in front of a good saga.
const IN_FRONT: usize = 1_000;
/// Times that a saga is measured alone and behind them.
const PAIRS: usize = 5;

/// What is wrong with the saga `v…` whose row is updated, by turns: of its task, or of itself.
const FAULTS: [&str; 8] = [
    "update pgsaga.task set epoch = 2147483647",
    "update pgsaga.task set deadline = 'infinity'",
    "update pgsaga.task set attempt = 2147483647",
    "update pgsaga.task set bytes = 2147483647",
    "update pgsaga.saga set steps = '{}'",
    "update pgsaga.saga set steps = '[{\"action\": 7}]'",
    "update pgsaga.saga set created_at = 'infinity'",
    "update pgsaga.saga set request_timeout = '178000000 years'",
];

/// How long the saga `gid` takes from the moment its queue is resumed, behind `in_front` rows that
/// no worker can read.
async fn time_behind(scene: &Scene, gid: &str, in_front: usize) -> Duration {
    let pool = scene.pool();
    let sql = format!(
        "insert into pgsaga.saga (gid, queue, steps) select 'v-{gid}-' || n, 'q', '[{{\"action\": \"\"}}]'
         from generate_series(1, {in_front}) n"
    );
    pool.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    for (nth, fault) in FAULTS.iter().enumerate() {
        let key = if fault.contains("pgsaga.task") { "saga_id" } else { "id" };
        let chosen = format!(
            "{fault} where {key} in (select id from pgsaga.saga where gid like 'v-{gid}-%' and id % {} = {nth})",
            FAULTS.len()
        );
        pool.execute(sqlx::raw_sql(AssertSqlSafe(chosen))).await.unwrap();
    }
    scene.saga(gid).column("queue", "'q'").step("a").step("b").insert().await;
    let started = Instant::now();
    sqlx::query("select pgsaga.resume('q')").execute(pool).await.unwrap();
    scene.ended(gid).await;
    let took = started.elapsed();
    let left = "select count(*) from pgsaga.saga where finished_at is null and status <> 'stuck'";
    eventually(PATIENCE, "the rows in front are stuck", async || {
        let left: i64 = sqlx::query_scalar(left).fetch_one(pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    sqlx::query("select pgsaga.pause('q')").execute(pool).await.unwrap();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_rows_that_no_worker_can_read_hold_up_no_good_saga_behind_them() {
    let mut scene = Scene::with_worker().await;
    scene.saga("first").column("queue", "'q'").step("a").insert().await;
    scene.ended("first").await;
    sqlx::query("select pgsaga.pause('q')").execute(scene.pool()).await.unwrap();
    // As long as a call of a usual service, so that the machine's speed does not decide.
    scene.participant.ruled_by(|_| Behaviour::Slow(Duration::from_millis(100)));
    let mut ratios = Vec::new();
    for nth in 0..PAIRS {
        let alone = time_behind(&scene, &format!("alone{nth}"), 0).await;
        let behind = time_behind(&scene, &format!("behind{nth}"), IN_FRONT).await;
        eprintln!("alone {alone:?}, behind {IN_FRONT} rows {behind:?}");
        ratios.push(behind.as_secs_f64() / alone.as_secs_f64());
    }
    // Other work of the machine makes some pairs worse. If the saga were held up, all were worse.
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[0] < 1.5, "{ratios:?}");
    assert_eq!(scene.metric("pgsaga_unreadable_total").await, (PAIRS * IN_FRONT) as f64);
    assert!(scene.workers[0].is_running());
}

/// A row is changed beside a worker that has claimed from its lane before, so that its watermark
/// lies behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_time_is_set_back_by_hand_is_found_beside_a_running_worker() {
    let mut scene = Scene::with_worker().await;
    for nth in 0..20 {
        let gid = format!("before{nth}");
        scene.saga(&gid).step("a").insert().await;
        scene.ended(&gid).await;
    }
    for (gid, run_at, ends) in [
        ("infinite", "'-infinity'", "stuck"),
        ("ancient", "'4713-01-01 BC'", "stuck"),
        ("an-hour-ago", "clock_timestamp() - interval '1 hour'", "succeeded"),
    ] {
        scene.saga(gid).column("run_at", "clock_timestamp() + interval '1 hour'").step("a").insert().await;
        let change = format!(
            "update pgsaga.task set run_at = {run_at} where saga_id = (select id from pgsaga.saga where gid = '{gid}')"
        );
        scene.pool().execute(sqlx::raw_sql(AssertSqlSafe(change))).await.unwrap();
        let (status, reason) = scene.ended(gid).await;
        assert_eq!(status, ends, "{gid}: {reason:?}");
    }
    assert!(scene.workers[0].is_running());
}

/// The try that runs is recorded, whatever becomes of its row: else an abort would not undo it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_epoch_is_changed_by_hand_meanwhile_is_recorded_and_undone() {
    let mut scene = Scene::with_worker().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'20 seconds'").step("a");
    saga.action(Behaviour::Unknown(1).behind(&gate)).step("b").insert().await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.pool().execute("update pgsaga.task set epoch = 2147483647").await.unwrap();
    gate.open();
    let (status, reason) = scene.ended("s").await;
    assert!(status == "stuck" && reason.as_ref().unwrap().contains("epoch: found 2147483647"), "{reason:?}");
    assert_eq!(scene.history("s").await, ["a action 1 unknown"]);
    run(&scene.db, &["abort", "s", "--reason", "enough"]).fine();
    assert_eq!(scene.ended("s").await.0, "failed");
    assert_eq!(scene.participant.ops_for("s"), ["a action", "a compensate"]);
    scene.healthy().await;
    assert!(scene.workers[0].is_running());
}

/// Words that no index holds fail the statement that writes them down for others, unless it is cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_index_holds_keeps_no_other_saga_from_getting_stuck() {
    let scene = Scene::new().await;
    for nth in 0..20 {
        scene.saga(&format!("s{nth}")).step("a").insert().await;
    }
    // Incompressible, so that it is longer than an entry of an index may be.
    let change =
        "update pgsaga.saga s set steps = jsonb_build_array(jsonb_build_object('action', 7, 'name', (
        select string_agg(md5(n::text || s.gid), '') from generate_series(1, 300) n)))";
    scene.pool().execute(change).await.unwrap();
    let mut scene = scene;
    scene.start_worker(&[]).await;
    for nth in 0..20 {
        assert_eq!(scene.ended(&format!("s{nth}")).await.0, "stuck", "s{nth}");
    }
    assert_eq!(scene.metric("pgsaga_unreadable_total").await, 20.0);
}

/// A person has ended the saga, and waits for the last call; another of its rows cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_a_person_has_ended_ends_although_a_row_of_it_cannot_be_read() {
    for (decision, ends) in [("succeeded", "succeeded"), ("failed", "failed")] {
        let scene = Scene::with_worker().await;
        let gate = Gate::new();
        let saga = scene.saga("s").column("request_timeout", "'20 seconds'");
        let saga = saga.step("a").with("after", json!([])).action(Behaviour::Ok.behind(&gate));
        let saga = saga.step("b").with("after", json!([])).action(Behaviour::Status(500));
        saga.column("retry_interval", "'1 hour'").insert().await;
        eventually(PATIENCE, "b waits for its next try", async || {
            scene.history("s").await.contains(&"b action 1 unknown".to_owned()).then_some(())
        })
        .await;
        scene.pool().execute("update pgsaga.task set bytes = -1 where step = 2").await.unwrap();
        run(&scene.db, &["resolve", "s", decision, "--comment", "seen to it"]).fine();
        eventually(PATIENCE, "the row is gone", async || {
            let left: i64 = sqlx::query_scalar("select count(*) from pgsaga.task where step = 2")
                .fetch_one(scene.pool())
                .await
                .unwrap();
            (left == 0).then_some(())
        })
        .await;
        gate.open();
        assert_eq!(scene.ended("s").await.0, ends);
        scene.healthy().await;
    }
}
