//! Workers with nothing to do.

use std::time::Duration;

use super::super::Bench;
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Rig, Workers, pass};
use super::super::screen::Screen;
use super::super::usage::{Work, postgres_cpu_seconds};
use crate::error::Error;

/// Upper bound on the time until every worker is idle.
const SETTLE_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn measure(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let Some(postmaster) = rig.postmaster() else {
        return Err(Error::Usage(
            "idle counts the CPU of the server's processes: it needs its own, without --database-url"
                .to_owned(),
        ));
    };
    rig.in_database(async |database| {
        let rest = async |workers: &mut Workers| rest(bench, database, postmaster, workers, screen).await;
        database.with_workers(bench.workers(10), &bench.flags(), rest).await
    })
    .await
}

async fn rest(
    bench: &Bench,
    database: &Database,
    postmaster: u32,
    workers: &mut Workers,
    screen: &mut Screen,
) -> Result<Report, Error> {
    let nobody_says = || Error::Usage("this system does not say how much CPU a process has used".to_owned());
    let read = |workers: &Workers| {
        postgres_cpu_seconds(postmaster).zip(workers.cpu_seconds()).ok_or_else(nobody_says)
    };
    let settling = bench.duration(60).min(SETTLE_MAX);
    pass(screen, "coming to rest", settling, || workers.check().map(|()| 0)).await?;
    let (work, cpu) = (Work::read(&database.pool).await?, read(workers)?);
    pass(screen, "idle", bench.duration(60), || workers.check().map(|()| 0)).await?;
    let (work_after, cpu_after) = (Work::read(&database.pool).await?, read(workers)?);
    let seconds = work_after.seconds_since(&work);
    let (server, own) = ((cpu_after.0 - cpu.0) / seconds, (cpu_after.1 - cpu.1) / seconds);
    // One statement is the bench's own second reading.
    let statements = (work_after.commits - work.commits - 1).max(0) as f64 / seconds;
    let mut report = Report::new(bench.scenario);
    report.bar("cores", server + own, Bar::Below(0.01), "of one core, workers and server");
    report.bar("statements_per_second", statements, Bar::Below(30.0), "of all workers");
    report.line("postgres_cores", server, "the server's part");
    report.line("worker_cores", own, "the workers' part, all together");
    report.line("workers", bench.workers(10) as f64, "processes");
    Ok(report)
}
