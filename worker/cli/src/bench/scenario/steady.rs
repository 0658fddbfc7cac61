//! Loads at a constant rate: steady, with several workers, refused, at half the rate, and beside a
//! dead participant.

use std::time::Duration;

use pgsaga_sql::contract::SagaStatus;
use tokio::net::TcpListener;

use super::super::Bench;
use super::super::limits::{self, Subject};
use super::super::load::{Pace, Shape};
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Rig};
use super::super::run::{Measured, Run, Setup, run, with_load};
use super::super::screen::Screen;
use super::TO_FIRST_CALL;
use crate::error::Error;

/// Upper bound on the WAL of a two-step saga in addition to its stored steps.
const WAL_BYTES_MAX: f64 = 2048.0;
/// Upper bound on the workers' transactions for each saga.
const COMMITS_MAX: f64 = 0.1;
const MEMORY_BYTES_MAX: f64 = 100e6;
/// Upper bound on the time in which the steady rate is measured before half of it.
const RATE_PHASE_MAX: Duration = Duration::from_secs(15);

/// The highest throughput, beside the machine's limit.
pub(crate) async fn steady(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    against_limit(bench, rig, screen, bench.setup("steady", bench.workers(1)), 0.8).await
}

/// Every saga is refused at its last step and compensated.
pub(crate) async fn rollback(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let mut setup = bench.setup("rollback", bench.workers(1));
    setup.plan.shape = Shape { refused: true, ..bench.shape(3) };
    setup.status = SagaStatus::Failed;
    against_limit(bench, rig, screen, setup, 0.6).await
}

async fn against_limit(
    bench: &Bench,
    rig: &Rig,
    screen: &mut Screen,
    setup: Setup,
    bar: f64,
) -> Result<Report, Error> {
    let plan = setup.plan.clone();
    let mut report = Report::new(bench.scenario);
    let duration = setup.duration;
    let measured = run(rig, screen, setup).await?;
    let groups = measured.groups;
    let subject = Subject { plan: &plan, concurrency: bench.concurrency(), groups, duration };
    let limits = limits::measure(rig, screen, subject).await?;
    let limit = limits.composed(plan.shape.calls());
    report.limits(&limits, limit);
    let ratio = measured.sagas_per_second / limit;
    report.bar("ratio", ratio, Bar::AtLeast(bar), "sagas_per_second to the limit");
    report.measured(&measured);
    costs(&mut report, &measured, &plan.shape);
    Ok(report)
}

fn costs(report: &mut Report, measured: &Measured, shape: &Shape) {
    // The bars apply to sagas that go forward.
    let bar = |is: bool, bar: Bar| (is && !shape.refused).then_some(bar);
    if !shape.refused {
        report.line("steps_bytes_per_saga", measured.steps_bytes, "the steps as they are stored");
    }
    report.line("wal_bytes_per_saga", measured.wal_bytes, "without full-page images");
    if !shape.refused {
        let beside = measured.wal_bytes - measured.steps_bytes;
        let wal = bar(shape.steps == 2, Bar::AtMost(WAL_BYTES_MAX));
        report.figure("wal_bytes_beside_steps", beside, wal, "without full-page images and steps");
    }
    let commits = bar(true, Bar::AtMost(COMMITS_MAX));
    report.figure("worker_commits_per_saga", measured.worker_commits, commits, "transactions of the workers");
    let memory = bar(measured.worker_memory_bytes.is_some(), Bar::AtMost(MEMORY_BYTES_MAX));
    report.figure("worker_memory_bytes", measured.worker_memory_bytes, memory, "peak of a worker");
}

/// Several workers must not slow each other down.
pub(crate) async fn workers(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let mut report = Report::new(bench.scenario);
    let mut rates: Vec<(usize, Measured)> = Vec::new();
    for workers in [1, 2, 4] {
        let mut setup = bench.setup(&format!("{workers} workers"), workers);
        // The same load for every number of workers.
        setup.plan = bench.plan(bench.shape(2), 4);
        rates.push((workers, run(rig, screen, setup).await?));
    }
    let rate = |one: &(usize, Measured)| one.1.sagas_per_second;
    let best = rates.iter().map(rate).fold(f64::MIN, f64::max);
    let worst = rates.iter().map(rate).fold(f64::MAX, f64::min);
    report.bar("worst_to_best", worst / best, Bar::AtLeast(0.9), "of 1, 2 and 4 worker processes");
    for (workers, measured) in &rates {
        let name = format!("sagas_per_second_{workers}_workers");
        report.line(&name, measured.sagas_per_second, "end to end, counted at their final state");
        let name = format!("settle_tasks_{workers}_workers");
        report.line(&name, measured.groups.settle, "tasks of a settle");
    }
    Ok(report)
}

/// Half of the highest throughput, at which sagas do not queue.
pub(crate) async fn half_load(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let mut setup = bench.setup("the steady rate", bench.workers(1));
    let phase = setup.duration.min(RATE_PHASE_MAX);
    let measure = async |run: &mut Run<'_>| {
        run.pass(screen, phase / 3, "warming up").await?;
        let rate = run.rate(screen, phase, "measuring").await?;
        run.end(screen).await.map(|()| rate)
    };
    let measure_full = async |database: &Database| with_load(rig, database, setup.clone(), measure).await;
    let full = rig.in_database(measure_full).await?;
    setup.name = "half of it".to_owned();
    setup.plan.pace = Pace::Rate(full / 2.0);
    let measured = run(rig, screen, setup).await?;
    let mut report = Report::new(bench.scenario);
    report.line("steady_sagas_per_second", full, "as fast as it goes");
    report.bar("p99_to_first_call_ms", measured.first_call.p99_ms, Bar::AtMost(50.0), TO_FIRST_CALL);
    report.measured(&measured);
    Ok(report)
}

/// A fifth of all sagas go to a participant that accepts connections and never answers.
pub(crate) async fn dead_participant(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let failed = || Error::io("listen as a participant that never answers");
    let silent = TcpListener::bind("127.0.0.1:0").await.map_err(failed())?;
    let dead = format!("http://{}/never", silent.local_addr().map_err(failed())?);
    let alone = run(rig, screen, bench.setup("all answer", bench.workers(1))).await?;
    let mut setup = bench.setup("a fifth does not answer", bench.workers(1));
    setup.plan.dead = Some(dead);
    let beside = run(rig, screen, setup).await?;
    let mut report = Report::new(bench.scenario);
    // Four fifths of the throughput of a run in which every participant answers.
    let before = alone.sagas_per_second * 0.8;
    let (after, meaning) = (beside.sagas_per_second, "beside a participant that does not answer");
    report.bar("others_to_before", after / before, Bar::AtLeast(0.9), "the rate of all others");
    report.line("others_sagas_per_second", after, meaning);
    report.line("others_sagas_per_second_before", before, "while all answer");
    report.percentiles("first_call", beside.first_call, "of the others, from the INSERT's commit");
    Ok(report)
}
