//! Pieces of SQL: whole lines, because statements are laid out by hand.

use std::ops::Range;

use super::Piece;

/// The line that begins at `start`, and further lines until its parentheses are closed, or its
/// condition has ended.
pub(super) fn piece(source: &str, start: usize) -> Piece {
    let scan = Scan::new(&source[start..]);
    let at = |range: Range<usize>| start + range.start..start + range.end;
    let condition = scan.condition();
    let lines_end = scan.lines_end();
    let value = scan.value(lines_end);
    let end = condition.as_ref().map_or(lines_end, |condition| lines_end.max(condition.end));
    Piece { whole: at(0..end), condition: condition.map(at), value: value.map(at) }
}

struct Scan<'a> {
    text: &'a str,
    /// Offset and character of all that stands outside of strings and comments.
    code: Vec<(usize, char)>,
}

impl Scan<'_> {
    fn new(text: &str) -> Scan<'_> {
        let mut code = Vec::new();
        let mut is_string = false;
        let mut is_comment = false;
        for (offset, character) in text.char_indices() {
            match character {
                '\n' => is_comment = false,
                _ if is_comment => continue,
                '\'' => is_string = !is_string,
                '-' if !is_string && text[offset..].starts_with("--") => is_comment = true,
                _ => {}
            }
            if !is_string && !is_comment {
                code.push((offset, character));
            }
        }
        Scan { text, code }
    }

    fn lines_end(&self) -> usize {
        let mut depth = 0;
        for &(offset, character) in &self.code {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                '\n' if depth <= 0 => return offset,
                _ => {}
            }
        }
        self.text.trim_end().len()
    }

    /// What stands between the first word and its `then`.
    fn condition(&self) -> Option<Range<usize>> {
        let word = ["if ", "elsif ", "when "].into_iter().find(|word| self.text.starts_with(word))?;
        let mut depth = 0;
        for &(offset, character) in &self.code {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ if depth == 0 && self.is_word(offset, "then") => {
                    return Some(word.len()..self.text[..offset].trim_end().len());
                }
                _ => {}
            }
        }
        None
    }

    fn is_word(&self, offset: usize, word: &str) -> bool {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        self.text[offset..].strip_prefix(word).is_some_and(|rest| !rest.starts_with(is_part))
            && !self.text[..offset].ends_with(is_part)
    }

    /// What stands between `:=` and the semicolon.
    fn value(&self, end: usize) -> Option<Range<usize>> {
        let text = &self.text[..end];
        let start = text.find(":=")? + 2;
        let start = start + (text[start..].len() - text[start..].trim_start().len());
        Some(start..text.strip_suffix(';').unwrap_or(text).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> (&str, Option<&str>, Option<&str>) {
        let piece = piece(source, 0);
        let text = |range: Range<usize>| &source[range];
        (text(piece.whole), piece.condition.map(text), piece.value.map(text))
    }

    #[test]
    fn a_piece_ends_with_its_line_or_with_the_last_of_its_parentheses() {
        assert_eq!(texts("set a = 1,\n  b = 2\n").0, "set a = 1,");
        assert_eq!(
            texts("from (\n  select ') -- ' -- (\n) s\nwhere a\n").0,
            "from (\n  select ') -- ' -- (\n) s"
        );
        assert_eq!(texts("  and a)) i\nwhere b").0, "  and a)) i");
    }

    #[test]
    fn a_condition_ends_before_its_then() {
        let told = "if exists (select case when a then b end)\n   or thence then\n  return;";
        let (whole, condition, _) = texts(told);
        assert_eq!(condition, Some("exists (select case when a then b end)\n   or thence"));
        assert_eq!(whole, "if exists (select case when a then b end)\n   or thence");
        assert_eq!(texts("when f(1) then 2\n"), ("when f(1) then 2", Some("f(1)"), None));
    }

    #[test]
    fn a_value_stands_behind_its_assignment() {
        assert_eq!(texts("a := coalesce(b, c);\nd").2, Some("coalesce(b, c)"));
    }
}
