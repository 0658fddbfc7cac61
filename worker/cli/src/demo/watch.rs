//! While the sagas run: shows how far they are, and kills a worker halfway.

use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::PgPool;
use tokio::task::JoinHandle;

use super::fleet::start_worker;
use super::screen::{Progress, Screen};
use crate::error::Error;
use crate::fleet::Fleet;

/// How often the bars move.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is watched, and where it is shown.
pub(crate) struct Watch<'a> {
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) pool: &'a PgPool,
    pub(crate) screen: &'a mut Screen,
    pub(crate) transfers: u64,
}

/// A worker that was killed.
struct Killed {
    worker: i64,
    at: Instant,
    rescued: bool,
}

impl Watch<'_> {
    /// Watches until all has ended or the deadline has come. Returns how many transfers were rolled back, or 0 when the
    /// producers are not done.
    ///
    /// # Errors
    /// When a producer failed, a child ended by itself, or the database does not answer.
    pub(crate) async fn until(
        self,
        deadline: Instant,
        mut producing: JoinHandle<Result<u64, Error>>,
    ) -> Result<u64, Error> {
        let mut rolled_back = None;
        let mut killed: Option<Killed> = None;
        while Instant::now() < deadline {
            self.fleet.check()?;
            if rolled_back.is_none() && producing.is_finished() {
                let io = |error| Error::Io {
                    doing: "submit transfers".to_owned(),
                    source: std::io::Error::other(error),
                };
                rolled_back = Some((&mut producing).await.map_err(io)??);
            }
            let looking = Instant::now();
            let progress = progress(self.pool).await?;
            let looked = looking.elapsed();
            self.screen.show(&progress);
            let halfway = progress.ended() * 2 >= self.transfers;
            match &mut killed {
                None if halfway => killed = kill_busiest(self.fleet, self.pool, self.screen).await?,
                Some(killed) if !killed.rescued => killed.look(self.pool, self.screen).await?,
                _ => {}
            }
            let quiet = killed.as_ref().is_none_or(|killed| killed.rescued);
            if rolled_back.is_some() && progress.ended() >= self.transfers && quiet {
                break;
            }
            // A look reads all sagas: with a million it is slow, and must not take a large part of the machine.
            tokio::time::sleep(LOOK_EVERY.max(looked * 4)).await;
        }
        self.screen.finish();
        Ok(rolled_back.unwrap_or(0))
    }
}

impl Killed {
    /// Whether its tasks are queued again.
    async fn look(&mut self, pool: &PgPool, screen: &Screen) -> Result<(), Error> {
        self.rescued =
            sqlx::query_scalar(include_str!("sql/gone.sql")).bind(self.worker).fetch_one(pool).await?;
        if self.rescued {
            let seconds = self.at.elapsed().as_secs_f64();
            screen.say(&format!("another worker noticed after {seconds:.1} s and took over what it held"));
        }
        Ok(())
    }
}

/// Kills the worker that holds the most tasks, and starts another, as a supervisor would. None while nobody holds any.
async fn kill_busiest(fleet: &mut Fleet, pool: &PgPool, screen: &Screen) -> Result<Option<Killed>, Error> {
    let Some(row) = sqlx::query(include_str!("sql/workers.sql")).fetch_optional(pool).await? else {
        return Ok(None);
    };
    let (worker, pid, held): (i64, i32, i64) =
        (row.try_get("id")?, row.try_get("pid")?, row.try_get("held")?);
    if held == 0 {
        return Ok(None);
    }
    fleet.kill(pid.cast_unsigned()).await?;
    let at = Instant::now();
    let new = start_worker(fleet)?;
    screen.say(&format!(
        "halfway: worker {pid} was killed with SIGKILL, holding {held} tasks; process {new} is new"
    ));
    Ok(Some(Killed { worker, at, rescued: false }))
}

async fn progress(pool: &PgPool) -> Result<Progress, sqlx::Error> {
    let row = sqlx::query(include_str!("sql/progress.sql")).fetch_one(pool).await?;
    Ok(Progress {
        submitted: row.try_get("submitted")?,
        succeeded: row.try_get("succeeded")?,
        failed: row.try_get("failed")?,
        stuck: row.try_get("stuck")?,
    })
}
