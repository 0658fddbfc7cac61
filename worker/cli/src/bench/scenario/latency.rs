//! One saga at a time, while all workers are idle.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_producer::Producer;
use tokio::time::Instant;

use super::super::Bench;
use super::super::report::{Bar, Report};
use super::super::rig::Rig;
use super::super::screen::Screen;
use super::super::stub::Stub;
use super::super::times::{Percentiles, Times};
use super::TO_FIRST_CALL;
use crate::error::Error;

/// Pause between two sagas: long enough that every worker is idle again, and random, so that it is
/// independent of their timers.
const PAUSE_MS: std::ops::Range<u64> = 100..300;
/// Upper bound on the time of one saga.
const SAGA_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn measure(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let measured = rig.in_database(async |database| {
        let measure = async |_: &mut _| one_by_one(bench, &database.url, screen).await;
        database.with_workers(bench.workers(3), &bench.flags(), measure).await
    });
    let (first_calls, ended) = measured.await?;
    let sagas = first_calls.len() as f64;
    let of = |us| Percentiles::of(us).ok_or_else(|| Error::Found("no saga was called".to_owned()));
    let (first_call, ended) = (of(first_calls)?, of(ended)?);
    let mut report = Report::new(bench.scenario);
    report.bar("p50_to_first_call_ms", first_call.p50_ms, Bar::AtMost(3.0), TO_FIRST_CALL);
    report.bar("p99_to_first_call_ms", first_call.p99_ms, Bar::AtMost(15.0), TO_FIRST_CALL);
    report.percentiles("first_call", first_call, TO_FIRST_CALL);
    report.percentiles("last_call", ended, "from the INSERT's commit to the answer of the last call");
    report.line("sagas", sagas, "measured, one after the other");
    Ok(report)
}

/// Microseconds to the first call and to the end of each saga.
async fn one_by_one(bench: &Bench, url: &str, screen: &mut Screen) -> Result<(Vec<u64>, Vec<u64>), Error> {
    let duration = bench.duration(60);
    let stub = Arc::new(Stub::start(Times::new(1_000_000)).await?);
    let pool = pgsaga_worker::db::connect(url).await?;
    let shape = bench.shape(2);
    let mut ends = Vec::new();
    let started = Instant::now();
    let mut saga = 0;
    // The first saga waits for connections and caches.
    let mut from_us = 0;
    while started.elapsed() < duration || saga < 2 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        let definition = shape.saga(&stub, saga, None)?;
        Producer::default().submit_definition(&pool, &definition).await?;
        stub.times().committed(saga);
        let committed = Instant::now();
        saga += 1;
        while stub.ended() < saga {
            if committed.elapsed() > SAGA_MAX {
                let seconds = SAGA_MAX.as_secs();
                return Err(Error::Found(format!("saga {saga} had not ended after {seconds} s")));
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        match saga {
            1 => from_us = stub.times().now_us(),
            _ => ends.push(committed.elapsed().as_micros() as u64),
        }
        screen.show("one at a time", started.elapsed(), Some(duration), saga);
    }
    pool.close().await;
    Ok((stub.times().first_calls_us(from_us, u64::MAX), ends))
}
