//! One measured load on one database, with some workers.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::contract::SagaStatus;
use sqlx::Row as _;
use tokio::time::Instant;

use super::load::{Load, Plan};
use super::rig::{Database, Groups, Rig, Workers, pass};
use super::screen::Screen;
use super::stub::Stub;
use super::times::{Percentiles, Times};
use super::usage::{Wal, Work, postgres_cpu_seconds};
use crate::error::Error;

/// Upper bound on the time of the warm-up, in which caches fill, groups reach their size and
/// connections open.
const WARM_UP_MAX: Duration = Duration::from_secs(5);
/// Upper bound on the time until the last sagas have ended after the load.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// More than such a machine can do. The number of kept times follows from it.
const SAGAS_PER_SECOND_MAX: u64 = 30_000;

#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) plan: Plan,
    pub(crate) workers: usize,
    pub(crate) flags: Vec<String>,
    pub(crate) duration: Duration,
    /// The status in which every saga must end.
    pub(crate) status: SagaStatus,
}

/// Figures between the end of the warm-up and the end of the load. Costs are costs of one saga.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) sagas_per_second: f64,
    /// From the commit of the INSERT to the first call.
    pub(crate) first_call: Percentiles,
    /// From the commit of the INSERT to the final state.
    pub(crate) finished: Percentiles,
    pub(crate) groups: Groups,
    pub(crate) wal_bytes: f64,
    pub(crate) full_page_bytes: Option<f64>,
    /// The part of the WAL that holds the stored steps.
    pub(crate) steps_bytes: f64,
    pub(crate) worker_commits: f64,
    pub(crate) dead_rows: f64,
    pub(crate) worker_memory_bytes: Option<f64>,
    pub(crate) worker_cpu_us: Option<f64>,
    pub(crate) postgres_cpu_us: Option<f64>,
}

struct Moment {
    work: Work,
    us: u64,
    commits: u64,
    worker_cpu: Option<f64>,
    postgres_cpu: Option<f64>,
}

pub(crate) struct Run<'a> {
    rig: &'a Rig,
    database: &'a Database,
    setup: Setup,
    stub: Arc<Stub>,
    load: Load,
    workers: &'a mut Workers,
}

/// Measures a load in a database of its own.
pub(crate) async fn run(rig: &Rig, screen: &mut Screen, setup: Setup) -> Result<Measured, Error> {
    rig.in_database(async |database| run_in(rig, database, screen, setup).await).await
}

pub(crate) async fn run_in(
    rig: &Rig,
    database: &Database,
    screen: &mut Screen,
    setup: Setup,
) -> Result<Measured, Error> {
    with_load(rig, database, setup, async |run| run.measure(screen).await).await
}

/// Starts workers and a load, measures, and stops the workers in any case.
pub(crate) async fn with_load<T>(
    rig: &Rig,
    database: &Database,
    setup: Setup,
    measure: impl AsyncFnOnce(&mut Run<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (count, flags) = (setup.workers, setup.flags.clone());
    let with_workers = async |workers: &mut Workers| {
        let seconds = (setup.duration + WARM_UP_MAX).as_secs();
        let stub = Arc::new(Stub::start(Times::new(seconds * SAGAS_PER_SECOND_MAX)).await?);
        let load = Load::start(&database.url, setup.plan.clone(), Arc::clone(&stub)).await?;
        measure(&mut Run { rig, database, setup, stub, load, workers }).await
    };
    database.with_workers(count, &flags, with_workers).await
}

impl Run<'_> {
    async fn measure(&mut self, screen: &mut Screen) -> Result<Measured, Error> {
        self.pass(screen, self.setup.duration.min(WARM_UP_MAX), "warming up").await?;
        let (metrics, from) = (self.workers.read().await?, self.moment().await?);
        self.pass(screen, self.setup.duration, "measuring").await?;
        let to = self.moment().await?;
        let groups = self.workers.groups(&metrics).await?;
        self.end(screen).await?;
        self.evaluate(&from, &to, groups).await
    }

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

    /// Sagas that end per second, measured from now on.
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
            postgres_cpu: self.rig.postmaster().and_then(postgres_cpu_seconds),
        })
    }

    /// Ends the load, and waits until every saga whose participant answers has ended as it should.
    pub(crate) async fn end(&mut self, screen: &mut Screen) -> Result<(), Error> {
        self.load.stop().await?;
        let (expected, status) = (self.setup.plan.alive(self.load.inserted()), self.setup.status.as_str());
        let started = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let phase = format!("{}: ending", self.setup.name);
        loop {
            tick.tick().await;
            self.workers.check()?;
            screen.show(&phase, started.elapsed(), None, self.stub.ended());
            if self.stub.ended() >= expected {
                // The last settle may not have committed yet.
                let row = sqlx::query(include_str!("sql/read/ended.sql")).bind(status);
                let row = row.fetch_one(&self.database.pool).await?;
                let (ended, as_expected): (i64, i64) = (row.try_get("ended")?, row.try_get("as_expected")?);
                if ended != as_expected {
                    let others = ended - as_expected;
                    return Err(Error::Found(format!("{others} of {ended} sagas are not {status}")));
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
        let finished: i64 = sqlx::query_scalar(include_str!("sql/read/finished_between.sql"))
            .bind(from.work.at_us)
            .bind(to.work.at_us)
            .fetch_one(pool)
            .await?;
        let sagas = finished.max(1) as f64;
        let lacking =
            || Error::Found("no saga ran from its INSERT to its end while it was measured".to_owned());
        let workers = (to.work.commits - from.work.commits) - (to.commits - from.commits) as i64;
        let cpu = |from: Option<f64>, to: Option<f64>| Some((to? - from?) * 1e6 / sagas);
        let first_calls = self.stub.times().first_calls_us(from.us, to.us);
        Ok(Measured {
            sagas_per_second: finished as f64 / to.work.seconds_since(&from.work),
            first_call: Percentiles::of(first_calls).ok_or_else(lacking)?,
            finished: Percentiles::of(self.finals_us(from, to).await?).ok_or_else(lacking)?,
            groups,
            wal_bytes: (wal.all - wal.full_pages.unwrap_or(0)) as f64 / sagas,
            steps_bytes: sqlx::query_scalar(include_str!("sql/read/steps_bytes.sql")).fetch_one(pool).await?,
            full_page_bytes: wal.full_pages.map(|bytes| bytes as f64 / sagas),
            worker_commits: workers as f64 / sagas,
            dead_rows: (to.work.dead_rows - from.work.dead_rows) as f64 / sagas,
            worker_memory_bytes: self.workers.peak_memory_bytes().map(|bytes| bytes as f64),
            worker_cpu_us: cpu(from.worker_cpu, to.worker_cpu),
            postgres_cpu_us: cpu(from.postgres_cpu, to.postgres_cpu),
        })
    }

    /// Microseconds from the commit to the final state of the sagas that were committed between two
    /// moments.
    async fn finals_us(&self, from: &Moment, to: &Moment) -> Result<Vec<u64>, Error> {
        // The offset between this process's clock and the database's: both were read at the same
        // moment, or a round trip apart.
        let offset_us = to.work.at_us - to.us as i64;
        let times = self.stub.times();
        let finals = sqlx::query_as(include_str!("sql/read/finals.sql")).bind(from.work.at_us);
        let finals: Vec<(String, i64)> = finals.fetch_all(&self.database.pool).await?;
        let took = finals.into_iter().filter_map(|(gid, at_us)| {
            let committed = times.committed_us(Times::saga(&gid)?)?;
            let is_measured = (from.us..to.us).contains(&committed);
            is_measured.then(|| (at_us - offset_us - committed as i64).max(0).cast_unsigned())
        });
        Ok(took.collect())
    }
}
