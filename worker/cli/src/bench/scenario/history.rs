//! Millions of finished sagas in the tables, while retention deletes them.

use super::super::Bench;
use super::super::report::{Bar, Report};
use super::super::rig::Rig;
use super::super::run::{Measured, run_in};
use super::super::screen::Screen;
use super::TO_FIRST_CALL;
use crate::error::Error;

pub(crate) async fn measure(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let sagas = bench.sagas.unwrap_or(5_000_000);
    let (empty, _) = beside(bench, rig, screen, 0).await?;
    let (full, left) = beside(bench, rig, screen, sagas).await?;
    let mut report = Report::new(bench.scenario);
    let meaning = "sagas a second, to those with empty tables";
    report.bar("full_to_empty", full.sagas_per_second / empty.sagas_per_second, Bar::AtLeast(0.95), meaning);
    report.line("sagas_per_second", full.sagas_per_second, "beside finished sagas, while retention runs");
    report.line("sagas_per_second_empty", empty.sagas_per_second, "with empty tables");
    report.line("sagas_before", sagas as f64, "finished, in the tables when the workers started");
    report.line("sagas_deleted", sagas as f64 - left as f64, "of them, by retention, during the run");
    report.percentiles("first_call", full.first_call, TO_FIRST_CALL);
    Ok(report)
}

/// A run beside this many finished sagas, and the number of them that are left afterwards.
async fn beside(bench: &Bench, rig: &Rig, screen: &mut Screen, sagas: u64) -> Result<(Measured, i64), Error> {
    rig.in_database(async |database| {
        screen.say(&format!("making {sagas} finished sagas"));
        let mut connection = database.pool.acquire().await?;
        for statement in include_str!("../sql/setup/finished.sql").split(';') {
            let statement = statement.replace("{sagas}", &sagas.to_string());
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
        }
        drop(connection);
        database.settle_down().await?;
        let mut setup = bench.setup(&format!("beside {sagas} finished sagas"), bench.workers(1));
        setup.flags.extend(["--retention".to_owned(), "1h".to_owned()]);
        setup.duration = bench.duration(60);
        let measured = run_in(rig, database, screen, setup).await?;
        let left = sqlx::query_scalar(include_str!("../sql/read/finished_left.sql"))
            .fetch_one(&database.pool)
            .await?;
        Ok((measured, left))
    })
    .await
}
