//! Negative controls: a rule of the product is taken away, in a copy of the source, and the test
//! that shows the rule must go red. The list is `tests/controls`, a file a rule; `cargo run -p
//! pgsaga-tests --bin controls` runs it.
//!
//! A control finds its place by a tag: a comment line `// control: NAME` in Rust, `-- control:
//! NAME` in SQL. The tag stands above the piece of source that the rule depends on, in any file of
//! the product.

mod breaking;
mod copy;
mod judge;
mod list;
mod piece;
mod run;
mod tags;
mod trial;

pub use breaking::Break;
pub use copy::{SourceCopy, names};
pub use judge::{Ran, Verdict, judge};
pub use list::{Control, Rule, read};
pub use run::{Options, run};
pub use tags::{Tag, Tags};

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
    /// A control does not fit the source.
    #[error("control {control:?}: {why}")]
    DoesNotFit {
        /// The name of the control.
        control: String,
        /// The place, what was found there, and what is allowed.
        why: String,
    },
}

impl Error {
    fn file(what: &'static str, path: &std::path::Path, error: std::io::Error) -> Error {
        Error::File { what, path: path.display().to_string(), error }
    }
}
