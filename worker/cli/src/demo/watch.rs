//! Shows the progress of the sagas, and kills a worker halfway.

use std::time::{Duration, Instant};

use pgsaga_test::fleet::Fleet;
use sqlx::postgres::PgPool;
use tokio::task::JoinHandle;

use super::screen::{Progress, Screen};
use super::start_worker;
use crate::error::Error;

/// Interval at which the bars move.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The sagas to watch, and the screen.
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
    /// Watches until all sagas have ended or the deadline has passed. Returns the number of
    /// transfers that were rolled back, or 0 if the producers have not finished.
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
                let failed = |error| Error::other("submit transfers", error);
                rolled_back = Some((&mut producing).await.map_err(failed)??);
            }
            let looking = Instant::now();
            let progress = sqlx::query_as(include_str!("sql/progress.sql")).fetch_one(self.pool).await?;
            let progress: Progress = progress;
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
            // Reading all sagas is slow when there are a million, and must not use a large part of
            // the machine.
            tokio::time::sleep(LOOK_EVERY.max(looked * 4)).await;
        }
        self.screen.finish();
        Ok(rolled_back.unwrap_or(0))
    }
}

impl Killed {
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

/// Kills the worker that holds the most tasks, and starts another one, as a supervisor would.
/// `None` while no worker holds a task.
async fn kill_busiest(fleet: &mut Fleet, pool: &PgPool, screen: &Screen) -> Result<Option<Killed>, Error> {
    let busiest = sqlx::query_as(include_str!("sql/workers.sql")).fetch_optional(pool).await?;
    let busiest: Option<(i64, i32, i64)> = busiest;
    let Some((worker, pid, held)) = busiest.filter(|(_, _, held)| *held > 0) else { return Ok(None) };
    fleet.kill(pid.cast_unsigned()).await?;
    let at = Instant::now();
    let new = start_worker(fleet)?;
    screen.say(&format!(
        "halfway: worker {pid} was killed with SIGKILL, holding {held} tasks; process {new} is new"
    ));
    Ok(Some(Killed { worker, at, rescued: false }))
}
