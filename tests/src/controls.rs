//! Negative controls: a rule of the product is taken away, in a copy of the source, and the test that shows it must go
//! red. The list is `tests/controls`, a file a rule; `cargo run -p pgsaga-tests --bin controls` runs it.

mod copy;
mod judge;
mod list;
mod run;
mod trial;

pub use copy::SourceCopy;
pub use judge::{Ran, Verdict, judge};
pub use list::{Control, Rule, read};
pub use run::{Options, run};

/// Why the controls cannot be run, or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder.
    #[error("failed to {what} {path}: {error}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: String,
        /// What came of it.
        error: std::io::Error,
    },
    /// A list that is none.
    #[error("{path}: {error}")]
    List {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: toml::de::Error,
    },
    /// Git or cargo did not do what they were asked for.
    #[error("{program} ended with {status}: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// How it ended.
        status: String,
        /// Its standard error.
        said: String,
    },
    /// The text of a control is not there exactly once.
    #[error("{file}: {name:?} changes a text that is there {times} times; allowed: once\n{find}")]
    NotOnce {
        /// The control.
        name: String,
        /// Where it looks.
        file: String,
        /// How often it found it.
        times: usize,
        /// What it looks for.
        find: String,
    },
}

impl Error {
    fn file(what: &'static str, path: &std::path::Path, error: std::io::Error) -> Error {
        Error::File { what, path: path.display().to_string(), error }
    }
}
