//! Programs and libraries outside of Cargo that some tests need.
//!
//! The build script compiles this file too. It sets `has_NAME` for each tool that it finds, and a
//! test that needs the tool says `#[cfg_attr(not(has_NAME), ignore = "needs NAME: …")]`: without
//! the tool it is reported as ignored, with the line that installs it. Where `CI` is set, a missing
//! tool fails a test of this module.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[cfg(test)]
#[path = "tool/tests.rs"] // the same file from the build script, too
mod tests;

/// A tool, and how it is installed.
#[derive(Debug)]
pub struct Tool {
    /// The name in `has_NAME`.
    pub name: &'static str,
    /// How to know that it is there: every part is.
    pub parts: &'static [Part],
    /// The line that installs it.
    pub install: &'static str,
}

/// A part of a tool.
#[derive(Debug)]
pub enum Part {
    /// An executable on the `PATH`, or in a folder for administrators.
    Program(&'static str),
    /// A Python interpreter that can import the module.
    Python(&'static str),
    /// Node, and the module beside the examples.
    Node(&'static str),
    /// A library for Java beside the examples.
    Jar(&'static str),
}

/// Every tool that a test needs.
pub const TOOLS: [Tool; 13] = [
    Tool {
        name: "chromium",
        parts: &[Part::Program("chromium")],
        install: "apt-get install chromium fonts-dejavu-core",
    },
    Tool { name: "django", parts: &[Part::Python("django")], install: "docs/examples/install" },
    Tool {
        name: "drizzle",
        parts: &[Part::Node("drizzle-orm"), Part::Node("pg"), Part::Node("tsx")],
        install: "docs/examples/install",
    },
    Tool { name: "faketime", parts: &[Part::Program("faketime")], install: "apt-get install faketime" },
    Tool {
        name: "jdbc",
        parts: &[Part::Jar("postgresql.jar"), Part::Program("java")],
        install: "apt-get install default-jdk maven && docs/examples/install",
    },
    Tool { name: "node", parts: &[Part::Program("node")], install: "apt-get install nodejs" },
    Tool { name: "node_pg", parts: &[Part::Node("pg")], install: "docs/examples/install" },
    Tool { name: "pgbouncer", parts: &[Part::Program("pgbouncer")], install: "apt-get install pgbouncer" },
    Tool { name: "prometheus", parts: &[Part::Program("prometheus")], install: "apt-get install prometheus" },
    Tool { name: "promtool", parts: &[Part::Program("promtool")], install: "apt-get install prometheus" },
    Tool {
        name: "psql",
        parts: &[Part::Program("psql"), Part::Program("pg_dump"), Part::Program("pg_dumpall")],
        install: "apt-get install postgresql-client",
    },
    Tool { name: "psycopg", parts: &[Part::Python("psycopg")], install: "docs/examples/install" },
    Tool {
        name: "sqlalchemy",
        parts: &[Part::Python("sqlalchemy"), Part::Python("psycopg")],
        install: "docs/examples/install",
    },
];

impl Tool {
    /// The files of all its parts, the program first; none where a part is missing.
    fn find(&self) -> Option<Vec<PathBuf>> {
        let found: Option<Vec<Vec<PathBuf>>> = self.parts.iter().map(Part::find).collect();
        Some(found?.concat())
    }

    /// What a test that is ignored says.
    pub fn reason(&self) -> String {
        format!("needs {}: {}", self.name, self.install)
    }
}

impl Part {
    fn find(&self) -> Option<Vec<PathBuf>> {
        match self {
            Part::Program(name) => Some(vec![program(name)?]),
            Part::Python(module) => {
                let interpreters = [Some(examples().join("venv/bin/python")), program("python3")];
                let python = interpreters.into_iter().flatten().find(|python| imports(python, module))?;
                Some(vec![python])
            }
            Part::Node(module) => {
                let package = examples().join("node_modules").join(module).join("package.json");
                Some(vec![program("node")?, Some(package).filter(|package| package.is_file())?])
            }
            Part::Jar(name) => {
                Some(vec![Some(examples().join("java").join(name)).filter(|jar| jar.is_file())?])
            }
        }
    }
}

/// The program of the tool with this name.
///
/// # Panics
/// Where the tool is missing, so that a test that does not say what it needs fails.
pub fn tool(name: &str) -> PathBuf {
    let tool = TOOLS.iter().find(|tool| tool.name == name);
    let tool = tool.unwrap_or_else(|| panic!("TOOLS has no {name}"));
    let files = tool.find().unwrap_or_else(|| panic!("{}", tool.reason()));
    files[0].clone()
}

/// Sets `has_NAME` for each tool that is there. Cargo asks again when one of their files changes,
/// when the `PATH` is another one and, while a tool is missing, when something is installed into a
/// folder of the `PATH`.
pub fn tell_cargo(tools: &[Tool]) {
    println!("cargo::rerun-if-env-changed=PATH");
    let mut is_one_missing = false;
    for tool in tools {
        println!("cargo::rustc-check-cfg=cfg(has_{})", tool.name);
        let Some(files) = tool.find() else {
            is_one_missing = true;
            continue;
        };
        println!("cargo::rustc-cfg=has_{}", tool.name);
        for file in files {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    // Not where all are there: cargo looks at each file of a folder. It takes one that does not
    // exist for changed.
    for folder in folders().filter(|folder| is_one_missing && folder.is_dir()) {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
}

/// Where `docs/examples/install` puts things.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/examples")
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.into_iter().chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
}

fn program(name: &str) -> Option<PathBuf> {
    folders().map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn imports(python: &Path, module: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
