//! What is written where: comments, statuses, and the names of other documents.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;

use crate::File;
use crate::modules::Module;

const COLUMNS_MAX: usize = 100;
const STATUSES: [&str; 6] = ["prepared", "submitted", "aborting", "succeeded", "failed", "stuck"];
/// Where a status becomes text and text a status.
const STATUSES_ARE_WRITTEN_IN: [&str; 0] = [];
/// Documents about how this was made. What is to be known of them is in docs.
const OUTSIDE: [&str; 5] = [
    concat!("RA", "CES"),
    concat!("DES", "IGN"),
    concat!("HOUSE", ".md"),
    concat!("STYLE", ".md"),
    concat!("TRAPS", ".md"),
];

pub(crate) fn wide_comments(files: &[File]) -> Vec<String> {
    let is_comment = |line: &str| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("--")
    };
    lines(files, |line| is_comment(line) && line.chars().count() > COLUMNS_MAX)
}

pub(crate) fn citations(files: &[File]) -> Vec<String> {
    let is_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    lines(files, |line| {
        OUTSIDE.iter().any(|name| {
            line.match_indices(name).any(|(place, _)| {
                !is_word(line[..place].chars().next_back())
                    && !is_word(line[place + name.len()..].chars().next())
            })
        })
    })
}

fn lines(files: &[File], is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate().filter(|(_, line)| is_wrong(line)) {
            let start: String = line.trim().chars().take(60).collect();
            found.push(format!("{}:{}: {start}", file.path, number + 1));
        }
    }
    found
}

pub(crate) fn statuses(modules: &[Module]) -> Vec<String> {
    let mut found = Vec::new();
    for module in modules.iter().filter(|module| !STATUSES_ARE_WRITTEN_IN.contains(&module.file.as_str())) {
        module.items.iter().for_each(|item| literals(item.to_token_stream(), &module.file, &mut found));
    }
    found
}

/// Doc comments are string literals, too, but none is a status and nothing else.
fn literals(tokens: TokenStream, file: &str, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), file, found),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if STATUSES.iter().any(|status| text == format!("\"{status}\"")) {
                    found.push(format!("{file}:{} {text}", literal.span().start().line));
                }
            }
            _ => {}
        }
    }
}
