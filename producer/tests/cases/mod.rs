//! The table of bad (and good) input, `tests/cases/bad_input.json`, for whoever must obey it: the
//! INSERT, this crate, and `pgsaga check`.
//!
//! A case has `steps` (JSON), `steps_text` (any text) or `saga` (columns). `error` is the exact
//! words; without it the input is good. `insert` is what the INSERT says instead, where it differs;
//! after `~`, what it contains. What is too big to write down: `"@text:9"` is a string of nine x,
//! `"@url:9"` a URL of so many bytes, `"@nest:9"` nine arrays in each other, `"@steps:9"` nine
//! steps, `"@entries:9"` an object of nine strings, `"@names:9"` nine names, `"@join:9"` eight
//! steps that wait for nothing and one that waits for them, `"@ring:9"` nine steps, each after the
//! next.

use pgsaga_producer::{Columns, Definition, Invalid};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    steps: Option<Box<RawValue>>,
    steps_text: Option<String>,
    saga: Option<Box<RawValue>>,
    error: Option<String>,
    insert: Option<String>,
}

/// One input and what is said about it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) input: Input,
    /// The crate's words; `None` when the input is good.
    pub(crate) error: Option<String>,
    /// The INSERT's, where they differ.
    #[allow(dead_code, reason = "the crate's own test has no database")]
    pub(crate) insert: Option<String>,
}

/// The whole text of steps, or of an object of columns.
pub(crate) enum Input {
    Steps(String),
    Saga(String),
}

/// Checks a text as the column `steps`.
pub(crate) fn check_steps(text: &str) -> Result<Definition, Invalid> {
    Definition::new(Columns { steps: text.to_owned(), ..Columns::default() })
}

pub(crate) fn all() -> Vec<Case> {
    let lines: Vec<Line> = serde_json::from_str(include_str!("../../../tests/cases/bad_input.json")).unwrap();
    assert!(lines.len() > 200, "the table is cut short");
    lines.into_iter().map(case).collect()
}

fn case(line: Line) -> Case {
    let input = match (line.steps, line.steps_text, line.saga) {
        (Some(steps), None, None) => Input::Steps(expand(steps.get())),
        (None, Some(text), None) => Input::Steps(text),
        (None, None, Some(saga)) => Input::Saga(expand(saga.get())),
        _ => panic!("{}: one of steps, steps_text and saga", line.name),
    };
    Case { name: line.name, input, error: line.error, insert: line.insert }
}

fn expand(text: &str) -> String {
    let mut parts = text.split("\"@");
    let mut expanded = parts.next().unwrap().to_owned();
    for part in parts {
        let (hint, rest) = part.split_once('"').unwrap();
        let (kind, count) = hint.split_once(':').unwrap();
        let count: usize = count.parse().unwrap();
        expanded.push_str(&match kind {
            "text" => format!("\"{}\"", "x".repeat(count)),
            "url" => format!("\"http://a/{}\"", "x".repeat(count - 9)),
            "nest" => "[".repeat(count) + &"]".repeat(count),
            "steps" => format!("[{}]", vec![r#"{"action":""}"#; count].join(",")),
            "entries" => format!(
                "{{{}}}",
                (1..=count).map(|i| format!("\"k{i}\":\"v\"")).collect::<Vec<_>>().join(",")
            ),
            "names" => format!("[{}]", names(1..=count)),
            "join" => {
                let first = r#"{"action":"","after":[]}"#;
                let join = format!(r#"{{"action":"","after":[{}]}}"#, default_names(1..count));
                format!("[{},{join}]", vec![first; count - 1].join(","))
            }
            "ring" => {
                let step = |n: usize| {
                    let next = n % count + 1;
                    format!(r#"{{"action":"","after":[{}]}}"#, default_names(next..next + 1))
                };
                format!("[{}]", (1..=count).map(step).collect::<Vec<_>>().join(","))
            }
            _ => panic!("unknown hint {hint}"),
        });
        expanded.push_str(rest);
    }
    expanded
}

fn names(numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(|n| format!("\"n{n}\"")).collect::<Vec<_>>().join(",")
}

fn default_names(positions: std::ops::Range<usize>) -> String {
    positions.map(|n| format!("\"{n:02}\"")).collect::<Vec<_>>().join(",")
}
