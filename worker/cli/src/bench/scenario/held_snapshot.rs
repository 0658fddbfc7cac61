//! One transaction stays open for the whole run, so that vacuum removes nothing.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection as _, Executor as _};

use super::super::Bench;
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Rig};
use super::super::run::{Run, with_load};
use super::super::screen::Screen;
use crate::error::Error;

/// The time at the end of each run that is compared, and the times in which claims are compared.
const LAST: Duration = Duration::from_secs(60);
/// Upper bound on the ratio of a claim's buffers at the end to those at the beginning.
const CLAIM_GROWTH_MAX: f64 = 1.5;

struct Ran {
    rate: f64,
    /// Buffers of a claim, at the beginning and at the end.
    first: f64,
    last: f64,
}

pub(crate) async fn measure(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let mut ran =
        async |hold| rig.in_database(async |database| run(bench, rig, database, screen, hold).await).await;
    let (without, held) = (ran(false).await?, ran(true).await?);
    let mut report = Report::new(bench.scenario);
    let meaning = "the last minute, to that of the same run without an open transaction";
    report.bar("held_to_without", held.rate / without.rate, Bar::AtLeast(0.9), meaning);
    let growth = held.last / held.first;
    report.bar(
        "claim_buffers_growth",
        growth,
        Bar::AtMost(CLAIM_GROWTH_MAX),
        "the last minute, to the first",
    );
    report.line("sagas_per_second", held.rate, "in the last minute");
    report.line("sagas_per_second_without", without.rate, "in the last minute without an open transaction");
    report.line("claim_buffers_first", held.first, "buffers of a claim in the first minute");
    report.line("claim_buffers_last", held.last, "and in the last");
    report.line("claim_buffers_last_without", without.last, "in the last without an open transaction");
    Ok(report)
}

async fn run(
    bench: &Bench,
    rig: &Rig,
    database: &Database,
    screen: &mut Screen,
    hold: bool,
) -> Result<Ran, Error> {
    sqlx::raw_sql(include_str!("../sql/setup/statements.sql")).execute(&database.pool).await?;
    let holder = if hold { Some(hold_snapshot(&database.url).await?) } else { None };
    let name = if hold { "a transaction is open" } else { "none is open" };
    let mut setup = bench.setup(name, bench.workers(1));
    setup.duration = bench.duration(600);
    let (duration, last) = (setup.duration, LAST.min(setup.duration / 3));
    let measure = async |run: &mut Run<'_>| {
        run.pass(screen, Duration::from_secs(5), "warming up").await?;
        let (_, first) = claim_buffers(&database.pool, screen, run, last).await?;
        run.pass(screen, duration.saturating_sub(last * 2), "measuring").await?;
        let (rate, last) = claim_buffers(&database.pool, screen, run, last).await?;
        drop(holder);
        run.end(screen).await?;
        Ok(Ran { rate, first, last })
    };
    with_load(rig, database, setup, measure).await
}

/// Sagas per second and buffers of a claim, measured from now on.
async fn claim_buffers(
    pool: &PgPool,
    screen: &mut Screen,
    run: &mut Run<'_>,
    duration: Duration,
) -> Result<(f64, f64), Error> {
    let read =
        || sqlx::query_as::<_, (i64, i64)>(include_str!("../sql/read/claim_buffers.sql")).fetch_one(pool);
    let before = read().await?;
    let rate = run.rate(screen, duration, "measuring").await?;
    let after = read().await?;
    Ok((rate, (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64))
}

/// A transaction with a snapshot, which stays open until the connection is dropped.
async fn hold_snapshot(url: &str) -> Result<PgConnection, Error> {
    let mut connection = PgConnection::connect_with(&pgsaga_worker::db::choose(url).await?).await?;
    connection.execute(include_str!("../sql/setup/hold.sql")).await?;
    Ok(connection)
}
