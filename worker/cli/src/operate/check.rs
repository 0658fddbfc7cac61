use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use pgsaga_producer::Definition;

use crate::error::Error;
use crate::output::out;

/// Validates a file without a database, with the messages of the INSERT. The file contains the
/// column `steps` (a JSON array), or an object with `steps` and other columns.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The file to validate; - for standard input
    file: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> Result<(), Error> {
        read(&self.file)?;
        out(format_args!("{}: fine", self.file.display()))
    }
}

/// Reads a saga from a file; `-` is standard input.
pub(crate) fn read(file: &Path) -> Result<Definition, Error> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(Error::io(format!("read {}", file.display())))?;
    Definition::from_json(&text).map_err(|invalid| Error::Usage(invalid.to_string()))
}
