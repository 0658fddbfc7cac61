//! The ways to break a piece of source. They quote as little of the piece as they can, so that a
//! control survives renames.

use std::ops::Range;

use serde::Deserialize;

use super::piece::Piece;

/// How a control breaks the piece of source below its tag. In Rust the piece is the statement,
/// match arm, field or element of an array that begins there; in SQL it is the line, and further
/// lines until its parentheses are closed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Break {
    /// The piece is gone.
    Delete,
    /// This text stands instead of the piece.
    Becomes(String),
    /// This text stands instead of the condition of the first `if` of the piece, in SQL also of its
    /// `when`.
    Condition(String),
    /// This text stands instead of the value that is assigned: behind `=` of a `let` or a constant,
    /// behind `:` of a field, behind `=>` of an arm; in SQL behind `:=`.
    Value(String),
    /// This text, which the piece has exactly once, is gone.
    Cut(String),
    /// The first text, which the piece has exactly once, is replaced by the second.
    Swap(String, String),
}

impl Break {
    /// `source` with its `piece` broken.
    ///
    /// # Errors
    /// What the piece lacks, or that nothing would change.
    pub(super) fn apply(&self, source: &str, piece: &Piece) -> Result<String, String> {
        let (place, text) = match self {
            Break::Delete => (piece.whole.clone(), ""),
            Break::Becomes(text) => (piece.whole.clone(), text.as_str()),
            Break::Condition(text) => {
                (piece.condition.clone().ok_or_else(|| lacks("condition", source, piece))?, text.as_str())
            }
            Break::Value(text) => (
                piece.value.clone().ok_or_else(|| lacks("value that is assigned", source, piece))?,
                text.as_str(),
            ),
            Break::Cut(old) => (once(old, source, piece)?, ""),
            Break::Swap(old, new) => (once(old, source, piece)?, new.as_str()),
        };
        if source[place.clone()] == *text {
            return Err(format!("{text:?} stands there already"));
        }
        Ok(format!("{}{text}{}", &source[..place.start], &source[place.end..]))
    }
}

fn lacks(part: &str, source: &str, piece: &Piece) -> String {
    format!("the piece has no {part}:\n{}", &source[piece.whole.clone()])
}

fn once(old: &str, source: &str, piece: &Piece) -> Result<Range<usize>, String> {
    let text = &source[piece.whole.clone()];
    match text.match_indices(old).collect::<Vec<_>>()[..] {
        [(start, _)] => {
            let start = piece.whole.start + start;
            Ok(start..start + old.len())
        }
        ref found => Err(format!("found {old:?} {} times in the piece; allowed: once\n{text}", found.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::piece;

    fn broken(change: Break, file: &str, source: &str) -> Result<String, String> {
        change.apply(source, &piece::below(file.as_ref(), source, 0)?)
    }

    #[test]
    fn a_break_changes_one_part_of_the_piece() {
        let source = "if a && b {\n    c();\n}\n";
        let text = || "false".to_owned();
        let source = &format!("fn f() {{\n// x\n{source}}}\n");
        let at = source.find("if").unwrap();
        let broken =
            |change: Break| change.apply(source, &piece::below("f.rs".as_ref(), source, at).unwrap());
        assert!(broken(Break::Delete).is_ok_and(|text| text == "fn f() {\n// x\n\n}\n"));
        assert!(broken(Break::Condition(text())).is_ok_and(|text| text.contains("if false {\n    c();\n}")));
        assert!(broken(Break::Cut(" && b".to_owned())).is_ok_and(|text| text.contains("if a {")));
        assert!(
            broken(Break::Swap("&&".to_owned(), "||".to_owned())).is_ok_and(|text| text.contains("a || b"))
        );
        assert!(broken(Break::Becomes("d();".to_owned())).is_ok_and(|text| text.contains("// x\nd();\n}")));
        assert!(broken(Break::Value(text())).is_err_and(|why| why.contains("no value that is assigned")));
    }

    #[test]
    fn a_text_that_is_not_there_once_and_a_break_that_changes_nothing_are_errors() {
        let source = "where a = 1 and b = 1\n";
        let cut = |text: &str| broken(Break::Cut(text.to_owned()), "a.sql", source);
        assert_eq!(cut(" and b = 1"), Ok("where a = 1\n".to_owned()));
        assert!(cut("= 1").is_err_and(|why| why.contains("2 times")));
        assert!(cut("= 2").is_err_and(|why| why.contains("0 times")));
        let same = broken(Break::Becomes(source.trim().to_owned()), "a.sql", source);
        assert!(same.is_err_and(|why| why.contains("already")));
    }
}
