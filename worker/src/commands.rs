//! One module a command.

pub mod check;
pub mod demo;
pub mod doctor;
pub mod echo;
pub mod list;
pub mod migrate;
pub mod show;
pub mod work;

use std::fmt::Display;
use std::io::Write as _;

use clap::Args;

use crate::error::Error;

/// Where the database is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The Postgres database, such as postgres://user:password@host:5432/name. Only `work --pooled` may go through a
    /// pooler in transaction mode
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
}

/// Prints a line on standard output. A reader who has seen enough (`pgsaga list | head`) ends the command, not with a panic.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn out(line: impl Display) -> Result<(), Error> {
    writeln!(std::io::stdout().lock(), "{line}")
        .map_err(|source| Error::Io { doing: "print the result".to_owned(), source })
}
