//! Sagas that are due before the workers start.

use std::time::Duration;

use tokio::time::Instant;

use super::super::Bench;
use super::super::limits::{self, Subject};
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Groups, Rig, Workers};
use super::super::screen::Screen;
use super::super::stub::Stub;
use super::super::times::Times;
use crate::error::Error;

/// The worker's memory at the end is compared with its memory when this part of the sagas was done.
const EARLY: f64 = 0.2;
/// Upper bound on that ratio.
const GROWTH_MAX: f64 = 1.1;
/// Even a slow machine finishes this many sagas per second.
const SAGAS_PER_SECOND_MIN: u64 = 200;

struct Drained {
    seconds: f64,
    sagas_per_second: f64,
    groups: Groups,
    peak: Option<u64>,
    growth: Option<f64>,
}

/// What waits unless the command line says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    pub(crate) steps: usize,
    pub(crate) sagas: u64,
}

pub(crate) async fn measure(
    bench: &Bench,
    rig: &Rig,
    screen: &mut Screen,
    backlog: Backlog,
) -> Result<Report, Error> {
    let drained = rig.in_database(async |database| drain(bench, database, screen, backlog).await).await?;
    let plan = bench.plan(bench.shape(backlog.steps), 1);
    let duration = Duration::from_secs_f64(drained.seconds);
    let subject = Subject { plan: &plan, concurrency: bench.concurrency(), groups: drained.groups, duration };
    let limits = limits::measure(rig, screen, subject).await?;
    let limit = limits.drained(plan.shape.calls());
    let mut report = Report::new(bench.scenario);
    report.limits(&limits, limit);
    report.bar("ratio", drained.sagas_per_second / limit, Bar::AtLeast(0.9), "to the limit without INSERTs");
    report.line("sagas_per_second", drained.sagas_per_second, "from the workers' start to the last call");
    if let Some(growth) = drained.growth {
        let meaning = "a worker's memory at the end, to that after a fifth";
        report.bar("memory_growth", growth, Bar::AtMost(GROWTH_MAX), meaning);
    }
    report.line("worker_memory_bytes", drained.peak.map(|bytes| bytes as f64), "peak of a worker");
    report.groups(&drained.groups);
    Ok(report)
}

async fn drain(
    bench: &Bench,
    database: &Database,
    screen: &mut Screen,
    backlog: Backlog,
) -> Result<Drained, Error> {
    let sagas = bench.sagas.unwrap_or(backlog.sagas);
    let stub = Stub::start(Times::new(1)).await?;
    screen.say(&format!("inserting {sagas} sagas"));
    database.fill(&bench.shape(backlog.steps).steps_json(&stub)?, sagas.cast_signed()).await?;
    database.settle_down().await?;
    let watch = async |workers: &mut Workers| watch(&stub, sagas, workers, screen).await;
    let drained = database.with_workers(bench.workers(1), &bench.flags(), watch).await?;
    let open: i64 =
        sqlx::query_scalar(include_str!("../sql/read/open.sql")).fetch_one(&database.pool).await?;
    if open > 0 {
        return Err(Error::Found(format!("{open} of {sagas} sagas had not succeeded")));
    }
    Ok(drained)
}

async fn watch(
    stub: &Stub,
    sagas: u64,
    workers: &mut Workers,
    screen: &mut Screen,
) -> Result<Drained, Error> {
    let started = Instant::now();
    let deadline = started + Duration::from_secs(60 + sagas / SAGAS_PER_SECOND_MIN);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut early = None;
    while stub.ended() < sagas {
        tick.tick().await;
        workers.check()?;
        screen.show("draining", started.elapsed(), None, stub.ended());
        if early.is_none() && stub.ended() as f64 >= sagas as f64 * EARLY {
            early = workers.memory_now_bytes();
        }
        if Instant::now() > deadline {
            return Err(Error::Found(format!("only {} of {sagas} sagas had ended", stub.ended())));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let late = workers.memory_now_bytes();
    Ok(Drained {
        seconds,
        sagas_per_second: sagas as f64 / seconds,
        groups: workers.groups(&[]).await?,
        peak: workers.peak_memory_bytes(),
        growth: early.zip(late).map(|(early, late)| late as f64 / early as f64),
    })
}
