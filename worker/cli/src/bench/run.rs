//! One load on one database with some workers, measured.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use tokio::time::Instant;

use super::load::{Load, Plan};
use super::rig::{Database, Groups, Rig, Workers, pass};
use super::screen::Screen;
use super::stub::Stub;
use super::times::{Percentiles, Times};
use super::usage::{Wal, Work};
use crate::error::Error;

/// Until caches are warm, groups have their size, and connections are made, at most.
const WARM_UP_MAX: Duration = Duration::from_secs(5);
/// How long the last sagas may take when nothing comes any more.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// More than a machine of this size can do in a second: how many times are kept depends on it.
const SAGAS_PER_SECOND_MAX: u64 = 30_000;

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) plan: Plan,
    pub(crate) workers: usize,
    pub(crate) flags: Vec<String>,
    pub(crate) duration: Duration,
    /// What its sagas come to.
    pub(crate) status: &'static str,
}

/// What was measured from the end of the warm-up to the end of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) sagas_per_second: f64,
    /// From the commit of the INSERT to the first call, and to the final state.
    pub(crate) first_call: Percentiles,
    pub(crate) finished: Percentiles,
    pub(crate) groups: Groups,
    /// A saga.
    pub(crate) wal_bytes: f64,
    pub(crate) full_page_bytes: Option<f64>,
    /// Of these, the steps, as they are stored.
    pub(crate) steps_bytes: f64,
    pub(crate) worker_commits: f64,
    pub(crate) dead_rows: f64,
    /// The most that one worker had.
    pub(crate) worker_memory_bytes: Option<u64>,
    /// Microseconds a saga, of all workers and of the server.
    pub(crate) worker_cpu_us: Option<f64>,
    pub(crate) postgres_cpu_us: Option<f64>,
}

/// A moment of a run.
struct Moment {
    work: Work,
    us: u64,
    commits: u64,
    worker_cpu: Option<f64>,
    postgres_cpu: Option<f64>,
}

/// A load that runs.
pub(crate) struct Run<'a> {
    rig: &'a Rig,
    database: &'a Database,
    pub(crate) setup: Setup,
    pub(crate) stub: Arc<Stub>,
    load: Load,
    pub(crate) workers: Workers,
}

/// Runs a load in a database of its own.
///
/// # Errors
/// What kept it from running; [`Error::Found`] where a saga did not come to the end that it should have.
pub(crate) async fn run(rig: &Rig, screen: &mut Screen, setup: Setup) -> Result<Measured, Error> {
    rig.in_database(async |database| run_in(rig, database, screen, setup).await).await
}

/// The same in a given database.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_in(
    rig: &Rig,
    database: &Database,
    screen: &mut Screen,
    setup: Setup,
) -> Result<Measured, Error> {
    let mut run = Run::start(rig, database, setup).await?;
    let result = run.measure(screen).await;
    run.workers.stop().await;
    result
}

impl<'a> Run<'a> {
    /// Starts workers, and a load on them.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn start(rig: &'a Rig, database: &'a Database, setup: Setup) -> Result<Run<'a>, Error> {
        let seconds = (setup.duration + WARM_UP_MAX).as_secs();
        let stub = Arc::new(Stub::start(Times::new(seconds * SAGAS_PER_SECOND_MAX)).await?);
        let workers = Workers::start(database.url(), setup.workers, &setup.flags).await?;
        match Load::start(database.url(), setup.plan.clone(), Arc::clone(&stub)).await {
            Ok(load) => Ok(Run { rig, database, setup, stub, load, workers }),
            Err(error) => {
                workers.stop().await;
                Err(error)
            }
        }
    }

    async fn measure(&mut self, screen: &mut Screen) -> Result<Measured, Error> {
        self.pass(screen, self.setup.duration.min(WARM_UP_MAX), "warming up").await?;
        let (metrics, from) = (self.workers.read().await?, self.moment().await?);
        self.pass(screen, self.setup.duration, "measuring").await?;
        let to = self.moment().await?;
        let groups = self.workers.groups(&metrics).await?;
        self.end(screen).await?;
        self.evaluate(&from, &to, groups).await
    }

    /// Lets it run for a while.
    ///
    /// # Errors
    /// When a worker or a producer failed meanwhile.
    pub(crate) async fn pass(
        &mut self,
        screen: &mut Screen,
        duration: Duration,
        what: &str,
    ) -> Result<(), Error> {
        let phase = format!("{}: {what}", self.setup.name);
        let Run { load, workers, stub, .. } = self;
        pass(screen, &phase, duration, || {
            workers.check()?;
            load.check()?;
            Ok(stub.ended())
        })
        .await
    }

    /// Sagas ended a second within a while from now.
    ///
    /// # Errors
    /// When a worker or a producer failed meanwhile.
    pub(crate) async fn rate(
        &mut self,
        screen: &mut Screen,
        duration: Duration,
        what: &str,
    ) -> Result<f64, Error> {
        let (ended, started) = (self.stub.ended(), Instant::now());
        self.pass(screen, duration, what).await?;
        Ok((self.stub.ended() - ended) as f64 / started.elapsed().as_secs_f64())
    }

    async fn moment(&self) -> Result<Moment, Error> {
        Ok(Moment {
            work: Work::read(&self.database.pool).await?,
            us: self.stub.times().now_us(),
            commits: self.load.commits(),
            worker_cpu: self.workers.cpu_seconds(),
            postgres_cpu: self.rig.postmaster().and_then(super::usage::postgres_cpu_seconds),
        })
    }

    /// Ends the load, and waits until every saga has ended that can.
    ///
    /// # Errors
    /// [`Error::Found`] where some do not, or end otherwise.
    pub(crate) async fn end(&mut self, screen: &mut Screen) -> Result<(), Error> {
        self.load.stop().await?;
        let expected = self.setup.plan.alive(self.load.inserted());
        let started = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let phase = format!("{}: ending", self.setup.name);
        loop {
            tick.tick().await;
            self.workers.check()?;
            screen.show(&phase, started.elapsed(), None, self.stub.ended());
            if self.stub.ended() >= expected {
                // The last settle is on its way.
                let row = sqlx::query(include_str!("sql/ended.sql"))
                    .bind(self.setup.status)
                    .fetch_one(&self.database.pool)
                    .await?;
                let (ended, as_expected): (i64, i64) = (row.try_get("ended")?, row.try_get("as_expected")?);
                if ended != as_expected {
                    return Err(Error::Found(format!(
                        "{} of {ended} sagas are not {}",
                        ended - as_expected,
                        self.setup.status
                    )));
                }
                if ended.cast_unsigned() == expected {
                    return Ok(());
                }
            }
            if started.elapsed() > DRAIN_MAX {
                return Err(Error::Found(format!(
                    "{} of {expected} sagas had ended {} s after the last was inserted",
                    self.stub.ended(),
                    DRAIN_MAX.as_secs()
                )));
            }
        }
    }

    async fn evaluate(&self, from: &Moment, to: &Moment, groups: Groups) -> Result<Measured, Error> {
        let pool = &self.database.pool;
        let wal = Wal::between(pool, &from.work, &to.work).await?;
        let finished: i64 = sqlx::query_scalar(include_str!("sql/finished_between.sql"))
            .bind(from.work.at_us)
            .bind(to.work.at_us)
            .fetch_one(pool)
            .await?;
        let sagas = finished.max(1) as f64;
        let seconds = (to.work.at_us - from.work.at_us) as f64 / 1e6;
        // Our clock runs beside the database's: both were read at the same moment, or a round trip apart.
        let offset_us = to.work.at_us - to.us as i64;
        let times = self.stub.times();
        let mut finals = Vec::new();
        for row in sqlx::query(include_str!("sql/finals.sql")).bind(from.work.at_us).fetch_all(pool).await? {
            let (gid, at_us): (String, i64) = (row.try_get("gid")?, row.try_get("at_us")?);
            let committed = Times::saga_of(&format!("gid={gid}")).and_then(|saga| times.committed_us(saga));
            if let Some(committed) = committed.filter(|us| (from.us..to.us).contains(us)) {
                finals.push((at_us - offset_us - committed as i64).max(0).cast_unsigned());
            }
        }
        let lacking =
            || Error::Found("no saga ran from its INSERT to its end while it was measured".to_owned());
        let workers = (to.work.commits - from.work.commits) - (to.commits - from.commits) as i64;
        let cpu = |from: Option<f64>, to: Option<f64>| Some((to? - from?) * 1e6 / sagas);
        Ok(Measured {
            sagas_per_second: finished as f64 / seconds,
            first_call: Percentiles::of(times.first_calls_us(from.us, to.us)).ok_or_else(lacking)?,
            finished: Percentiles::of(finals).ok_or_else(lacking)?,
            groups,
            wal_bytes: (wal.all - wal.full_pages.unwrap_or(0)) as f64 / sagas,
            steps_bytes: sqlx::query_scalar(include_str!("sql/steps_bytes.sql")).fetch_one(pool).await?,
            full_page_bytes: wal.full_pages.map(|bytes| bytes as f64 / sagas),
            worker_commits: workers as f64 / sagas,
            dead_rows: (to.work.dead_rows - from.work.dead_rows) as f64 / sagas,
            worker_memory_bytes: self.workers.peak_memory_bytes(),
            worker_cpu_us: cpu(from.worker_cpu, to.worker_cpu),
            postgres_cpu_us: cpu(from.postgres_cpu, to.postgres_cpu),
        })
    }
}
