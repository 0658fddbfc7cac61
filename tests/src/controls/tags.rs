//! Tags in the product's sources, by which the controls find their places.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;

/// What follows the comment marker of a tag.
const MARK: &str = " control: ";

/// A tag in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name: lower-case words joined by hyphens.
    pub name: String,
    /// The file, from the root of the workspace.
    pub file: PathBuf,
    /// The number of its line, from 1.
    pub line: usize,
    /// The offset of the first byte after its line.
    pub end: usize,
}

impl Tag {
    /// `file:line`, for a message.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// Every tag of the product's sources.
#[derive(Debug, Clone)]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// Reads the tags of those `files` below `root` that belong to the product: Rust and SQL
    /// outside the folder `tests`.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read(root: &Path, files: &[PathBuf]) -> Result<Tags, Error> {
        let mut tags = Vec::new();
        for file in files.iter().filter(|file| !file.starts_with("tests")) {
            let Some(comment) = comment(file) else { continue };
            let path = root.join(file);
            let source = fs::read_to_string(&path).map_err(|error| Error::file("read", &path, error))?;
            tags.extend(tags_of(file, comment, &source));
        }
        Ok(Tags(tags))
    }

    /// All of them, file by file.
    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }

    /// The one tag of this name.
    ///
    /// # Errors
    /// What was found instead.
    pub(super) fn one(&self, name: &str) -> Result<&Tag, String> {
        let found: Vec<&Tag> = self.iter().filter(|tag| tag.name == name).collect();
        match found[..] {
            [tag] => Ok(tag),
            [] => Err(format!("the tag {name}: found in no source of the product; allowed: exactly once")),
            _ => {
                let places: Vec<String> = found.iter().map(|tag| tag.place()).collect();
                Err(format!("the tag {name}: found at {}; allowed: exactly once", places.join(", ")))
            }
        }
    }
}

/// The comment marker of the file's language.
fn comment(file: &Path) -> Option<&'static str> {
    match file.extension()?.to_str()? {
        "rs" => Some("//"),
        "sql" => Some("--"),
        _ => None,
    }
}

fn tags_of(file: &Path, comment: &str, source: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut end = 0;
    for (index, line) in source.split_inclusive('\n').enumerate() {
        end += line.len();
        let name = line.trim().strip_prefix(comment).and_then(|rest| rest.strip_prefix(MARK));
        if let Some(name) = name {
            tags.push(Tag { name: name.to_owned(), file: file.to_owned(), line: index + 1, end });
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_comment_line_of_its_own() {
        let source = "a();\n  // control: first-rule\nb(); // control: no-tag\n";
        let tags = tags_of(Path::new("a.rs"), "//", source);
        let [tag] = &tags[..] else { panic!("{tags:?}") };
        assert_eq!((tag.name.as_str(), tag.place().as_str()), ("first-rule", "a.rs:2"));
        assert_eq!(&source[tag.end..tag.end + 3], "b()");
    }

    #[test]
    fn a_tag_that_is_missing_or_there_twice_is_told_with_its_places() {
        let source = "-- control: twice\na\n-- control: twice\nb\n";
        let tags = Tags(tags_of(Path::new("a.sql"), "--", source));
        assert_eq!(
            tags.one("twice"),
            Err("the tag twice: found at a.sql:1, a.sql:3; allowed: exactly once".to_owned())
        );
        assert!(tags.one("once").is_err_and(|why| why.contains("found in no source")));
    }
}
