//! A real Prometheus scrapes two real workers under a mixed load: every panel's query finds
//! numbers, every alert's query is evaluated, and what the fleet suffers from is what fires.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Behaviour, Participant, Worker, setting, tool};
use pgsaga_worker::telemetry::metrics;
use serde_json::{Map, Value, json};

use crate::board::{boards, title};
use crate::prometheus::{JOB, Prometheus};
use crate::rules::{FILE, rules};
use crate::text::{ROOT, quoted, read, table};

/// Between two rounds of what applications insert.
const ROUND_EVERY: Duration = Duration::from_millis(500);
/// For what must be seen before anything is asked. Samples are taken every 15 s, rules evaluated
/// every 30 s.
const SEEN_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test]
#[cfg_attr(not(has_prometheus), ignore = "needs prometheus: apt-get install prometheus")]
async fn every_query_finds_something_where_two_workers_work() {
    let seconds = setting("GRAFANA_SECONDS", 0);
    let mut scene = Scene::new().await;
    scene.participant.without_memory().ruled_by(|call| match (call.path.as_str(), call.op.as_str()) {
        ("/refuses", "action") | ("/sealed", "compensate") => Behaviour::Refuse("sold out".into()),
        ("/errs", _) => Behaviour::Unknown(1),
        ("/patience", _) => Behaviour::Ongoing(1),
        ("/slow", _) => Behaviour::Slow(Duration::from_millis(200)),
        _ => Behaviour::Ok,
    });
    let away = Participant::away_with_ledger().await;
    for _ in 0..2 {
        scene.start_worker(&["--concurrency", "64", "--retention", "1m"]).await;
    }
    let addresses = [scene.workers[0].address().await, scene.workers[1].address().await];
    // Not scraped: the database alone knows it, and the others see it die.
    let mut dying = Some(Worker::spawn(scene.db.url(), &["--lease-seconds", "2"]));
    dying.as_ref().unwrap().ready().await;
    let prometheus = Prometheus::start(&tool("prometheus"), &addresses).await;
    let started = now(&prometheus).await;

    let begun = Instant::now();
    let mut rounds = tokio::time::interval(ROUND_EVERY);
    for round in 0.. {
        rounds.tick().await;
        insert(&scene, &away, round).await;
        let elapsed = begun.elapsed();
        if elapsed > Duration::from_secs(seconds / 2)
            && let Some(mut worker) = dying.take()
        {
            worker.kill9();
        }
        let unseen = unseen(&prometheus).await;
        if unseen.is_empty() && elapsed > Duration::from_secs(seconds) {
            break;
        }
        assert!(elapsed < SEEN_WITHIN + Duration::from_secs(seconds), "not seen: {unseen:?}");
    }

    let mut empty = Vec::new();
    for board in boards() {
        for query in board.queries() {
            let values = prometheus.values(&in_full(query.expr)).await;
            if !values.iter().any(|value| value.is_finite()) {
                empty.push(format!("{}: {}: {}: {values:?}", board.file, title(query.panel), query.expr));
            }
        }
    }
    assert_eq!(empty, Vec::<String>::new());

    let mut firing = BTreeSet::new();
    for rule in rules() {
        if !prometheus.values(&rule.expr).await.is_empty() {
            firing.insert(rule.alert);
        }
    }
    for alert in ["PgsagaSagasStuck", "PgsagaParticipantDown", "PgsagaUnknownOutcomesHigh"] {
        assert!(firing.contains(alert), "{alert} should fire, not only {firing:?}");
    }
    for alert in ["PgsagaNoWorkerReady", "PgsagaWorkNotFlowing", "PgsagaSplitBrain", "PgsagaWorkersDown"] {
        assert!(!firing.contains(alert), "{alert} fires");
    }

    assert_eq!(documented_labels(), exported_labels(&scene).await, "the table of grafana/README.md");
    keep(&prometheus, started).await;
    scene.healthy().await;
}

/// What must have happened, and was not seen yet.
async fn unseen(prometheus: &Prometheus) -> Vec<String> {
    let mut unseen = Vec::new();
    for condition in [
        "min(count_over_time(pgsaga_ready[1m])) >= 20",
        "max(pgsaga_sagas_stuck) > 0",
        "max(pgsaga_breaker_open) > 0",
        "sum(pgsaga_dead_workers_total) > 0",
        "sum(pgsaga_sagas_finished_total{status=\"failed\"}) > 0",
        "sum(increase(pgsaga_attempts_total{outcome=\"unknown\"}[10m])) > 30",
    ] {
        if prometheus.values(condition).await.is_empty() {
            unseen.push(condition.to_owned());
        }
    }
    let groups = prometheus.ask("rules", &[("type", "alert")]).await.unwrap();
    for rule in
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        assert!(rule["health"] != "err", "{}: {}", rule["name"], rule["lastError"]);
        if rule["health"] != "ok" {
            unseen.push(format!("an evaluation of {}", rule["name"]));
        }
    }
    unseen
}

/// A few sagas of each kind; some kinds come once.
async fn insert(scene: &Scene, away: &Participant, round: usize) {
    let step = |name: &str, path: &str| {
        let url = scene.participant.url(path);
        json!({"name": name, "action": url, "compensate": url})
    };
    let once = i32::from(round == 0);
    let kinds = [
        ("done", 24, "default", None, json!([step("stock", "/stock"), step("pay", "/slow")])),
        ("report", 4, "reports", None, json!([step("report", "/report")])),
        ("undone", 6, "default", None, json!([step("stock", "/stock"), step("pay", "/refuses")])),
        ("errs", 8, "default", None, json!([step("stock", "/errs"), step("pay", "/pay")])),
        ("patience", 2, "default", None, json!([step("stock", "/patience")])),
        ("sealed", 2 * once, "default", None, json!([step("stock", "/sealed"), step("pay", "/refuses")])),
        ("later", 5 * once, "reports", Some(3600), json!([step("stock", "/stock")])),
        ("away", 2 + 60 * once, "default", None, json!([{"name": "mail", "action": away.url("/mail")}])),
    ];
    for (kind, count, queue, later, steps) in kinds {
        let kind = json!({
            "gid": format!("{kind}-{round}"), "count": count, "queue": queue, "later": later, "steps": steps,
        });
        sqlx::query(
            "insert into pgsaga.saga (gid, queue, run_at, retry_interval, steps)
             select gid || '-' || n, queue, now() + later * interval '1 second', '1 second', steps
             from jsonb_to_record($1) as kind (gid text, count int, queue text, later int, steps jsonb),
               generate_series(1, count) n",
        )
        .bind(kind)
        .execute(scene.pool())
        .await
        .unwrap();
    }
}

/// With what Grafana puts in the place of its variables.
fn in_full(expr: &str) -> String {
    expr.replace("$__rate_interval", "30s")
        .replace("$__range", "10m")
        .replace("$job", JOB)
        .replace("$database", ".*")
        .replace("$instance", ".+")
}

/// The labels of each metric, as the table has them.
fn documented_labels() -> BTreeMap<String, BTreeSet<String>> {
    let rows = table(&read("grafana/README.md"), &["metric", "kind", "unit", "labels"]);
    let words = |cell: &str| quoted(cell).map(str::to_owned).collect::<BTreeSet<String>>();
    rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), words(&row[3]))).collect()
}

/// The labels of each metric, as two workers under load export them.
async fn exported_labels(scene: &Scene) -> BTreeMap<String, BTreeSet<String>> {
    let text = scene.workers[0].metrics().await + &scene.workers[1].metrics().await;
    let labels = |name: &str, kind: &str| -> BTreeSet<String> {
        let name = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
        let series: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix(name.as_str()))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .collect();
        assert!(!series.is_empty(), "{name} is not exported");
        // A label's value may hold anything but `="`.
        let keys = series
            .iter()
            .flat_map(|series| series.split("=\""))
            .filter_map(|part| part.rsplit(['{', ',']).next());
        keys.filter(|key| {
            key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !key.is_empty() && *key != "le"
        })
        .map(str::to_owned)
        .collect()
    };
    metrics::table().map(|(name, kind, _)| ((*name).to_owned(), labels(name, kind))).collect()
}

/// Prometheus's own clock, in seconds.
async fn now(prometheus: &Prometheus) -> f64 {
    prometheus.values("vector(time())").await[0]
}

/// What each panel showed over the whole run, for `grafana/draw`.
async fn keep(prometheus: &Prometheus, from: f64) {
    let to = now(prometheus).await;
    let step = ((to - from) / 240.0).max(1.0);
    let mut all = Map::new();
    for board in boards() {
        let mut panels = Map::new();
        for query in board.queries() {
            let [expr, start, end, step] =
                [in_full(query.expr), from.to_string(), to.to_string(), step.to_string()];
            let range = [("query", &*expr), ("start", &*start), ("end", &*end), ("step", &*step)];
            let mut data = prometheus.ask("query_range", &range).await.unwrap();
            let results = panels.entry(query.panel["id"].to_string()).or_insert_with(|| json!({}));
            results[query.ref_id] = data["result"].take();
        }
        all.insert(board.file.clone(), Value::Object(panels));
    }
    let folder = Path::new(ROOT).join("target/grafana");
    fs::create_dir_all(&folder).unwrap();
    let kept = json!({"from": from, "to": to, "step": step, "boards": all});
    fs::write(folder.join("results.json"), kept.to_string()).unwrap();
}

#[test]
#[cfg_attr(not(has_promtool), ignore = "needs promtool: apt-get install prometheus")]
fn promtool_finds_the_rules_well_and_their_tests_pass() {
    let promtool = tool("promtool");
    let tests = fs::read_dir(Path::new(ROOT).join("grafana/alerts/tests")).unwrap();
    let mut tests: Vec<String> = tests
        .map(|entry| format!("grafana/alerts/tests/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    tests.sort();
    assert_eq!(tests.len(), 3);
    let run = |arguments: &[&str], files: &[String]| {
        let output = Command::new(&promtool).args(arguments).args(files).current_dir(ROOT).output().unwrap();
        let said = crate::text::text(&output.stdout) + &crate::text::text(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    };
    run(&["check", "rules", "--lint=all", "--lint-fatal"], &[FILE.to_owned()]);
    run(&["test", "rules"], &tests);
}
