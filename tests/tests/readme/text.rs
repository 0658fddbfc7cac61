//! The texts, taken apart: blocks, tables, words in code quotes.

use std::fs;
use std::path::Path;

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
pub(crate) const README: &str = "README.md";
/// The tour and the reference, in the order in which their blocks are run.
pub(crate) const REFERENCE: [&str; 5] =
    [README, "docs/contract.md", "docs/producers.md", "docs/workers.md", "docs/commands.md"];
/// The guide, in the order in which a reader runs its blocks.
pub(crate) const GUIDE: [&str; 6] = [
    "docs/sagas.md",
    "docs/time.md",
    "docs/results.md",
    "docs/waiting.md",
    "docs/queues.md",
    "docs/operating.md",
];
pub(crate) const CUT_OVER: &str = "docs/cut-over.md";
/// Documents with no block that is run here.
pub(crate) const OTHERS: [&str; 8] = [
    "docs/handlers.md",
    "docs/dtm.md",
    "docs/orm.md",
    "docs/limits.md",
    "docs/safety.md",
    CUT_OVER,
    "grafana/README.md",
    "docs/deploy/README.md",
];
/// What the texts name; a test's own participant takes its place.
pub(crate) const ECHO: &str = "127.0.0.1:8080";
pub(crate) const TOUR: &str = "The 60-second tour";

/// A fenced block.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// The heading it stands under.
    pub(crate) section: String,
    /// The text of the next block, when that is a `text` or `mermaid` block: what running this one
    /// prints.
    pub(crate) prints: Option<String>,
}

impl Block {
    /// It only shows what running another one prints.
    pub(crate) fn is_printed(&self) -> bool {
        ["text", "mermaid"].contains(&self.language.as_str())
    }
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts of several documents, one after the other.
pub(crate) fn read_all(paths: &[&str]) -> String {
    paths.iter().map(|path| read(path) + "\n").collect()
}

/// Every document whose commands, flags and links are compared.
pub(crate) fn documents() -> impl Iterator<Item = &'static str> {
    REFERENCE.into_iter().chain(GUIDE).chain(OTHERS)
}

/// The blocks of the tour and the reference.
pub(crate) fn blocks() -> Vec<Block> {
    REFERENCE.into_iter().flat_map(blocks_in).collect()
}

pub(crate) fn blocks_in(path: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut section, mut open) = (String::new(), false);
    for line in read(path).lines() {
        if let Some(language) = line.strip_prefix("```") {
            if !open {
                let (language, section) = (language.to_owned(), section.clone());
                blocks.push(Block { language, text: String::new(), section, prints: None });
            }
            open = !open;
        } else if open {
            let text = &mut blocks.last_mut().unwrap().text;
            text.push_str(line);
            text.push('\n');
        } else if line.starts_with('#') {
            section = line.trim_start_matches('#').trim().to_owned();
        }
    }
    for index in (1..blocks.len()).filter(|&index| blocks[index].is_printed()).collect::<Vec<_>>() {
        blocks[index - 1].prints = Some(blocks[index].text.clone());
    }
    blocks
}

pub(crate) fn blocks_of(section: &str, language: &str) -> Vec<Block> {
    let found: Vec<Block> =
        blocks().into_iter().filter(|block| block.section == section && block.language == language).collect();
    assert!(!found.is_empty(), "no {language} under {section:?}");
    found
}

/// The rows of the table whose header starts with these cells.
pub(crate) fn table(text: &str, header: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with('|') || !cells(line).iter().zip(header).all(|(a, b)| a == b));
    let rows: Vec<_> = rows.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "no table with the header {header:?}");
    rows
}

/// The `quoted` words of a text.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Lines as words, whatever lies between them. What differs each time is `…`: dates, times of day
/// with milliseconds, and spans such as `1.2 s`. The lines that rule a table are left out.
pub(crate) fn masked(text: &str) -> Vec<String> {
    fn bare(word: &str) -> &str {
        word.trim_matches(|c| "+(),;:".contains(c))
    }
    let is_number = |word: &str| bare(word).parse::<f64>().is_ok();
    let is_time = |word: &str| {
        let word = bare(word);
        let parts: Vec<&str> = word.split(['-', ':', '.']).collect();
        let digits = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        digits && (word.contains(':') && parts.len() == 4 || word.contains('-') && parts.len() == 3)
    };
    let line = |line: &str| {
        let mut words: Vec<&str> = Vec::new();
        for word in line.split_whitespace() {
            let is_unit = ["ms", "s", "min", "h", "d"].contains(&bare(word));
            if is_unit && words.last().is_some_and(|last| is_number(last)) {
                words.pop();
                words.push("…");
            } else if is_time(word) {
                words.push("…");
            } else if word.contains(|c| !"-+─".contains(c)) {
                words.push(word);
            }
        }
        words.join(" ")
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

/// Lines without the blanks at their ends: an editor may have removed those.
pub(crate) fn trimmed(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
