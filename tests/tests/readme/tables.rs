//! Tables, flags, links and copies are compared with what they speak of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use pgsaga_sql::contract::STEP_KEYS;
use pgsaga_tests::{Database, binary};
use pgsaga_worker::execute::http::judge;
use pgsaga_worker::telemetry::metrics;

use crate::text::*;

#[test]
fn the_examples_are_the_files() {
    let producers = blocks();
    for (language, file) in [("sql", "producer.sql"), ("python", "producer.py"), ("js", "producer.mjs")] {
        let file = read(&format!("docs/examples/{file}"));
        assert!(
            producers.iter().any(|block| block.language == language && block.text == file),
            "docs/producers.md does not show the {language} example as its file has it"
        );
    }
    let guide: Vec<Block> = GUIDE.into_iter().flat_map(blocks_in).collect();
    for (language, file) in [("sql", "trip.sql"), ("rust", "trip.rs")] {
        let file = read(&format!("docs/examples/{file}"));
        assert!(
            guide.iter().any(|block| block.language == language && block.text == file),
            "docs/sagas.md does not show the {language} example as its file has it"
        );
    }
    // The READMEs of the crates are compiled; these documents repeat their lines.
    let compiled = ["producer/README.md", "producer/participant/README.md"].map(read);
    for block in blocks().into_iter().filter(|block| block.language == "rust") {
        let is_there = compiled.iter().any(|readme| readme.contains(&block.text));
        assert!(is_there, "no README of a crate has the lines:\n{}", block.text);
    }
}

#[test]
fn the_first_screen_has_the_two_commands() {
    let readme = read(README);
    let first = readme.split("\n## ").next().unwrap();
    let code: Vec<&str> = first.split("```").collect();
    assert_eq!(code.len(), 3, "one block");
    assert_eq!(code[1], "sh\ncargo run --release -- demo\ncargo test --workspace\n");
    assert_eq!(
        code[0].trim().lines().filter(|line| !line.is_empty()).count(),
        1 + 5,
        "a title and five lines"
    );
}

/// A pooler's login role is the only place for what a worker otherwise tells its own sessions.
#[test]
fn the_settings_for_a_poolers_role_are_the_workers() {
    let documents = read_all(&REFERENCE).replace('\'', "");
    for (name, value) in pgsaga_worker::db::PLANNER.into_iter().chain(pgsaga_worker::db::PINNED) {
        let line = format!("\nalter role fleet set {name} = {value};\n");
        assert!(documents.contains(&line), "docs/workers.md lacks{line}");
    }
}

fn run(args: &[&str]) -> Output {
    binary::command().args(args).output().unwrap()
}

fn help(command: &str) -> String {
    let output = run(&[command, "--help"]);
    assert!(output.status.success(), "pgsaga {command}: no such command");
    text(&output.stdout)
}

/// The words of a text that look like flags.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

const COMMANDS: [&str; 20] = [
    "migrate", "work", "show", "list", "abort", "retry", "complete", "skip", "resolve", "force", "queues",
    "pause", "resume", "check", "doctor", "health", "ui", "echo", "demo", "bench",
];

#[test]
fn every_command_flag_variable_and_exit_code_exists() {
    let top = text(&run(&["--help"]).stdout);
    let everything: String = COMMANDS.map(help).concat() + &top;
    for path in documents() {
        let document = read(path);
        let shells =
            blocks_in(path).into_iter().filter(|block| block.language == "sh").map(|block| block.text);
        let prose = document.split("```").step_by(2).collect::<Vec<_>>().join("\n");
        let spans: Vec<String> = quoted(&prose).map(str::to_owned).chain(shells).collect();
        for line in spans.iter().flat_map(|span| span.lines()) {
            let line = line.split(" # ").next().unwrap();
            if let Some(rest) = line.strip_prefix("pgsaga ") {
                let help = help(rest.split(' ').next().unwrap());
                for flag in flags(rest) {
                    assert!(help.contains(&flag), "{path}: {line}: no such flag");
                }
            } else if line.starts_with("--") {
                for flag in flags(line) {
                    assert!(everything.contains(&flag), "{path}: {line}: no command has it");
                }
            }
        }
        for variable in document.split(|c: char| !(c.is_ascii_uppercase() || c == '_')) {
            if variable.starts_with("PGSAGA_") && !["PGSAGA_", "PGSAGA_PG_BIN"].contains(&variable) {
                assert!(everything.contains(variable), "{path}: {variable}: no command has it");
            }
        }
    }
    let reference = read_all(&REFERENCE);
    for command in COMMANDS {
        assert!(top.contains(&format!("\n  {command} ")), "{command}: no such command");
        assert!(reference.contains(&format!("pgsaga {command}")), "{command}");
    }

    let work = help("work");
    let work = work.split_once("Options:").unwrap().1;
    let rows = table(&reference, &["flag", "variable", "default"]);
    for row in &rows {
        let [flag, variable, default] = [&row[0], &row[1], &row[2]].map(|cell| cell.trim_matches('`'));
        let (_, described) =
            work.split_once(&format!("{flag} <")).or(work.split_once(&format!("{flag}[="))).unwrap();
        let described = described.split("\n      --").next().unwrap();
        assert!(described.contains(&format!("[env: {variable}")), "{flag}: {described}");
        if !["required", "none", "false"].contains(&default) {
            assert!(described.contains(&format!("[default: {default}]")), "{flag}: {described}");
        }
    }
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| flags(&row[0])).collect();
    let options: String = work.lines().filter(|line| line.trim_start().starts_with("--")).collect();
    assert_eq!(documented, flags(&options));

    let codes = top.split_once("Exit codes:").unwrap().1;
    let codes: Vec<&str> = codes.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let rows = table(&reference, &["exit code"]);
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), codes);
}

#[tokio::test]
async fn the_tables_of_columns_and_keys_are_complete() {
    let reference = read_all(&REFERENCE);
    let first_cells = |header: &[&str]| -> BTreeSet<String> {
        table(&reference, header)
            .iter()
            .flat_map(|row| quoted(&row[0]).map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let db = Database::new().await;
    let columns = async |right: &str| -> BTreeSet<String> {
        let names: Vec<String> = sqlx::query_scalar(
            "select a.attname::text from pg_attribute a where a.attrelid = 'pgsaga.saga'::regclass and a.attnum > 0
             and has_column_privilege('pgsaga_producer', a.attrelid, a.attnum, $1)",
        )
        .bind(right)
        .fetch_all(db.pool())
        .await
        .unwrap();
        names.into_iter().collect()
    };
    assert_eq!(first_cells(&["column", "type"]), columns("insert").await);
    let readable: BTreeSet<String> = columns("select").await;
    let documented = &first_cells(&["column", "meaning"]) | &first_cells(&["column", "type"]);
    assert!(readable.is_subset(&documented), "{readable:?}");

    let error =
        pgsaga_producer::Definition::from_json(r#"[{"action": "", "?": 1}]"#).unwrap_err().to_string();
    let keys = error.split_once("the keys ").unwrap().1.split(", ").map(str::to_owned).collect();
    assert_eq!(first_cells(&["key", "default"]), keys);

    let roles: Vec<String> =
        sqlx::query_scalar("select rolname::text from pg_roles where rolname like 'pgsaga\\_%'")
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(first_cells(&["role", "rights"]), roles.into_iter().collect());
}

/// What people decide: the functions with their arguments, and who may call each.
#[tokio::test]
async fn the_table_of_functions_is_the_databases() {
    let db = Database::new().await;
    let functions: Vec<(String, String)> = sqlx::query_as(
        "select p.oid::regproc::text || '(' || regexp_replace(
                  regexp_replace(pg_get_function_arguments(p.oid), 'NULL::(text|jsonb)', 'null', 'g'), ' (text|boolean|jsonb)', '', 'g') || ')',
                string_agg('`' || r.rolname || '`', ', ' order by r.rolname desc)
         from pg_proc p join pg_roles r on has_function_privilege(r.oid, p.oid, 'execute')
         where p.pronamespace = 'pgsaga'::regnamespace and r.rolname in ('pgsaga_completer', 'pgsaga_operator', 'pgsaga_producer', 'pgsaga_reader')
         group by p.oid",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    let exist: BTreeSet<(String, String)> = functions
        .into_iter()
        .map(|(name, who)| (format!("`{}`", name.replace("DEFAULT", "default")), who))
        .collect();
    let rows = table(&read_all(&GUIDE), &["function", "returns", "who may call it"]);
    let documented: BTreeSet<(String, String)> =
        rows.into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    assert_eq!(documented, exist);
}

#[test]
fn the_table_of_a_steps_keys_is_that_of_the_contract() {
    let rows = table(&read_all(&REFERENCE), &["key", "default", "meaning"]);
    let documented: BTreeSet<String> = rows.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, STEP_KEYS.map(|key| format!("`{}`", key.name)).into());
}

#[test]
fn the_table_of_responses_is_what_the_worker_does() {
    let mut statuses = 0;
    for row in table(&read_all(&REFERENCE), &["response", "outcome"]) {
        for status in row[0].split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()) {
            assert_eq!(judge(status, b"").0.as_str(), row[1], "{status}");
            statuses += 1;
        }
    }
    assert_eq!(statuses, 8);
    assert_eq!(judge(404, b"").0.as_str(), "unknown", "everything else");
}

#[test]
fn the_table_of_metrics_is_the_workers() {
    let header = ["metric", "kind", "unit", "labels", "meaning", "what to do"];
    let rows = table(&read("grafana/README.md"), &header);
    let exported: BTreeSet<[String; 3]> = metrics::table()
        .map(|(name, kind, help)| [format!("`{name}`"), (*kind).to_owned(), (*help).to_owned()])
        .collect();
    assert_eq!(rows.len(), exported.len(), "as many as there are, and none twice");
    assert!(rows.iter().all(|row| row.len() == header.len()), "every cell is filled");
    // By theme, not in the order of the program.
    let documented: BTreeSet<[String; 3]> =
        rows.into_iter().map(|row| [&row[0], &row[1], &row[4]].map(Clone::clone)).collect();
    assert_eq!(documented, exported);
}

#[test]
fn every_link_leads_somewhere() {
    let anchor = |heading: &str| -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
    };
    let headings = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line.trim_start_matches('#').trim()))
            .collect()
    };
    let mut paths: Vec<String> = ["", "docs", "docs/decisions", "docs/deploy", "grafana", "producer"]
        .iter()
        .flat_map(|folder| fs::read_dir(Path::new(ROOT).join(folder)).unwrap())
        .map(|entry| entry.unwrap().path().strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".md"))
        .collect();
    paths.sort_unstable();
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        let document = read(&path);
        let folder = Path::new(&path).parent().unwrap();
        for link in document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let place = folder.join(file);
            if fragment.is_empty() {
                assert!(Path::new(ROOT).join(place).exists(), "{path}: {link}");
                continue;
            }
            let target = if file.is_empty() { document.clone() } else { read(place.to_str().unwrap()) };
            assert!(headings(&target).contains(fragment), "{path}: {link}");
        }
    }
}
