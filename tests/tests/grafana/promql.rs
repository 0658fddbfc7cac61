//! Which metrics a query names. That it is PromQL is for Prometheus to say (live.rs); here every
//! word that is neither a function, nor an operator, nor a label in a clause counts as a metric, so
//! that a misspelt one cannot hide.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// Words between expressions.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];
/// Words with labels in parentheses behind them.
const CLAUSES: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names of all metrics in a query.
pub(crate) fn metrics(query: &str) -> BTreeSet<String> {
    let tokens = tokens(query);
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let (word, next) = (tokens[at].as_str(), tokens.get(at + 1).map_or("", String::as_str));
        at += 1;
        if CLAUSES.contains(&word) {
            if next == "(" {
                at += tokens[at..].iter().position(|token| token == ")").unwrap() + 1;
            }
        } else if is_name(word)
            && next != "("
            && !["by", "without"].contains(&next)
            && !OPERATORS.contains(&word)
        {
            found.insert(word.to_owned());
        }
    }
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || "_:".contains(c))
}

/// Words, numbers with their units, and parentheses; what stands in braces, brackets, quotes and
/// comments is left out.
fn tokens(query: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = query.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' | '`' => skip_string(&mut chars, c),
            '{' => skip_to(&mut chars, '}'),
            '[' => skip_to(&mut chars, ']'),
            '#' => while chars.next().is_some_and(|c| c != '\n') {},
            '(' | ')' => tokens.push(c.to_string()),
            _ if c.is_ascii_alphanumeric() || "_:".contains(c) => {
                let mut word = c.to_string();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "_:.".contains(*c)) {
                    word.push(c);
                }
                tokens.push(word);
            }
            _ => {}
        }
    }
    tokens
}

fn skip_string(chars: &mut Peekable<Chars<'_>>, quote: char) {
    while let Some(c) = chars.next() {
        if c == '\\' && quote != '`' {
            chars.next();
        } else if c == quote {
            return;
        }
    }
}

fn skip_to(chars: &mut Peekable<Chars<'_>>, end: char) {
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' | '`' => skip_string(chars, c),
            _ if c == end => return,
            _ => {}
        }
    }
}

#[test]
fn only_metrics_are_names() {
    for (query, names) in [
        ("up", &["up"][..]),
        (
            "sum by (job, le) (rate(a_total{x=\"b\", y!~'}c{'}[5m])) / on (job) group_left (z) d",
            &["a_total", "d"],
        ),
        ("max (a) without (b) > 0.5", &["a"]),
        ("0 * group by (job) (count_over_time(a[6h])) unless on (job) b or vector(0)", &["a", "b"]),
        ("histogram_quantile(0.99, sum(rate(a_bucket[$__rate_interval])) by (le)) > bool 1e3", &["a_bucket"]),
        ("increase(a[10m:30s] offset 5m) # b\n == 0", &["a"]),
        ("sum by(a)(b)", &["b"]),
        ("label_replace(a, \"b\", \"$1\", \"c\", \"d (e)\")", &["a"]),
    ] {
        assert_eq!(metrics(query).iter().map(String::as_str).collect::<Vec<_>>(), names, "{query}");
    }
}
