//! Everything at once, from a seed: workers killed, frozen and replaced, backends terminated, Postgres crashed, while
//! participants misbehave. `SEED` repeats a run, `CHAOS_SECONDS` makes it longer.

use std::env;
use std::time::{Duration, Instant};

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Worker, eventually};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const WORKERS: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What one step does, most of them well.
fn behaviour(random: &mut StdRng) -> Behaviour {
    match random.random_range(0..20) {
        0 => Behaviour::Refuse("no".into()),
        1 => Behaviour::Unknown(random.random_range(1..3)),
        2 => Behaviour::Sequence(vec![Behaviour::CloseAfter]),
        3 => Behaviour::Sequence(vec![Behaviour::CloseBefore]),
        4 => Behaviour::Ongoing(1),
        5 => Behaviour::Sequence(vec![Behaviour::Hang]),
        6 => Behaviour::Sequence(vec![
            Behaviour::CloseAfter,
            Behaviour::Refuse("done before".into()),
            Behaviour::Refuse("done before".into()),
        ]),
        7..10 => Behaviour::Slow(Duration::from_millis(random.random_range(1..200))),
        _ => Behaviour::Ok,
    }
}

async fn insert(scene: &Scene, random: &mut StdRng, gid: &str) -> bool {
    let mut saga = scene
        .saga(gid)
        .column("request_timeout", "'400 milliseconds'")
        .column("retry_interval", "'50 milliseconds'");
    let steps = random.random_range(1..6);
    let parallel = random.random_ratio(1, 2);
    let pivot = (!parallel && random.random_ratio(1, 6)).then(|| random.random_range(0..steps));
    for step in 0..steps {
        saga = saga.step(&format!("step-{step}"));
        if parallel {
            let after: Vec<String> = (0..step)
                .filter(|_| random.random_ratio(1, 2))
                .map(|before| format!("step-{before}"))
                .collect();
            saga = saga.with("after", json!(after));
        }
        if pivot == Some(step) {
            saga = saga.with("pivot", json!(true));
        }
        // After the pivot a refusal is for a person, and nothing can be undone.
        saga = match (behaviour(random), pivot.is_some_and(|pivot| pivot < step)) {
            (Behaviour::Refuse(_) | Behaviour::Sequence(_), true) => {
                saga.action(Behaviour::Unknown(2)).with("compensate", Value::Null)
            }
            (behaviour, true) => saga.action(behaviour).with("compensate", Value::Null),
            (behaviour, false) => saga.action(behaviour),
        };
        if random.random_ratio(1, 4) && pivot.is_none() {
            saga = saga.compensate(Behaviour::Sequence(vec![Behaviour::Status(500), Behaviour::CloseAfter]));
        }
    }
    if random.random_ratio(1, 6) {
        let timeout = random.random_range(50..2000);
        saga = saga.column("timeout_to_fail", &format!("'{timeout} milliseconds'"));
    }
    saga.try_insert().await.is_ok()
}

/// An operator who changes his mind about some of the latest sagas.
async fn abort_some(scene: &Scene, random: &mut StdRng, newest: usize) {
    for _ in 0..3 {
        let gid = format!("chaos-{}", newest.saturating_sub(random.random_range(1..60)));
        // It may have ended, may be past its pivot, or Postgres may be away.
        let _ = sqlx::query("select pgsaga.abort($1, 'chaos')").bind(gid).execute(scene.pool()).await;
    }
}

/// One fault. Whoever is killed is replaced, so that somebody is always there.
async fn fault(scene: &mut Scene, cluster: &Cluster, random: &mut StdRng) -> &'static str {
    let victim = random.random_range(0..scene.workers.len());
    let kind = *["kill", "freeze", "terminate", "backends", "crash"].choose(random).unwrap();
    match kind {
        "kill" => scene.workers[victim].kill9(),
        "freeze" => {
            // Past its lease of two seconds; thawed by the end of the run, or by its replacement's turn.
            scene.workers[victim].stop_signal();
            return kind;
        }
        "terminate" => scene.workers[victim].terminate(),
        "backends" => {
            let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgsaga' order by random() limit 3";
            let _ = sqlx::raw_sql(terminate).execute(scene.pool()).await;
            return kind;
        }
        _ => {
            tokio::task::block_in_place(|| cluster.server().restart_immediate()).unwrap();
            return kind;
        }
    }
    scene.workers.push(Worker::spawn(scene.db.url(), &["--lease-seconds", "2"]));
    kind
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_every_saga_ends_all_done_or_all_undone() {
    let seed = setting("SEED", 20_261_122);
    let seconds = setting("CHAOS_SECONDS", 12);
    println!("SEED={seed} CHAOS_SECONDS={seconds}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::own(true, false).await;
    let mut scene = Scene::on(&cluster).await;
    for _ in 0..WORKERS {
        scene.start_worker(&[]).await;
    }
    let began = Instant::now();
    let (mut tried, mut faults) = (0, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..25 {
            insert(&scene, &mut random, &format!("chaos-{tried}")).await;
            tried += 1;
        }
        abort_some(&scene, &mut random, tried).await;
        faults.push(fault(&mut scene, &cluster, &mut random).await);
        let pause = random.random_range(200..900);
        tokio::time::sleep(Duration::from_millis(pause)).await; // the moment of the next fault is what is varied
        for worker in &mut scene.workers {
            if random.random_ratio(1, 3) {
                worker.continue_signal();
            }
        }
    }
    println!("faults: {faults:?}");
    for worker in &mut scene.workers {
        worker.continue_signal();
    }
    eventually(PATIENCE, "Postgres answers", async || {
        sqlx::query("select 1").execute(scene.pool()).await.ok()
    })
    .await;
    scene.all_ended(PATIENCE).await;
    scene.healthy().await;
    judge(&scene, seed).await;
    for worker in &scene.workers {
        let errors: Vec<String> =
            worker.log().into_iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
        assert!(errors.is_empty(), "SEED={seed}: none of these faults is an error of ours: {errors:?}");
    }

    scene.saga("tail").step("pay").insert().await;
    assert_eq!(scene.ended("tail").await.0, "succeeded", "after the last fault the fleet works");
}

/// The participant's own ledger against what the database says.
async fn judge(scene: &Scene, seed: u64) {
    let sagas: Vec<(String, String, i32)> =
        sqlx::query_as("select gid, status, jsonb_array_length(steps) from pgsaga.saga")
            .fetch_all(scene.pool())
            .await
            .unwrap();
    let calls = scene.participant.calls();
    let (mut succeeded, mut failed) = (0, 0);
    for (gid, status, steps) in &sagas {
        let done = |step: i32, op: &str| {
            let name = format!("step-{step}");
            calls
                .iter()
                .any(|call| call.gid == *gid && call.branch_id == name && call.op == op && call.worked)
        };
        match status.as_str() {
            "succeeded" => {
                succeeded += 1;
                for step in 0..*steps {
                    assert!(done(step, "action"), "SEED={seed}: {gid} succeeded without step {step}");
                }
                assert!(
                    calls.iter().all(|call| call.gid != *gid || call.op == "action"),
                    "SEED={seed}: {gid} was undone"
                );
            }
            "failed" => {
                failed += 1;
                for step in 0..*steps {
                    let undone = !done(step, "action") || done(step, "compensate");
                    assert!(undone, "SEED={seed}: {gid} failed, and step {step} was done and not undone");
                }
            }
            other => panic!("SEED={seed}: {gid} is {other}"),
        }
    }
    let committed: std::collections::HashSet<_> = sagas.iter().map(|(gid, ..)| gid.as_str()).collect();
    assert!(
        calls.iter().all(|call| committed.contains(call.gid.as_str())),
        "SEED={seed}: a saga that was never committed called somebody"
    );
    println!("{succeeded} succeeded, {failed} failed, {} calls", calls.len());
    assert!(succeeded > 0 && failed > 0);
}
