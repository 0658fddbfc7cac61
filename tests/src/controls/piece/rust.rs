//! Pieces of Rust: what the parser says that they are, so that no layout and no rename changes
//! them.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Piece;

/// The statement, item, match arm, field or expression that begins at `start`: the longest of them.
pub(super) fn piece(source: &str, start: usize) -> Result<Piece, String> {
    let file = syn::parse_file(source).map_err(|error| format!("it cannot be parsed: {error}"))?;
    let mut search = Search { start, whole: None, value: None, conditions: Vec::new() };
    search.visit_file(&file);
    let whole = search.whole.ok_or("no statement, arm, field or element of an array begins below the tag")?;
    let in_it = |range: &Range<usize>| whole.start <= range.start && range.end <= whole.end;
    let condition = search.conditions.into_iter().filter(in_it).min_by_key(|range| range.start);
    Ok(Piece { whole, condition, value: search.value })
}

struct Search {
    start: usize,
    whole: Option<Range<usize>>,
    value: Option<Range<usize>>,
    conditions: Vec<Range<usize>>,
}

impl Search {
    /// Takes `node` where it begins at the start and is longer than what was found before.
    fn meet(&mut self, node: &impl Spanned, value: Option<&syn::Expr>) {
        let range = node.span().byte_range();
        let longest = self.whole.as_ref().map_or(0, |whole| whole.end);
        if range.start == self.start && range.end > longest {
            self.whole = Some(range);
            self.value = value.map(|value| value.span().byte_range());
        }
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_stmt(&mut self, stmt: &'ast syn::Stmt) {
        let value = match stmt {
            syn::Stmt::Local(local) => local.init.as_ref().map(|init| &*init.expr),
            syn::Stmt::Expr(syn::Expr::Assign(assign), _) => Some(&*assign.right),
            _ => None,
        };
        self.meet(stmt, value);
        visit::visit_stmt(self, stmt);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        let value = match item {
            syn::Item::Const(item) => Some(&*item.expr),
            syn::Item::Static(item) => Some(&*item.expr),
            _ => None,
        };
        self.meet(item, value);
        visit::visit_item(self, item);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.meet(arm, Some(&arm.body));
        visit::visit_arm(self, arm);
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        self.meet(field, Some(&field.expr));
        visit::visit_field_value(self, field);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.meet(field, None);
        visit::visit_field(self, field);
    }

    fn visit_expr(&mut self, expr: &'ast syn::Expr) {
        self.meet(expr, None);
        visit::visit_expr(self, expr);
    }

    fn visit_expr_if(&mut self, expr: &'ast syn::ExprIf) {
        self.conditions.push(expr.cond.span().byte_range());
        visit::visit_expr_if(self, expr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
struct Options {
    /// Its name, such as "é".
    #[arg(long)]
    name: Option<String>,
}

/// A wait.
const WAIT: Duration = Duration::from_secs(30);

const PAIRS: [(&str, &str); 1] = [
    ("a", "b"),
];

fn all(a: bool, b: Option<u8>) -> Try {
    let wide = if a && b.is_some() { 1 } else { 2 };
    if let Some(b) = b && a {
        call(b);
    } else if b.is_none() {
        return other;
    }
    let id = text[..3]
        .replace('.', "~");
    match a {
        true if wide == 1 => 7,
        _ => {
            call(8);
        }
    }
    Try { last: if a { b } else { None }, ..other }
}
"#;

    fn parts(begin: &str) -> (&'static str, Option<&'static str>, Option<&'static str>) {
        let piece = piece(SOURCE, SOURCE.find(begin).unwrap()).unwrap();
        let text = |range: Range<usize>| &SOURCE[range];
        (text(piece.whole), piece.condition.map(text), piece.value.map(text))
    }

    #[test]
    fn a_piece_is_what_the_parser_says_begins_there() {
        assert_eq!(
            parts("/// Its name").0,
            "/// Its name, such as \"é\".\n    #[arg(long)]\n    name: Option<String>"
        );
        assert_eq!(parts("(\"a\"").0, "(\"a\", \"b\")");
        assert!(parts("let id").0.ends_with(".replace('.', \"~\");"));
        assert!(parts("Try { last").0.ends_with("..other }"));
        assert!(parts("if let").0.ends_with("return other;\n    }"));
        let nowhere = piece(SOURCE, SOURCE.find(".replace").unwrap());
        assert!(nowhere.is_err_and(|why| why.contains("no statement")));
    }

    #[test]
    fn a_condition_is_that_of_the_first_if() {
        assert_eq!(parts("if let").1, Some("let Some(b) = b && a"));
        assert_eq!(parts("let wide").1, Some("a && b.is_some()"));
        assert_eq!(parts("last:").1, Some("a"));
        assert_eq!(parts("let id").1, None);
    }

    #[test]
    fn a_value_is_what_is_assigned() {
        assert_eq!(parts("/// A wait").2, Some("Duration::from_secs(30)"));
        assert_eq!(parts("let wide").2, Some("if a && b.is_some() { 1 } else { 2 }"));
        assert_eq!(parts("last:").2, Some("if a { b } else { None }"));
        assert_eq!(parts("true if").2, Some("7"));
        assert_eq!(parts("_ => {").2, Some("{\n            call(8);\n        }"));
        assert_eq!(parts("if let").2, None);
    }
}
