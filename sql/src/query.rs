//! Every statement of `queries/`, and the one place that binds its values.
//!
//! A statement of at most three values is a constant: its text. A statement of more values is a
//! struct: its fields have the order of `$1`, `$2`, …, `SQL` is its text and `query()` is the text
//! with the values bound. The head of each file says what the values mean.
#![expect(missing_docs, reason = "a field's name says what the head of its statement explains")]

#[macro_use]
mod statement;

mod claim;
mod decide;
mod liveness;
mod migrate;
mod producer;
mod read;
mod settle;
mod ui;
mod upkeep;
mod wake;

pub use claim::*;
pub use decide::*;
pub use liveness::*;
pub use migrate::*;
pub use producer::*;
pub use read::*;
pub use settle::*;
pub use statement::{Query, Statement};
pub use ui::*;
pub use upkeep::*;
pub use wake::*;

/// All statements, for tests that prepare and explain them.
pub fn all() -> impl Iterator<Item = &'static Statement> {
    let folders = [
        claim::ALL,
        decide::ALL,
        liveness::ALL,
        migrate::ALL,
        producer::ALL,
        read::ALL,
        settle::ALL,
        ui::ALL,
        upkeep::ALL,
        wake::ALL,
    ];
    folders.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::{Statement, all};

    /// The `n` of the highest `$n` outside comments.
    fn highest_parameter(sql: &str) -> usize {
        let code = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
        let parameters = code.flat_map(|line| line.split('$').skip(1)).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        parameters.max().unwrap_or(0)
    }

    #[test]
    fn a_statement_of_more_than_three_values_has_a_struct_that_binds_them_all() {
        let mut structs = 0;
        for Statement { folder, name, sql, values } in all() {
            let needed = highest_parameter(sql);
            match values {
                Some(bound) => assert_eq!(*bound, needed, "{folder}/{name}.sql: values bound, values needed"),
                None => assert!(needed <= 3, "{folder}/{name}.sql has {needed} values and no struct"),
            }
            structs += usize::from(values.is_some());
        }
        assert!(structs > 15, "only {structs} structs were compared");
    }

    #[test]
    fn every_file_is_declared_in_its_folder_and_no_two_share_a_name() {
        let mut files = BTreeSet::new();
        for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("queries")).unwrap() {
            for file in fs::read_dir(folder.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                files.insert(
                    path.iter().rev().take(2).map(|part| part.to_str().unwrap().to_owned()).collect(),
                );
            }
        }
        let declared: BTreeSet<Vec<String>> = all()
            .map(|statement| vec![format!("{}.sql", statement.name), statement.folder.to_owned()])
            .collect();
        assert_eq!(files, declared);
        let names: BTreeSet<_> = all().map(|statement| statement.name).collect();
        assert_eq!(names.len(), declared.len());
    }

    /// Where the queue of notifications is full, a transaction that notifies cannot commit.
    #[test]
    fn what_a_statement_writes_does_not_depend_on_the_queue_of_notifications() {
        let notify = all().filter(|statement| statement.sql.to_lowercase().contains("notify("));
        assert_eq!(notify.map(|statement| statement.name).collect::<Vec<_>>(), ["wake"]);
    }

    #[test]
    fn parameters_are_counted_outside_comments() {
        assert_eq!(highest_parameter("-- $9\nselect $2, $12::int -- $13"), 12);
        assert_eq!(highest_parameter("select 1"), 0);
    }
}
