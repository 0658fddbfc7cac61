//! The runbooks: their SQL and commands as they stand, with the rights that they say they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Behaviour, binary};
use sqlx::AssertSqlSafe;

use crate::board::{boards, title};
use crate::rules::rules;
use crate::text::{ROOT, quoted, text};

/// Pages that no alert leads to. The tests of the documents run them from their first line to their
/// last, in the order of their steps.
const PROCEDURES: [&str; 2] = ["restore", "staging-copy"];

/// Path and text of each.
pub(crate) fn runbooks() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir(Path::new(ROOT).join("docs/runbooks"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            (format!("docs/runbooks/{name}"), fs::read_to_string(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// The fenced blocks of a language, which may stand in a list.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in document.lines() {
        if let Some(named) = line.trim_start().strip_prefix("```") {
            match open.take() {
                Some((wanted, text)) if wanted => blocks.push(text),
                Some(_) => {}
                None => open = Some((named == language, String::new())),
            }
        } else if let Some((_, text)) = &mut open {
            text.push_str(line.trim_start());
            text.push('\n');
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

#[test]
fn there_is_one_runbook_for_each_alert_and_the_index_names_all() {
    let alerts: BTreeSet<String> = rules().into_iter().map(|rule| rule.alert).collect();
    let mut files = BTreeSet::new();
    for (path, text) in runbooks() {
        let name = path.trim_start_matches("docs/runbooks/").trim_end_matches(".md").to_owned();
        if PROCEDURES.contains(&&*name) {
            continue;
        }
        if name == "README" {
            let pages = alerts.iter().map(String::as_str).chain(PROCEDURES);
            let missing: Vec<&str> = pages.filter(|name| !text.contains(&format!("({name}.md)"))).collect();
            assert!(missing.is_empty(), "the index does not name {missing:?}");
            continue;
        }
        assert!(text.starts_with(&format!("# {name}\n\n")), "{path}: its title");
        for part in ["\n## Look\n", "\n## Do\n", "\n## It is over when\n"] {
            assert!(text.contains(part), "{path}: no {part:?}");
        }
        let page = text.contains("\n**Page.** ");
        assert!(page != text.contains("\n**Ticket.** "), "{path}: a page or a ticket?");
        let severity = if page { "page" } else { "ticket" };
        assert!(
            rules().iter().any(|rule| rule.alert == name && rule.labels["severity"] == severity),
            "{path}"
        );
        files.insert(name);
    }
    assert_eq!(files, alerts);
}

#[test]
fn every_link_of_a_runbook_leads_somewhere() {
    for (path, text) in runbooks() {
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = Path::new(ROOT).join("docs/runbooks").join(file);
            let target =
                fs::read_to_string(&target).unwrap_or_else(|error| panic!("{path}: {link}: {error}"));
            let anchor = |line: &str| -> String {
                let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                heading.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
            };
            let leads = fragment.is_empty()
                || target.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == fragment);
            assert!(leads, "{path}: {link}");
        }
    }
}

#[test]
fn every_panel_that_a_runbook_names_exists() {
    let boards = boards();
    let titles: BTreeSet<&str> = boards.iter().flat_map(|board| board.panels()).map(title).collect();
    let mut seen = 0;
    for (path, text) in runbooks() {
        // What is in italics and begins with a capital; `**` is bold.
        let plain = text.replace("**", "").split("```").step_by(2).collect::<String>().replace('\n', " ");
        for name in plain.split('*').skip(1).step_by(2).filter(|name| name.starts_with(char::is_uppercase)) {
            assert!(titles.iter().any(|title| title.starts_with(name)), "{path}: no panel {name:?}");
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} panels were found");
}

#[test]
fn every_command_of_a_runbook_exists_with_its_flags() {
    let help = |command: &str| {
        let output = binary::command().args([command, "--help"]).output().unwrap();
        assert!(output.status.success(), "pgsaga {command}: no such command");
        text(&output.stdout)
    };
    let flags = |line: &str| -> BTreeSet<String> {
        // What a comment says is in quotes.
        let bare: String = line.split('\'').step_by(2).collect();
        bare.split_whitespace()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.split('=').next().unwrap().to_owned())
            .collect()
    };
    let mut seen = 0;
    for (path, document) in runbooks() {
        let shells = blocks(&document, "sh");
        let prose: String = document.split("```").step_by(2).collect();
        let spans: Vec<String> = quoted(&prose).map(str::to_owned).collect();
        for line in spans.iter().chain(&shells).flat_map(|text| text.lines()) {
            if let Some(rest) = line.strip_prefix("pgsaga ") {
                let help = help(rest.split(' ').next().unwrap());
                for flag in flags(rest) {
                    assert!(help.contains(&flag), "{path}: {line}: no such flag");
                }
                seen += 1;
            } else if line.starts_with("--") {
                let help = help("work");
                for flag in flags(line) {
                    assert!(help.contains(&flag), "{path}: {line}: `pgsaga work` has no such flag");
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} commands were found");
}

/// With a stuck saga, one that failed and one that goes on being tried, so that nothing divides by
/// nothing.
#[tokio::test]
async fn every_sql_of_a_runbook_runs_with_the_rights_that_it_names() {
    let scene = Scene::with_worker().await;
    let sealed = Behaviour::Refuse("sealed".into());
    scene
        .saga("stuck")
        .step("pay")
        .compensate(sealed)
        .step("ship")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.ended("stuck").await;
    scene.saga("open").step("pay").action(Behaviour::Unknown(usize::MAX)).insert().await;
    let mut connection = scene.pool().acquire().await.unwrap();
    let mut run = 0;
    let pages = runbooks().into_iter().filter(|(path, _)| !PROCEDURES.iter().any(|name| path.contains(name)));
    for (path, document) in pages {
        for sql in blocks(&document, "sql") {
            let role = if sql.starts_with("-- as a superuser\n") { "postgres" } else { "pgsaga_operator" };
            let set_role = sqlx::raw_sql(AssertSqlSafe(format!("set role {role}")));
            set_role.execute(&mut *connection).await.unwrap();
            // Whoever has that number here is not meant.
            let sql = sql.replace("pg_terminate_backend(12345)", "pg_terminate_backend(0)");
            let result = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *connection).await;
            result.unwrap_or_else(|error| panic!("{path}: as {role}: {error}\n{sql}"));
            run += 1;
        }
    }
    assert!(run > 30, "only {run} blocks of SQL were found");
    sqlx::raw_sql("reset role").execute(&mut *connection).await.unwrap();
}
