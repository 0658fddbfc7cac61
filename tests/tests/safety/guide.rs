//! docs/safety.md against what it speaks of.

use pgsaga_worker::execute::address::{DENIED_V4, DENIED_V6, GLOBAL_V6};

const GUIDE: &str = include_str!("../../../docs/safety.md");

/// The rows of the table that has this header.
fn table(header: &str) -> Vec<(String, String)> {
    let lines = GUIDE.lines().skip_while(|line| *line != header).skip(2);
    let rows = lines.take_while(|line| line.starts_with("| "));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        (cells[0].to_owned(), cells[1].to_owned())
    })
    .collect()
}

#[test]
fn the_table_of_what_is_denied_is_the_workers() {
    let v4 = DENIED_V4.iter().map(|(network, kind)| (network.to_string(), *kind));
    let v6 = DENIED_V6.iter().map(|(network, kind)| (network.to_string(), *kind));
    let mut denied: Vec<_> =
        v4.chain(v6).map(|(network, kind)| (format!("`{network}`"), kind.to_owned())).collect();
    denied.push((format!("what else lies outside of `{GLOBAL_V6}`"), "reserved".to_owned()));
    assert_eq!(table("| denied | what it is |"), denied);
}
