//! `pgsaga bench` measures what it says. Nothing here is about time: a figure that was slow is as
//! good as a fast one.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{eventually, pgsaga, sized};
use serde_json::{Map, Value};

/// A small load: a debug build on a busy machine is done with it in seconds.
const SMALL: [&str; 5] = ["--json", "--concurrency", "16", "--batch", "20"];

fn bench(scenario: &str, more: &[&str]) -> Map<String, Value> {
    bench_for(1, scenario, more)
}

fn bench_for(seconds: u32, scenario: &str, more: &[&str]) -> Map<String, Value> {
    let output = Command::new(pgsaga())
        .args(["bench", "--scenario", scenario])
        .args(SMALL)
        .args(["--duration-seconds", &seconds.to_string()])
        .args(more)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complained}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let Value::Object(object) = serde_json::from_str(&said).unwrap() else { panic!("{said}") };
    for (name, value) in &object {
        assert!(!value.is_object() && !value.is_array(), "{name} is not flat");
    }
    assert_eq!(object["scenario"], scenario);
    let (figure, holds, missed) = (&object["figure"], &object["holds"], object["missed"].as_str().unwrap());
    assert!(figure.as_f64().unwrap() >= 0.0 && object["bar"].as_f64().unwrap() > 0.0);
    assert_eq!(holds.as_bool().unwrap(), missed.is_empty(), "{missed}");
    object
}

fn number(object: &Map<String, Value>, name: &str) -> f64 {
    object
        .get(name)
        .unwrap_or_else(|| panic!("no {name}"))
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is null"))
}

/// The limit is what its parts say, the ratio is to it, and every cost has a figure.
#[test]
fn steady_composes_its_limit_of_what_it_measured() {
    let result = bench("steady", &["--steps", "3", "--payload-bytes", "100"]);
    let of = |name: &str| number(&result, name);
    let (http, sql, produce) =
        (of("http_calls_per_second"), of("sql_sagas_per_second"), of("produce_sagas_per_second"));
    let limit = 1.0 / (3.0 / http + 1.0 / sql + 1.0 / produce);
    assert!((of("limit_sagas_per_second") / limit - 1.0).abs() < 0.001, "{result:?}");
    let ratio = of("sagas_per_second") / limit;
    assert!((of("ratio") - ratio).abs() < 0.001, "{result:?}");
    assert_eq!(of("figure"), of("ratio"));
    for name in [
        "stub_calls_per_second",
        "first_call_p50_ms",
        "finished_p50_ms",
        "claim_tasks",
        "settle_tasks",
        "dead_rows_per_saga",
        "worker_commits_per_saga",
        "worker_memory_bytes",
        "worker_cpu_us_per_saga",
        "postgres_cpu_us_per_saga",
    ] {
        assert!(of(name) > 0.0, "{name}");
    }
    assert!(of("steps_bytes_per_saga") > 300.0, "three steps with a hundred bytes of payload each");
    assert!(of("wal_bytes_beside_steps") > 0.0);
    for (less, more) in [("first_call", "finished")] {
        for share in ["p50", "p90", "p99"] {
            assert!(of(&format!("{less}_{share}_ms")) <= of(&format!("{more}_{share}_ms")), "{result:?}");
        }
    }
}

/// Each fails by itself where a saga does not come to its end. A small run leaves out the scenarios
/// that measure what the machine can do beside what the workers do: they take all cores for a
/// while.
#[test]
fn every_short_scenario_measures_its_figure() {
    if sized(false, true) {
        let rollback = bench("rollback", &[]);
        assert!(number(&rollback, "ratio") > 0.0);
        assert!(number(&rollback, "dead_rows_per_saga") > number(&rollback, "worker_commits_per_saga"));
        let workers = bench("steady-workers", &[]);
        let sagas = number(&workers, "sagas_per_second_4_workers");
        assert!(number(&workers, "worst_to_best") <= 1.0 && sagas > 0.0);
    }
    let latency = bench("latency", &["--workers", "2"]);
    assert!(number(&latency, "sagas") >= 1.0);
    assert_eq!(number(&latency, "figure"), number(&latency, "p50_to_first_call_ms"));
    let idle = bench("idle", &["--workers", "2"]);
    assert!(number(&idle, "cores") > 0.0 && number(&idle, "statements_per_second") > 0.0);
    assert!(number(&bench("half-load", &[]), "p99_to_first_call_ms") > 0.0);
    // Long enough that some sagas begin and end in it though those that nobody answers have most of
    // the places, also on a busy machine.
    let dead = bench_for(5, "dead-participant", &[]);
    assert!(number(&dead, "others_sagas_per_second") > 0.0);
}

#[test]
fn every_long_scenario_measures_its_figure() {
    let held = bench_for(3, "held-snapshot", &[]);
    assert!(number(&held, "claim_buffers_first") > 0.0 && number(&held, "claim_buffers_last") > 0.0);
    if sized(false, true) {
        let backlog = bench("backlog", &["--sagas", "1000"]);
        assert!(number(&backlog, "ratio") > 0.0 && number(&backlog, "memory_growth") > 0.0);
        let history = bench_for(4, "history", &["--sagas", "2000"]);
        assert!(number(&history, "sagas_deleted") > 0.0, "retention runs meanwhile: {history:?}");
        let producers = bench("producers", &["--producers", "3"]);
        let inserts = number(&producers, "bare_inserts_per_second_3");
        assert!(inserts > 0.0 && number(&producers, "clients") == 3.0);
    }
}

/// Ended by a signal it says so, and leaves no server behind.
#[tokio::test]
async fn a_signal_ends_it_and_everything_that_it_started() {
    let mut running = Command::new(pgsaga())
        .args(["bench", "--json"])
        .env_remove("DATABASE_URL")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = running.id();
    let children = || {
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            fields.split_whitespace().nth(1)?.parse().ok()
        });
        all.filter(|parent: &u32| *parent == pid).count()
    };
    eventually(PATIENCE, "a server and a worker run", async || (children() >= 2).then_some(())).await;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).unwrap();
    let status = eventually(PATIENCE, "it ends", async || running.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(6));
    let output = running.wait_with_output().unwrap();
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped by a signal"));
    assert_eq!(children(), 0);
}

#[test]
fn a_flag_that_cannot_be_is_refused_with_what_is_allowed() {
    for (args, says) in [
        (["--scenario", "fast"], "possible values: steady, steady-workers, rollback"),
        (["--steps", "0"], "0 is not in 1..=100"),
        (["--batch", "1001"], "1001 is not in 1..=1000"),
        (["--duration-seconds", "0"], "0 is not in 1..=36000"),
        (["--sagas", "10"], "10 is not in 1000..=100000000"),
    ] {
        let output = Command::new(pgsaga()).arg("bench").args(args).output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && complained.contains(says), "{args:?}: {complained}");
    }
}
