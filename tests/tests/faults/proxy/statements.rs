//! Every statement of a worker that writes loses its reply, its request, and its replies for longer
//! than the lease: all ends by contract, nothing is called twice, and the worker goes on without a
//! restart.

mod provocation;

use std::time::{Duration, Instant};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use pgsaga_sql::query::{self, Statement};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Fault, eventually};

use super::{all, marker, scene, spawn};
use provocation::{Provocation, claim_and_forget, errors, finished_sagas};

/// What a statement is provoked by, what the log calls it, and its test.
struct Row {
    statement: &'static str,
    doing: &'static str,
    provoke: fn(Provocation<'_>) -> LocalBoxFuture<'_, ()>,
}

/// Statements that a running worker provokes from within; those of its start and its end have tests
/// of their own.
const RUNNING: &[Row] = &[
    Row { statement: "claim", doing: "claim", provoke: |round| round.saga_that_turns_back().boxed_local() },
    Row { statement: "settle", doing: "settle", provoke: |round| round.saga_that_turns_back().boxed_local() },
    Row {
        statement: "settle_parallel",
        doing: "settle",
        provoke: |round| round.parallel_saga().boxed_local(),
    },
    Row {
        statement: "heartbeat",
        doing: "heartbeat",
        provoke: |round| round.saga_that_turns_back().boxed_local(),
    },
    Row { statement: "release", doing: "release", provoke: |round| round.forgotten_claim().boxed_local() },
    Row { statement: "declare_dead", doing: "heartbeat", provoke: |round| round.dead_worker().boxed_local() },
    Row { statement: "rescue", doing: "rescue", provoke: |round| round.dead_worker().boxed_local() },
    Row { statement: "bury", doing: "rescue", provoke: |round| round.dead_worker().boxed_local() },
    Row { statement: "run_isolated", doing: "run isolated", provoke: |round| round.suspect().boxed_local() },
    Row {
        statement: "stick",
        doing: "make unreadable sagas stuck",
        provoke: |round| round.changed("counted = -1").boxed_local(),
    },
    Row { statement: "defer", doing: "defer", provoke: |round| round.dead_participant().boxed_local() },
    Row { statement: "open_lanes", doing: "open lanes", provoke: |round| round.unserved().boxed_local() },
    Row { statement: "move", doing: "move tasks", provoke: |round| round.unserved().boxed_local() },
    Row {
        statement: "overdue",
        doing: "look for overdue tasks",
        provoke: |round| round.unserved().boxed_local(),
    },
    Row { statement: "purge_sagas", doing: "retention", provoke: |round| round.old_sagas().boxed_local() },
    Row { statement: "purge_history", doing: "retention", provoke: |round| round.old_sagas().boxed_local() },
    Row {
        statement: "drop_history_partition",
        doing: "retention",
        provoke: |round| round.old_sagas().boxed_local(),
    },
];
const STARTING: &[&str] = &["make_history_partitions", "register"];
const ENDING: &[&str] = &["retire", "bury", "release"];
/// What a worker only reads with, or holds no row by.
const READING: &[&str] = &[
    "alive",
    "check_home",
    "completions",
    "details",
    "held",
    "history_partitions",
    "idle_lock",
    "idle_unlock",
    "interrupted",
    "listen_limits",
    "peek",
    "progress",
    "sample",
    "sample_queues",
    "sample_sagas",
    "schema_version",
    "server_history",
    "server_process",
    "server_role",
    "still_held",
    "unreachable",
    "wake",
];

fn is_run_by_people_or_producers(statement: &Statement) -> bool {
    ["decide", "migrate", "producer", "read", "ui"].contains(&statement.folder)
        || statement.name == "lock_holders"
}

#[test]
fn every_writing_statement_of_a_worker_is_in_a_table() {
    for Statement { name, sql, .. } in
        query::all().filter(|statement| !is_run_by_people_or_producers(statement))
    {
        let tested = RUNNING.iter().any(|row| row.statement == *name)
            || STARTING.contains(name)
            || ENDING.contains(name);
        let reads = READING.contains(name);
        assert!(tested || reads, "no test loses the replies of {name}, nor is it said to write nothing");
        let code: String = sql.lines().filter(|line| !line.starts_with("--")).collect();
        let writes =
            ["insert into", "update pgsaga", "delete from", "pgsaga.make_", "pgsaga.purge_", "pgsaga.drop_"]
                .iter()
                .any(|word| code.contains(word));
        assert_eq!(writes, tested, "{name}");
        let alike = query::all().filter(|other| other.sql.contains(marker(name))).count();
        assert_eq!(alike, 1, "the first line of {name} is not its own");
    }
}

async fn survives(row: &Row) {
    let (mut scene, proxy) = scene().await;
    let flags: &[&str] = if row.doing == "retention" { &["--retention", "1m"] } else { &[] };
    spawn(&mut scene, &proxy, flags);
    scene.workers[0].ready().await;
    let faults = [
        ("reply", Fault::cut_before_reply(marker(row.statement))),
        ("request", Fault::cut_before_request(marker(row.statement))),
        ("replies", Fault::cut_before_reply(marker(row.statement)).always()),
    ];
    for (round, fault) in faults {
        if row.doing == "retention" {
            finished_sagas(&scene).await;
        }
        let before = errors(&scene).await;
        let lost = proxy.inject(fault);
        let lasting = lost.clone();
        let lift = async move {
            if round == "replies" {
                // Longer than the lease. What was committed although its reply was lost may not
                // come again.
                lasting.wait_until_struck(1, PATIENCE).await;
                tokio::time::sleep(Duration::from_millis(2200)).await;
                lasting.lift();
            }
        };
        let provocation = Provocation { scene: &mut scene, proxy: &proxy, round };
        let provoke = async {
            (row.provoke)(provocation).await;
            Instant::now()
        };
        let (ended, lifted) = tokio::join!(provoke, async {
            lift.await;
            Instant::now()
        });
        lost.wait_until_struck(1, PATIENCE).await;
        let took = ended.saturating_duration_since(lifted);
        assert!(
            round != "replies" || took < Duration::from_secs(8),
            "{}: {took:?} after the link was whole",
            row.statement
        );
        eventually(PATIENCE, &format!("a metric says that {} failed", row.statement), async || {
            (errors(&scene).await > before).then_some(())
        })
        .await;
        let named = format!("\"doing\":\"{}\"", row.doing);
        scene.workers[0].wait_for_log(&named, PATIENCE).await;
    }
    assert!(!scene.workers[0].log().iter().any(|line| line.contains("declared dead; it drops")));
    assert!(scene.workers[0].is_running());
    scene.workers[0].ready().await;
    scene.saga("after").step("pay").insert().await;
    scene.expect("after", "succeeded", None, &["pay action"]).await;
}

#[tokio::test]
async fn no_lost_reply_or_request_of_a_running_worker_skips_repeats_or_loses_anything() {
    all(RUNNING.iter().map(|row| (row.statement.to_owned(), survives(row)))).await;
}

#[tokio::test]
async fn what_a_lost_claim_forgot_comes_back_at_once_and_without_a_death() {
    let (mut scene, proxy) = scene().await;
    // No lease and no death could bring it back within the test.
    spawn(&mut scene, &proxy, &["--lease-seconds", "60"]);
    scene.workers[0].ready().await;
    claim_and_forget(&scene, &proxy, "s").await;
    let whole = Instant::now();
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    assert!(whole.elapsed() < Duration::from_secs(5), "{:?}", whole.elapsed());
    assert!(scene.metric("pgsaga_reconciled_total").await >= 1.0);
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 0.0);
}

/// What it held under its old id it may have called: a rescue records that, and to hand it back
/// would not.
#[tokio::test]
async fn a_worker_that_registers_anew_while_it_reconciles_hands_back_nothing_of_its_old_id() {
    let (mut scene, proxy) = scene().await;
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Sequence(vec![Behaviour::Hang])).insert().await;
    spawn(&mut scene, &proxy, &["--database-timeout-seconds", "30"]);
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let reconciles = proxy.inject(Fault::stall().on(marker("held")));
    let rescues = proxy.inject(Fault::stall().on(marker("rescue")).always());
    reconciles.wait_until_struck(1, PATIENCE).await;
    let declare = "update pgsaga.worker set dead = true where not dead";
    sqlx::query(declare).execute(scene.pool()).await.unwrap();
    rescues.wait_until_struck(1, PATIENCE).await;
    let ticks = async || scene.metric("pgsaga_loop_ticks_total{loop=\"reconcile\"}").await;
    let before = ticks().await;
    reconciles.lift();
    eventually(PATIENCE, "it has reconciled", async || (ticks().await > before).then_some(())).await;
    rescues.lift();
    scene.expect("s", "succeeded", None, &["pay action", "pay action"]).await;
    assert_eq!(scene.history("s").await, ["pay action 1 unknown", "pay action 2 success"]);
}

/// Waits until the database knows only workers that live: orphans of lost registrations are buried.
async fn only_the_living_are_registered(scene: &Scene, living: i64) {
    eventually(PATIENCE, "orphans are buried", async || {
        let workers = "select count(*) from pgsaga.worker";
        let workers: i64 = sqlx::query_scalar(workers).fetch_one(scene.pool()).await.unwrap();
        (workers == living).then_some(())
    })
    .await;
}

async fn starts(statement: &'static str) {
    let (mut scene, proxy) = scene().await;
    let reply = proxy.inject(Fault::cut_before_reply(marker(statement)).times(3));
    let request = proxy.inject(Fault::cut_before_request(marker(statement)));
    spawn(&mut scene, &proxy, &[]);
    scene.workers[0].ready().await;
    assert_eq!((reply.struck(), request.struck()), (3, 1), "{statement}");
    scene.workers[0].wait_for_log("waiting for Postgres", PATIENCE).await;
    assert_eq!(errors(&scene).await, 4.0, "{statement}");
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    only_the_living_are_registered(&scene, 1).await;
}

#[tokio::test]
async fn a_worker_whose_first_statements_are_lost_starts_in_the_end_and_leaves_no_orphan() {
    all(STARTING.iter().map(|statement| ((*statement).to_owned(), starts(statement)))).await;
}

async fn goes_home(statement: &'static str, fault: Fault) {
    let (mut scene, proxy) = scene().await;
    let gate = pgsaga_tests::Gate::new();
    // Before the worker, which claims both at once: of a participant that has not answered for a
    // second it claims no more.
    for gid in ["a", "b"] {
        let saga = scene.saga(gid).column("request_timeout", "'60 seconds'").step("pay");
        saga.action(Behaviour::Gate(gate.clone())).insert().await;
    }
    // One call runs, another is held and not started.
    spawn(&mut scene, &proxy, &["--concurrency", "1", "--grace-seconds", "10"]);
    scene.participant.wait_for_calls(1, PATIENCE).await;
    eventually(PATIENCE, "the other one is held", async || {
        (scene.metric("pgsaga_tasks_held").await == 2.0).then_some(())
    })
    .await;
    let lost = proxy.inject(fault);
    scene.workers[0].terminate();
    scene.workers[0].wait_for_log("draining", PATIENCE).await;
    gate.open();
    let exit = scene.workers[0].wait_exit(Duration::from_secs(10)).await;
    assert_eq!((exit.code(), lost.struck()), (Some(0), 1), "{statement}");
    scene.workers.clear();
    scene.start_worker(&[]).await;
    for gid in ["a", "b"] {
        scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }
    only_the_living_are_registered(&scene, 1).await;
}

#[tokio::test]
async fn a_worker_whose_last_statements_are_lost_goes_home_and_what_it_held_goes_on() {
    all(ENDING.iter().flat_map(|statement| {
        let marker = marker(statement);
        [("reply", Fault::cut_before_reply(marker)), ("request", Fault::cut_before_request(marker))]
            .map(|(lost, fault)| (format!("{statement} {lost}"), goes_home(statement, fault)))
    }))
    .await;
}

/// A breaker opens, and all that waits to call its participant goes back at once. Where that is
/// lost, memory may not keep it: reconciling looks after what the worker does not know.
#[tokio::test]
async fn a_task_whose_way_back_to_the_queue_is_lost_is_not_held_for_ever() {
    let marker = marker("release");
    for fault in [Fault::cut_before_reply(marker), Fault::cut_before_request(marker)] {
        let (mut scene, proxy) = scene().await;
        scene.participant.refuse_connections().await;
        let steps = scene.saga("s").step("pay").steps();
        // One claim brings them all, and most have to wait for their turn.
        let insert = "insert into pgsaga.saga (steps, retry_interval) select $1, '50 milliseconds' from generate_series(1, 100)";
        sqlx::query(insert).bind(steps).execute(scene.pool()).await.unwrap();
        let lost = proxy.inject(fault);
        spawn(&mut scene, &proxy, &["--concurrency", "128"]);
        lost.wait_until_struck(1, PATIENCE).await;
        scene.participant.accept_again().await;
        scene.all_ended(PATIENCE).await;
        scene.workers[0].wait_for_log("\"doing\":\"release\"", PATIENCE).await;
    }
}
