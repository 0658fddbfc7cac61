//! How the code is laid out: what may import what, how long a file, a function or a comment may be,
//! and what is written in one place only.
//!
//! [`ALLOWED`] has today's number of violations for each rule. A check fails when it finds more.
//! Lower the number when you mend some: `cargo test -p pgsaga-tests --test layout -- --nocapture
//! --test-threads 1` lists them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod can_fail;
mod crates;
mod cycles;
mod modules;
mod sizes;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use modules::Module;

/// What is allowed of each rule, until it is mended.
const ALLOWED: [(&str, usize); 13] = [
    ("crates that import what they may not", 0),
    ("packages that a crate is to do without", 0),
    ("modules in an import cycle", 0),
    ("files over 400 lines", 0),
    ("tests' files over 400 lines", 2),
    ("functions over 60 lines", 0),
    ("folders of more than a dozen entries", 2),
    ("tests' folders of more than a dozen entries", 1),
    ("comments over 100 columns", 2),
    ("tests' comments over 100 columns", 3),
    ("literals of a status", 25),
    ("citations of documents outside the repository", 0),
    ("tests' citations of documents outside the repository", 0),
];

/// A file of the repository.
#[derive(Debug, Clone)]
struct File {
    /// From the root on.
    path: String,
    text: String,
}

impl File {
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap();
        self.path.split('/').any(|folder| folder == "tests") || name == "tests.rs"
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of the repository that is text, but for what Cargo and the tests make.
fn files() -> Vec<File> {
    const HIDDEN: [&str; 3] = [".ci", ".github", ".cargo"];
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && (!name.starts_with('.') || HIDDEN.contains(&name.as_str())) {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// Files of the product, or of the tests, with one of these endings.
fn files_of(are_tests: bool, endings: &[&str]) -> Vec<File> {
    let mut files = files();
    files.retain(|file| {
        file.is_test() == are_tests && endings.iter().any(|ending| file.path.ends_with(ending))
    });
    files
}

/// The modules of the product.
fn product() -> Vec<Module> {
    crates::targets().iter().flat_map(|target| Module::read(target)).collect()
}

/// Fails where there are more than is allowed.
fn holds(rule: &str, found: &[String]) {
    let (_, allowed) = ALLOWED.iter().find(|(name, _)| *name == rule).unwrap();
    println!("{rule}: allowed: {allowed}; found: {}\n  {}", found.len(), found.join("\n  "));
    assert!(found.len() <= *allowed, "{rule}: allowed: {allowed}; found: {}", found.len());
}

#[test]
fn crates_import_downwards_only() {
    holds("crates that import what they may not", &crates::imports(&crates::edges()));
}

#[test]
fn crates_do_without_what_they_are_to_do_without() {
    holds("packages that a crate is to do without", &crates::unwanted());
}

#[test]
fn modules_import_without_a_cycle() {
    let found: Vec<String> =
        crates::targets().iter().flat_map(|target| cycles::of(&Module::read(target))).collect();
    holds("modules in an import cycle", &found);
}

#[test]
fn files_are_short() {
    let sql = sizes::long_texts(&files_of(false, &[".sql"]));
    holds("files over 400 lines", &[sizes::long_files(&product()), sql].concat());
}

#[test]
fn files_of_tests_are_short() {
    holds("tests' files over 400 lines", &sizes::long_texts(&files_of(true, &[".rs"])));
}

#[test]
fn functions_are_short() {
    holds("functions over 60 lines", &sizes::long_functions(&product()));
}

#[test]
fn folders_have_a_dozen_entries() {
    holds("folders of more than a dozen entries", &sizes::full_folders(&files_of(false, &[""])));
}

#[test]
fn folders_of_tests_have_a_dozen_entries() {
    holds("tests' folders of more than a dozen entries", &sizes::full_folders(&files_of(true, &[""])));
}

#[test]
fn comments_fit_a_hundred_columns() {
    holds("comments over 100 columns", &words::wide_comments(&files_of(false, &[".rs", ".sql"])));
}

#[test]
fn comments_of_tests_fit_a_hundred_columns() {
    holds("tests' comments over 100 columns", &words::wide_comments(&files_of(true, &[".rs", ".sql"])));
}

#[test]
fn a_status_is_written_in_one_place() {
    holds("literals of a status", &words::statuses(&product()));
}

#[test]
fn nothing_cites_what_is_not_in_the_repository() {
    holds("citations of documents outside the repository", &words::citations(&files_of(false, &[""])));
}

#[test]
fn no_test_cites_what_is_not_in_the_repository() {
    holds("tests' citations of documents outside the repository", &words::citations(&files_of(true, &[""])));
}
