use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pgsaga_tests::controls::{Control, Rule, read};

/// Every rule that a test must miss: the races that broke earlier drafts, and seven that no race is named after.
const RULES: [(&str, &str); 35] = [
    ("01_repeated_settle", "a settle that is said twice applies once"),
    (
        "02_forgotten_claim",
        "what a living worker holds without knowing it goes back; rows are decoded one by one",
    ),
    ("03_only_ever_ongoing", "ongoing may have taken effect"),
    ("04_lost_try", "a rescue records the lost try as unknown"),
    ("05_abort_against_advance", "who inserts or deletes tasks locks the saga; a fence includes the mark"),
    ("06_finish_against_abort", "a settle writes only from what both its locks returned"),
    ("07_lost_join", "a settle of a parallel saga names the version it planned from, and raises it"),
    ("08_one_open_psql", "a settle waits for no row"),
    (
        "09_a_participants_bytes",
        "answers are decoded, cleaned and bounded; a group is halved until its culprit is stuck",
    ),
    ("10_emptied_worker_table", "the worker table is logged, and its ids are never used again"),
    ("11_a_clock_step", "heartbeats are counters, watched on the observer's own clock"),
    ("12_claim_after_the_rescue", "what creates or moves claimed rows holds its worker's row"),
    ("13_pivot_unknown", "once a pivot was called its definite outcome is waited for"),
    ("14_refused_while_it_runs", "a refusal after an unknown try is asked once more; still working is 425"),
    ("15_action_after_its_undo", "behind a barrier a late action does nothing"),
    ("16_colliding_keys", "the character sets of gids and step names"),
    ("17_changed_bytes", "a body is jsonb's own text"),
    ("18_low_water_mark", "a mark passes nothing that can still be claimed"),
    ("19_look_then_wait", "a wake-up is a hint, early polls are quick, idleness is an advisory lock"),
    ("20_poison", "suspects run alone, and only a death alone counts"),
    ("21_old_worker_new_row", "a worker claims only formats that it knows"),
    ("22_cached_refusal", "a fresh key only where every try was definitely refused"),
    ("23_late_answer", "a late answer is recorded first, then the decision applies"),
    ("24_statistics", "hot statements are planned without statistics"),
    ("barriers_first_insert", "an undo takes the place of its action first"),
    ("compensating_ongoings", "a step whose last answer was ongoing is undone"),
    ("compensating_unknowns", "a step with an unknown try is undone"),
    ("cut_over", "a clash of ids is an error, and doctor names the sequence"),
    ("lease_check", "past its lease a worker starts no call"),
    ("no_try", "only the participant's own answer overrides what it accepted; what was not sent is known"),
    ("retention", "only what finished long ago goes, where somebody asked for it"),
    ("retry_after", "Retry-After is a second at least, and grows as the backoff does"),
    ("safety", "plain URLs reach public addresses alone, and a signature can be read one way only"),
    ("unreadable", "a row costs its own saga only, whatever it holds"),
    ("watchdog", "an outage of Postgres restarts no worker; one that stands still is restarted"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rules() -> Vec<Rule> {
    read(&root().join("tests/controls")).unwrap()
}

fn controls() -> Vec<Control> {
    rules().into_iter().flat_map(|rule| rule.controls).collect()
}

#[test]
fn every_rule_has_a_control() {
    let rules = rules();
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, RULES.map(|(name, _)| name));
    let races: Vec<u8> = rules.iter().filter_map(Rule::race).collect();
    assert_eq!(races, Vec::from_iter(1..=24));
    for rule in &rules {
        assert!(!rule.controls.is_empty(), "{} has no control", rule.name);
    }
    let controls = controls();
    let names: BTreeSet<&str> = controls.iter().map(|control| control.name.as_str()).collect();
    assert_eq!(names.len(), controls.len(), "two controls have one name");
    let said = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let count = format!("with the words expected: {} for every known race", controls.len());
    assert!(said.contains(&count), "docs/reliability.md does not say that there are {}", controls.len());
}

/// A control changes the product, never a test: what it looks for is there once, and is something else afterwards.
#[test]
fn every_control_applies_to_todays_source() {
    for control in controls() {
        let source = fs::read_to_string(root().join(&control.file)).unwrap();
        let broken = control.apply(&source).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(broken, source, "{}", control.name);
        let place = source.find(&control.find).unwrap();
        assert!(
            ["sql/", "producer/", "worker/"].iter().any(|product| control.file.starts_with(product))
                && !control.file.contains("/tests")
                && source.find("#[cfg(test)]").is_none_or(|tests| place < tests),
            "{} changes a test of {}",
            control.name,
            control.file
        );
    }
}

/// What a later migration has replaced is nobody's rule any more.
#[test]
fn a_control_of_a_function_of_the_schema_changes_its_newest_form() {
    let name = |line: &str| {
        let rest =
            line.strip_prefix("create function ").or(line.strip_prefix("create or replace function "))?;
        Some(rest.split('(').next()?.to_owned())
    };
    let names = |sql: &str| -> Vec<String> { sql.lines().filter_map(name).collect() };
    for control in controls().iter().filter(|control| control.file.starts_with("sql/migrations/")) {
        let sql = fs::read_to_string(root().join(&control.file)).unwrap();
        let place = sql.find(control.find.trim_matches('\n')).unwrap();
        let Some(function) = names(&sql[..place]).pop() else { continue };
        let version: i64 = control.file["sql/migrations/".len()..][..4].parse().unwrap();
        for newer in pgsaga_sql::MIGRATIONS.iter().filter(|migration| migration.version > version) {
            assert!(
                !names(newer.sql).contains(&function),
                "{}: {function} is another since migration {}",
                control.name,
                newer.version
            );
        }
    }
}

#[test]
fn every_control_names_a_test_that_there_is() {
    for control in controls() {
        assert!(has_test(&control), "{}: no test {} in {:?}", control.name, control.test, control.build());
        assert!(!control.says.is_empty(), "{}: any failure would do", control.name);
    }
}

/// Looks into the file of the test's module, or of the nearest module around it that has a file.
fn has_test(control: &Control) -> bool {
    let package = root().join(control.package.strip_prefix("pgsaga-").unwrap_or(&control.package));
    let (folder, main) = match control.binary.as_str() {
        "lib" => (package.join("src"), "lib.rs"),
        binary => (package.join("tests").join(binary), "main.rs"),
    };
    let mut modules: Vec<&str> = control.test.split("::").collect();
    let Some(name) = modules.pop() else { return false };
    let file = loop {
        let file = if modules.is_empty() { main.to_owned() } else { format!("{}.rs", modules.join("/")) };
        match fs::read_to_string(folder.join(file)) {
            Ok(text) => break text,
            Err(_) if modules.pop().is_none() => return false,
            Err(_) => {}
        }
    };
    let Some((before, _)) = file.split_once(&format!("fn {name}()")) else { return false };
    before.lines().rev().take(3).any(|line| {
        let line = line.trim();
        line == "#[test]" || line.starts_with("#[tokio::test")
    })
}
