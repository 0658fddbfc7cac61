//! Ledgers of participants, as they are read back from their files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

pub use pgsaga_test::call_log::{Asked, Did, Entry, Ledger, Line};

/// A participant's ledger, and what it can be held to.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What the participant keeps against calls that come twice or late.
    pub keeps: Keeps,
}

/// What a participant keeps against calls that come twice or late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing: it works whenever it is asked.
    Nothing,
    /// A barrier; the ledger is exact about its verdicts.
    Barrier,
    /// A barrier in a table. What the ledger says was done was done; where the reply to a commit
    /// was lost, the table alone knows.
    Table,
}

impl Source {
    /// The lines, in order. Half a line, at the end of a file that grows or where a process was
    /// killed, is left out: nobody was answered who waited for it.
    ///
    /// # Panics
    /// When the file cannot be read.
    pub fn lines(&self) -> impl Iterator<Item = Line> + use<> {
        let file = File::open(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        let lines = BufReader::new(file).split(b'\n').map(Result::unwrap);
        lines.filter_map(|line| serde_json::from_slice(&line).ok())
    }
}

/// A folder for ledgers. It is removed at the end, or kept and named when the test has failed.
#[derive(Debug)]
pub struct Folder(Option<TempDir>);

impl Folder {
    /// A new, empty one.
    ///
    /// # Panics
    /// When none can be made.
    pub fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("pgsaga-ledger-").tempdir().unwrap()))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.as_ref().map_or(Path::new(""), TempDir::path).join(name)
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("its ledgers are kept in {}", folder.keep().display());
        }
    }
}
