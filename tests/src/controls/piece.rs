//! The piece of source that a tag stands above.

mod rust;
mod sql;

use std::ops::Range;
use std::path::Path;

/// Byte ranges of a piece of source and of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// All of it.
    pub(super) whole: Range<usize>,
    /// The condition of its first `if`.
    pub(super) condition: Option<Range<usize>>,
    /// The value that it assigns.
    pub(super) value: Option<Range<usize>>,
}

/// The piece that begins after the byte `from` of `source`, comments left out.
pub(super) fn below(file: &Path, source: &str, from: usize) -> Result<Piece, String> {
    let is_sql = file.extension().is_some_and(|extension| extension == "sql");
    let is_comment = |line: &str| match is_sql {
        true => line.starts_with("--"),
        // Doc comments are a part of what they describe.
        false => line.starts_with("//") && !line.starts_with("///"),
    };
    let mut start = from;
    for line in source[from..].split_inclusive('\n') {
        let text = line.trim_start();
        if !text.is_empty() && !is_comment(text) {
            start += line.len() - text.len();
            return if is_sql { Ok(sql::piece(source, start)) } else { rust::piece(source, start) };
        }
        start += line.len();
    }
    Err("nothing stands below the tag".to_owned())
}
