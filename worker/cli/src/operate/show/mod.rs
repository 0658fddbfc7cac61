mod draw;
mod gaps;
mod json;
mod mermaid;
pub(crate) mod next;
pub(crate) mod standing;
mod timeline;

use clap::Args;

use super::read::saga::Saga;
use super::{Database, connect};
use crate::error::Error;

/// Show one saga: the state of its steps, its history, and what happens next and when
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Gid of the saga to show
    gid: String,
    #[command(flatten)]
    pub(crate) database: Database,
    /// Print one JSON object with all that the database knows about the saga, including its whole
    /// history
    #[arg(long, conflicts_with_all = ["mermaid", "lines"])]
    json: bool,
    /// Print a Mermaid flowchart of the steps in their order, with the compensations
    #[arg(long, conflicts_with = "lines")]
    mermaid: bool,
    /// Number of lines for the timeline and for the steps, approximately, 10 to 100,000; the output
    /// counts what it leaves out
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(i64).range(10..=100_000))]
    lines: i64,
}

impl Show {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let pool = connect(&self.database.database_url).await?;
        let lines = (!self.json && !self.mermaid).then_some(self.lines);
        let saga = Saga::read(&pool, &self.gid, self.json, lines).await?.ok_or(Error::NotFound(self.gid))?;
        if self.json {
            json::print(&pool, &saga).await?;
        } else if self.mermaid {
            mermaid::print(&saga)?;
        } else {
            draw::print(&saga, self.lines)?;
        }
        pool.close().await;
        Ok(())
    }
}
