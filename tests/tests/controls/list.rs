use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pgsaga_tests::controls::{Control, Rule, Tags, names, read};

/// Every rule that a test must miss: the races that broke earlier drafts, and eight that no race is
/// named after.
const RULES: [(&str, &str); 44] = [
    ("01_repeated_settle", "a settle that is said twice applies once"),
    (
        "02_forgotten_claim",
        "what a living worker holds without knowing it goes back; rows are decoded one by one",
    ),
    ("03_only_ever_ongoing", "ongoing may have taken effect"),
    ("04_lost_try", "a rescue records the lost try as unknown"),
    (
        "05_abort_against_advance",
        "who inserts or deletes tasks locks the saga; a fence includes the interrupt",
    ),
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
    ("18_watermark", "a watermark passes nothing that can still be claimed"),
    ("19_look_then_wait", "a wake-up is a hint, early polls are quick, idleness is an advisory lock"),
    ("20_poison", "an isolated task runs alone, and only a death of an isolated run counts"),
    ("21_old_worker_new_row", "a worker claims only formats that it knows"),
    ("22_cached_refusal", "a fresh key only where every try was definitely refused"),
    ("23_late_answer", "a late answer is recorded first, then the decision applies"),
    ("24_statistics", "hot statements are planned without statistics"),
    ("barriers_first_insert", "an undo takes the place of its action first"),
    ("compensating_ongoings", "a step whose last answer was ongoing is undone"),
    ("compensating_unknowns", "a step with an unknown try is undone"),
    ("completions", "a completion counts once, and a settle that does not know it plans anew"),
    ("connections", "what a connection does to the calls that share it is no answer to any of them"),
    ("cut_over", "a clash of ids is an error, and doctor names the sequence"),
    ("first_use", "the first use of a queue waits for nobody, and lanes of a class are one"),
    ("handlers", "a handler never runs beside its next attempt, and holds up nobody"),
    ("home", "a copy of a database calls nobody"),
    ("lanes", "tasks of a participant lie where its workers look, and others do not"),
    ("lease_check", "past its lease a worker starts no call"),
    ("no_try", "only the participant's own answer overrides what it accepted; what was not sent is known"),
    ("partitions", "history partitions are made for ids that sagas have, by whoever needs them"),
    ("retention", "only what finished long ago goes, where somebody asked for it"),
    ("retry_after", "Retry-After is a second at least, and grows as the backoff does"),
    ("safety", "plain URLs reach public addresses alone, and a signature can be read one way only"),
    ("settings", "no setting, collation or encoding of a database changes what pgsaga does"),
    ("transactional", "what a transactional handler wrote and the record of its attempt are one"),
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

fn tags() -> Tags {
    let root = root();
    Tags::read(&root, &names(&root).unwrap()).unwrap()
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

/// The tags are short words joined by hyphens, above the product's own code: what changed a test
/// would show nothing.
#[test]
fn every_tag_is_in_the_source_once_and_has_a_control() {
    let tags = tags();
    let controls = controls();
    for control in &controls {
        control.place(&tags).unwrap_or_else(|error| panic!("{error}"));
    }
    let used: BTreeSet<&str> = controls.iter().map(|control| control.tag.as_str()).collect();
    for tag in tags.iter() {
        let (name, place) = (&tag.name, tag.place());
        assert!(
            used.contains(name.as_str()),
            "{place}: found the tag {name}; allowed: one that a control names"
        );
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        assert!(
            name.split('-').all(is_word),
            "{place}: found {name:?}; allowed: lower-case words and hyphens"
        );
        let source = fs::read_to_string(root().join(&tag.file)).unwrap();
        let is_of_tests = tag.file.iter().any(|part| part == "tests" || part == "tests.rs");
        assert!(
            !is_of_tests && source.find("#[cfg(test)]").is_none_or(|tests| tag.end < tests),
            "{place}: the tag {name} stands in a test"
        );
    }
}

#[test]
fn every_control_breaks_the_source_in_a_way_of_its_own() {
    let tags = tags();
    let mut broken = BTreeMap::new();
    for control in controls() {
        let tag = control.place(&tags).unwrap_or_else(|error| panic!("{error}"));
        let source = fs::read_to_string(root().join(&tag.file)).unwrap();
        let without = control.apply(tag, &source).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(without, source, "{} changes nothing", control.name);
        if let Some(other) = broken.insert((tag.file.clone(), without), control.name.clone()) {
            panic!("{:?} and {other:?} break the source in the same way", control.name);
        }
    }
}

#[test]
fn every_control_names_a_test_that_there_is() {
    let (root, tags) = (root(), tags());
    let mut binaries: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for control in controls() {
        assert!(!control.says.is_empty(), "{}: any failure would do", control.name);
        let package = control.package(&root, control.place(&tags).unwrap());
        let folder = match control.binary.as_str() {
            "unit" => package.join("src"),
            binary => package.join("tests").join(binary),
        };
        let tests = binaries.entry(folder.clone()).or_insert_with(|| tests_in(&root.join(folder)));
        let named = |test: &&String| {
            let modules = test.strip_suffix(&control.test);
            modules.is_some_and(|modules| modules.is_empty() || modules.ends_with("::"))
        };
        let found: Vec<&String> = tests.iter().filter(named).collect();
        assert_eq!(found.len(), 1, "{}: {} names {found:?}; allowed: one test", control.name, control.test);
    }
}

/// docs/races.md names a test as `suite::module::test`, a unit test with its crate in the place of
/// the suite, or a module alone.
#[test]
fn every_test_that_the_races_name_is_there() {
    let root = root();
    let text = fs::read_to_string(root.join("docs/races.md")).unwrap().replace('\n', " ");
    let mut tests: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut named, mut missing) = (0, Vec::new());
    for name in
        text.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && !name.contains([' ', '…']))
    {
        let (suite, test) = name.split_once("::").unwrap();
        let folder = match suite {
            "pgsaga_plan" => root.join("worker/plan/src"),
            "pgsaga_worker" => root.join("worker/engine/src"),
            "pgsaga_producer" => root.join("producer/src"),
            "pgsaga_participant" => root.join("producer/participant/src"),
            "pgsaga_sql" => root.join("sql/src"),
            suite => root.join("tests/tests").join(suite),
        };
        let there = tests.entry(suite).or_insert_with(|| tests_in(&folder));
        let is_named = |there: &String| there == test || there.starts_with(&format!("{test}::"));
        if !there.iter().any(is_named) {
            missing.push(name);
        }
        named += 1;
    }
    assert!(missing.is_empty(), "docs/races.md names {missing:?}; allowed: a test or a module of tests");
    assert!(named > 60, "only {named} names were read");
}

fn tests_in(folder: &Path) -> Vec<String> {
    let mut tests = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(folder).unwrap().with_extension("");
                let mut modules: Vec<String> =
                    module.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                modules.pop_if(|last| ["main", "lib", "mod"].contains(&last.as_str()));
                let source = fs::read_to_string(&path).unwrap();
                add_tests(&syn::parse_file(&source).unwrap().items, &modules, &mut tests);
            }
        }
    }
    tests
}

fn add_tests(items: &[syn::Item], modules: &[String], tests: &mut Vec<String>) {
    for item in items {
        match item {
            syn::Item::Mod(module) => {
                let modules = [modules, &[module.ident.to_string()]].concat();
                if let Some((_, items)) = &module.content {
                    add_tests(items, &modules, tests);
                }
            }
            syn::Item::Fn(function) => {
                let is_test = |attribute: &syn::Attribute| {
                    attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
                };
                if function.attrs.iter().any(is_test) {
                    tests.push([modules, &[function.sig.ident.to_string()]].concat().join("::"));
                }
            }
            _ => {}
        }
    }
}
