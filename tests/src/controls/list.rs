//! The list of controls.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Break, Error, Tag, Tags, piece};

/// A file of the list: a rule, and the ways to take it away.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The file's name. It starts with the race's number where docs/races.md has it:
    /// `05_abort_against_advance`.
    pub name: String,
    /// Its controls, in the order of the file.
    pub controls: Vec<Control>,
}

impl Rule {
    /// The number of its entry in docs/races.md.
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
    /// The tag in the source that stands above what is broken.
    pub tag: String,
    /// What is done to the piece of source below the tag.
    #[serde(rename = "break")]
    pub change: Break,
    /// The test's binary in `tests/tests`, or `unit` for the unit tests of the crate that has the
    /// tag.
    #[serde(default = "e2e")]
    pub binary: String,
    /// The test's name with as many of its modules as tell it from the others of its binary.
    pub test: String,
    /// A part of the words with which it panics: a test that fails for another reason shows
    /// nothing.
    pub says: String,
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
    /// `source`, the file that has `tag`, without the rule.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`], so that no control outlives what it is about.
    pub fn apply(&self, tag: &Tag, source: &str) -> Result<String, Error> {
        piece::below(&tag.file, source, tag.end)
            .and_then(|piece| self.change.apply(source, &piece))
            .map_err(|why| self.does_not_fit(format!("{}: {why}", tag.place())))
    }

    /// The tag that it names.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`] unless the tag is there exactly once.
    pub fn place<'a>(&self, tags: &'a Tags) -> Result<&'a Tag, Error> {
        tags.one(&self.tag).map_err(|why| self.does_not_fit(why))
    }

    /// The folder of the package that has its test, from the root of the workspace.
    pub fn package(&self, root: &Path, tag: &Tag) -> PathBuf {
        if self.binary != "unit" {
            return PathBuf::from("tests");
        }
        let mut folders = tag.file.ancestors().skip(1);
        let package = folders.find(|folder| root.join(folder).join("Cargo.toml").is_file());
        package.unwrap_or(Path::new("")).to_owned()
    }

    fn does_not_fit(&self, why: String) -> Error {
        Error::DoesNotFit { control: self.name.clone(), why }
    }
}

/// Reads the `*.toml` of a folder and of the folders in it, by the names of the files.
///
/// # Errors
/// Where a file cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Rule>, Error> {
    let mut rules = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| Error::file("read", &folder, error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                rules.push(rule(&path)?);
            }
        }
    }
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rules)
}

fn rule(path: &Path) -> Result<Rule, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
    let file: File =
        toml::from_str(&text).map_err(|error| Error::List { path: path.display().to_string(), error })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Rule { name, controls: file.control })
}
