//! Workers with nothing to do.

use std::time::Duration;

use super::super::Bench;
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Rig, Workers, pass};
use super::super::screen::Screen;
use super::super::usage::{self, Work};
use crate::error::Error;

/// Until everybody has seen that there is nothing to do, at most.
const SETTLE_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn measure(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let Some(postmaster) = rig.postmaster() else {
        return Err(Error::Usage(
            "idle counts the CPU of the server's processes: it needs its own, without --database-url"
                .to_owned(),
        ));
    };
    rig.in_database(async |database| {
        let mut workers = Workers::start(database.url(), bench.workers(10), &bench.flags()).await?;
        let measured = rest(bench, database, postmaster, &mut workers, screen).await;
        workers.stop().await;
        measured
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
        let (server, own) = (usage::postgres_cpu_seconds(postmaster), workers.cpu_seconds());
        server.zip(own).ok_or_else(nobody_says)
    };
    pass(screen, "coming to rest", bench.duration(60).min(SETTLE_MAX), || workers.check().map(|()| 0))
        .await?;
    let (work, cpu) = (Work::read(&database.pool).await?, read(workers)?);
    pass(screen, "idle", bench.duration(60), || workers.check().map(|()| 0)).await?;
    let (work_after, cpu_after) = (Work::read(&database.pool).await?, read(workers)?);
    let seconds = (work_after.at_us - work.at_us) as f64 / 1e6;
    let (server, own) = ((cpu_after.0 - cpu.0) / seconds, (cpu_after.1 - cpu.1) / seconds);
    // One of them is our own second reading.
    let statements = (work_after.commits - work.commits - 1).max(0) as f64 / seconds;
    let mut report = Report::new(bench.scenario.name());
    report.bar("cores", server + own, Bar::Below(0.01), "of one core, workers and server");
    report.bar("statements_per_second", statements, Bar::Below(30.0), "of all workers");
    report.line("postgres_cores", server, "the server's part");
    report.line("worker_cores", own, "the workers' part, all together");
    report.line("workers", bench.workers(10) as f64, "processes");
    Ok(report)
}
