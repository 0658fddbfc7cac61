//! One module a command.

pub mod check;
pub mod demo;
pub mod doctor;
pub mod echo;
pub mod list;
pub mod migrate;
pub mod show;
pub mod work;

use clap::Args;

/// Where the database is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The Postgres database, such as postgres://user:password@host:5432/name. Only `work --pooled` may go through a
    /// pooler in transaction mode
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
}
