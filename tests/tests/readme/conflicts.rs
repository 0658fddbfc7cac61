//! Every INSERT that may skip a row says which clash it means.

use std::fs;
use std::path::{Path, PathBuf};

use crate::text::ROOT;

const PLACES: [&str; 7] = ["README.md", "docs", "grafana", "producer", "sql", "tests", "worker"];
const ENDINGS: [&str; 6] = ["md", "mjs", "py", "rs", "sql", "toml"];

fn texts(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| texts(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
        found.push(path.to_owned());
    }
}

/// Lower case, with one blank between two words, also where a string of Rust goes on in the next
/// line.
fn words(text: &str) -> String {
    text.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Without a target, an INSERT also takes a clash of ids (a sequence that is behind) for the row
/// that it repeats: nothing is inserted, and nobody is told.
#[test]
fn no_insert_skips_a_row_without_naming_the_columns_that_clash() {
    let untargeted = ["on conflict", "do nothing"].join(" ");
    assert!(
        words("ON  CONFLICT\n  do \\\n nothing").contains(&untargeted),
        "it is found however it is written"
    );
    let mut files = Vec::new();
    PLACES.iter().for_each(|place| texts(&Path::new(ROOT).join(place), &mut files));
    assert!(files.len() > 300, "{} files", files.len());
    let named = files
        .iter()
        .filter(|file| words(&fs::read_to_string(file).unwrap()).contains("on conflict (gid) do nothing"));
    assert!(named.count() > 10, "the control: the statements are found");
    let bare: Vec<&PathBuf> =
        files.iter().filter(|file| words(&fs::read_to_string(file).unwrap()).contains(&untargeted)).collect();
    assert_eq!(bare, Vec::<&PathBuf>::new());
}
