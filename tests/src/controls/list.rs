//! The list of controls.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Error;

/// A file of the list: a rule, and the ways to take it away.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The file's name. It starts with the race's number where RACES.md has it: `05_abort_against_advance`.
    pub name: String,
    /// Its controls, in the order of the file.
    pub controls: Vec<Control>,
}

impl Rule {
    /// The number of its entry in RACES.md.
    pub fn race(&self) -> Option<u8> {
        self.name.split('_').next()?.parse().ok()
    }
}

/// One rule taken away, and the test that must see it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// What is wrong now, as a sentence.
    pub name: String,
    /// The file of the product, from the root of the workspace.
    pub file: String,
    /// A text that is there exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// The package of the test.
    #[serde(default = "tests")]
    pub package: String,
    /// Its test binary, or `lib` or `bin` for the package's unit tests.
    #[serde(default = "e2e")]
    pub binary: String,
    /// The test's whole name.
    pub test: String,
    /// A part of the words with which it panics: a test that fails for another reason shows nothing.
    pub says: String,
}

fn tests() -> String {
    "pgsaga-tests".to_owned()
}

fn e2e() -> String {
    "e2e".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    control: Vec<Control>,
}

impl Control {
    /// `source` without the rule.
    ///
    /// # Errors
    /// [`Error::NotOnce`], so that no control outlives what it is about.
    pub fn apply(&self, source: &str) -> Result<String, Error> {
        match source.matches(&self.find).count() {
            1 => Ok(source.replacen(&self.find, &self.replace, 1)),
            times => Err(Error::NotOnce {
                name: self.name.clone(),
                file: self.file.clone(),
                times,
                find: self.find.clone(),
            }),
        }
    }

    /// What `cargo test` must build for it.
    pub fn build(&self) -> (&str, &str) {
        (&self.package, &self.binary)
    }
}

/// Reads a folder of `*.toml`, by name.
///
/// # Errors
/// Where a file cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Rule>, Error> {
    let entries = fs::read_dir(folder).map_err(|error| Error::file("read", folder, error))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| Error::file("read", folder, error))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut rules = Vec::with_capacity(paths.len());
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|error| Error::file("read", &path, error))?;
        let file: File =
            toml::from_str(&text).map_err(|error| Error::List { path: path.display().to_string(), error })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        rules.push(Rule { name, controls: file.control });
    }
    Ok(rules)
}
