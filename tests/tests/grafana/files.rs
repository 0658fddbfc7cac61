//! What the files say of each other, and of the metrics that workers export.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pgsaga_worker::telemetry::metrics;
use serde_json::Value;

use crate::board::{boards, title};
use crate::promql::metrics;
use crate::rules::rules;
use crate::text::{ROOT, quoted, read, table};

/// Exported, and on no panel: each with the reason why.
const NOT_SHOWN: &[(&str, &str)] = &[];
/// What Prometheus knows by itself.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];
/// Who is woken: by these alone.
const PAGES: [&str; 4] =
    ["PgsagaNoWorkerReady", "PgsagaManySagasStuck", "PgsagaSplitBrain", "PgsagaWorkNotFlowing"];
const RUNBOOKS: &str = "https://github.com/pgsaga/pgsaga/blob/main/docs/runbooks/";

/// The metric that a name of a series is of.
fn exported_as(series: &str) -> Option<&'static str> {
    metrics::table().find_map(|(name, kind, _)| {
        let rest = series.strip_prefix(name)?;
        let is_its = match *kind {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&rest),
            _ => rest.is_empty(),
        };
        is_its.then_some(*name)
    })
}

#[test]
fn every_query_names_only_metrics_that_workers_export() {
    let mut unknown = Vec::new();
    let mut check = |place: String, expr: &str| {
        let named = metrics(expr);
        assert!(!named.is_empty(), "{place}: {expr}: asks for nothing");
        unknown.extend(
            named
                .into_iter()
                .filter(|name| !OF_PROMETHEUS.contains(&name.as_str()) && exported_as(name).is_none())
                .map(|name| format!("{place}: {name}")),
        );
    };
    for board in boards() {
        for query in board.queries() {
            check(format!("{}: {}", board.file, title(query.panel)), query.expr);
        }
    }
    for rule in rules() {
        check(rule.alert.clone(), &rule.expr);
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn every_exported_metric_is_on_a_panel() {
    let boards = boards();
    let names = boards.iter().flat_map(|board| board.queries()).flat_map(|query| metrics(query.expr));
    let shown: BTreeSet<&str> = names.filter_map(|name| exported_as(&name)).collect();
    let exempt: BTreeSet<&str> = NOT_SHOWN.iter().map(|(name, _)| *name).collect();
    let exported: BTreeSet<&str> = metrics::table().map(|(name, ..)| *name).collect();
    let missing: Vec<&&str> =
        exported.iter().filter(|name| !shown.contains(*name) && !exempt.contains(*name)).collect();
    assert!(missing.is_empty(), "neither on a panel nor in NOT_SHOWN: {missing:?}");
    let stale: Vec<&&str> =
        exempt.iter().filter(|name| shown.contains(*name) || !exported.contains(*name)).collect();
    assert!(stale.is_empty(), "in NOT_SHOWN without need: {stale:?}");
}

#[test]
fn every_board_has_its_uid_and_asks_for_its_data_source_and_fleet() {
    let boards = boards();
    let files: Vec<&str> = boards.iter().map(|board| board.file.as_str()).collect();
    assert_eq!(files, ["overview", "postgres", "sagas", "workers"]);
    for board in &boards {
        assert_eq!(board.uid(), format!("pgsaga-{}", board.file));
        assert!(board.json["schemaVersion"].as_u64().unwrap() >= 39, "{}", board.file);
        assert!(board.json["id"].is_null(), "{}: an id is a server's", board.file);
        let variables = board.json["templating"]["list"].as_array().unwrap();
        let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(names[..3], ["datasource", "job", "database"], "{}", board.file);
        assert_eq!(variables[0]["type"], "datasource");
        for query in board.queries() {
            let place = format!("{}: {}", board.file, title(query.panel));
            assert_eq!(query.panel["datasource"]["uid"], "${datasource}", "{place}");
            assert!(query.expr.contains("job=\"$job\""), "{place}: of every fleet: {}", query.expr);
            for (nth, used) in query.expr.split('$').skip(1).enumerate() {
                let name: String =
                    used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let is_known =
                    names.contains(&name.as_str()) || ["__rate_interval", "__range"].contains(&name.as_str());
                assert!(is_known, "{place}: variable {nth}: ${name}");
            }
        }
    }
}

#[test]
fn every_panel_has_a_unit_words_and_a_place() {
    for board in boards() {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in board.json["panels"].as_array().unwrap() {
            let place = format!("{}: {}", board.file, title(panel));
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: its id is taken");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24 && w > 0 && h > 0, "{place}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = taken.insert(cell, title(panel)) {
                    panic!("{place}: lies on {other}");
                }
            }
        }
        for panel in board.panels() {
            let place = format!("{}: {}", board.file, title(panel));
            assert!(titles.insert(title(panel)), "{place}: twice");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!defaults["unit"].as_str().unwrap().is_empty(), "{place}: no unit");
            let words = panel["description"].as_str().unwrap_or_default();
            assert!(words.len() > 40 && words.ends_with('.'), "{place}: says too little: {words:?}");
            if panel["type"] == "stat" {
                let steps = defaults["thresholds"]["steps"].as_array();
                assert!(steps.is_some_and(|steps| !steps.is_empty()), "{place}: no thresholds");
            }
            if let Some(steps) = defaults["thresholds"]["steps"].as_array() {
                let values: Vec<Option<f64>> = steps.iter().map(|step| step["value"].as_f64()).collect();
                assert!(values[0].is_none() && values.is_sorted(), "{place}: {values:?}");
            }
        }
    }
}

/// A path of Grafana's, or of the repository on the web.
fn leads_somewhere(link: &str, uids: &BTreeSet<String>) -> bool {
    if let Some(rest) = link.strip_prefix("/d/") {
        return uids.contains(rest.split(['?', '/']).next().unwrap());
    }
    let runbook = link.strip_prefix(RUNBOOKS);
    runbook.is_some_and(|file| Path::new(ROOT).join("docs/runbooks").join(file).is_file())
}

#[test]
fn every_link_of_a_board_leads_to_a_board_or_a_runbook() {
    let boards = boards();
    let uids: BTreeSet<String> = boards.iter().map(|board| board.uid().to_owned()).collect();
    assert_eq!(uids.len(), boards.len(), "two boards have one uid");
    for board in &boards {
        for link in board.links() {
            assert!(leads_somewhere(link, &uids), "{}: {link}", board.file);
        }
        let own: BTreeSet<String> = board.json["links"].as_array().unwrap().iter().map(linked_uid).collect();
        let others: BTreeSet<String> = uids.iter().filter(|uid| *uid != board.uid()).cloned().collect();
        assert_eq!(own, others, "{} does not link all others", board.file);
    }
}

fn linked_uid(link: &Value) -> String {
    link["url"].as_str().unwrap().trim_start_matches("/d/").to_owned()
}

#[test]
fn every_alert_says_how_severe_it_is_and_names_its_dashboard_and_its_runbook() {
    let uids: BTreeSet<String> = boards().iter().map(|board| board.uid().to_owned()).collect();
    let rules = rules();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    assert_eq!(names.len(), rules.len(), "two alerts have one name");
    for rule in &rules {
        let said = |key: &str| rule.annotations.get(key).map(String::as_str).unwrap_or_default();
        let severity = if PAGES.contains(&rule.alert.as_str()) { "page" } else { "ticket" };
        assert_eq!(rule.labels.get("severity").map(String::as_str), Some(severity), "{}", rule.alert);
        assert!(said("summary").contains("{{ $labels.job }}"), "{}: of which fleet?", rule.alert);
        assert!(said("description").len() > 40 && said("description").ends_with('.'), "{}", rule.alert);
        assert!(leads_somewhere(said("dashboard"), &uids), "{}: {}", rule.alert, said("dashboard"));
        assert!(said("dashboard").contains("?var-job={{ $labels.job }}"), "{}", rule.alert);
        assert_eq!(said("runbook_url"), format!("{RUNBOOKS}{}.md", rule.alert));
        assert!(leads_somewhere(said("runbook_url"), &uids), "{}: no runbook", rule.alert);
    }
    let documented: Vec<(String, String)> = table(&read("grafana/README.md"), &["alert", "severity"])
        .into_iter()
        .map(|row| (row[0].split(['[', ']']).nth(1).unwrap().to_owned(), row[1].clone()))
        .collect();
    let exist: Vec<(String, String)> =
        rules.iter().map(|rule| (rule.alert.clone(), rule.labels["severity"].clone())).collect();
    assert_eq!(documented, exist, "the table of grafana/README.md");
}

#[test]
fn every_alert_is_seen_to_fire_and_none_is_quiet_for_want_of_a_metric() {
    let fires = read("grafana/alerts/tests/page.yml") + &read("grafana/alerts/tests/ticket.yml");
    let quiet = read("grafana/alerts/tests/quiet.yml");
    for rule in rules() {
        let firing = format!("alertname=\"{}\"", rule.alert);
        assert!(fires.contains(&firing), "{}: no test sees it fire", rule.alert);
        for scenario in ["an idle fleet of two", "a rolling upgrade under load"] {
            let test = quiet.split(&format!("name: {scenario}")).nth(1).unwrap();
            let test = test.split("promql_expr_test:").next().unwrap();
            for name in metrics(&rule.expr) {
                assert!(test.contains(&format!("'{name}{{")), "{}: {scenario}: no {name}", rule.alert);
            }
        }
    }
}

#[test]
fn every_metric_that_the_documents_name_is_exported() {
    let exempt = ["pgsaga_owner", "pgsaga_producer", "pgsaga_worker", "pgsaga_reader", "pgsaga_operator"];
    let mut documents = vec!["grafana/README.md".to_owned()];
    documents.extend(crate::runbooks::runbooks().into_iter().map(|(path, _)| path));
    for path in documents {
        let text = read(&path);
        for span in quoted(&text.split("```").step_by(2).collect::<String>()) {
            for word in span.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')) {
                if word.starts_with("pgsaga_") && !exempt.contains(&word) {
                    let is_whole = metrics::table().any(|(name, ..)| *name == word);
                    assert!(is_whole || exported_as(word).is_some(), "{path}: {word}");
                }
            }
        }
    }
}
