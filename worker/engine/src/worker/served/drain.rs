//! The end of a worker: no new call starts, everything is settled, and what was not started is
//! released.

use std::time::{Duration, Instant};

use pgsaga_sql::{fail, query};

use super::loops::Loops;
use crate::db::PoolKind;
use crate::flow::capacity::Capacity;
use crate::liveness::handlers::RunningHandlers;
use crate::liveness::release::{Release, release};
use crate::wake::wakeups::Wakeups;
use crate::worker::status::WorkerStatus;

/// Upper bound on the time for the loops to end after the drain.
const LOOPS_END_MAX: Duration = Duration::from_secs(3);
/// How long the sign-off may take. Where Postgres does not answer, other workers rescue what was
/// held after the lease.
pub(super) const SIGN_OFF_MAX: Duration = Duration::from_secs(5);
/// Upper bound on the tasks that one statement of the sign-off releases.
const RELEASE_BATCH: usize = 1000;

/// Drains a worker that was told to stop.
pub(super) async fn drain(
    status: &WorkerStatus,
    capacity: &Capacity,
    wakeups: &Wakeups,
    running: &RunningHandlers,
    loops: &mut Loops,
) {
    let started = Instant::now();
    fail::point("drain:before");
    let held = status.membership.in_flight.len();
    tracing::info!(held, grace_ms = status.grace.as_millis() as u64, "draining");
    // Every slot is free again when every task is settled, or dropped unstarted.
    let all = capacity.task_slots.acquire_many(capacity.tasks_max as u32);
    let within_grace = tokio::time::timeout(status.grace, all).await.is_ok();
    if !within_grace {
        // What is rescued must not run beside its next attempt.
        // control: drain-drops-handlers
        running.drop_all();
        if tokio::time::timeout(LOOPS_END_MAX, running.ended()).await.is_err() {
            running.log_all("a handler does not yield, and runs beside its next attempt");
        }
    }
    fail::point("drain:calls_ended");
    status.shutdown.done.cancel();
    // A loop may be in the middle of a statement. The statement's own timeout bounds it, and
    // nothing below depends on its end.
    let _ = tokio::time::timeout(LOOPS_END_MAX, loops.join()).await;
    let signed_off = sign_off(status, wakeups, within_grace, started);
    if tokio::time::timeout(SIGN_OFF_MAX, signed_off).await.is_err() {
        tracing::warn!(
            held = status.membership.in_flight.len(),
            "the database did not answer at sign-off: other workers rescue the held tasks after the lease"
        );
    }
    fail::point("drain:after");
}

/// Releases what was not started. Calls that outlasted the grace are left to be rescued, which
/// records them as unknown. The worker's row says that the worker is dead, so that nobody waits
/// for a lease.
async fn sign_off(status: &WorkerStatus, wakeups: &Wakeups, within_grace: bool, started: Instant) {
    let (db, membership) = (&status.db, &status.membership);
    let (unstarted, cut_off): (Vec<_>, Vec<_>) =
        membership.in_flight.all().into_iter().partition(|(_, entry)| !entry.started);
    let unstarted: Vec<Release> = unstarted
        .into_iter()
        .map(|(task, entry)| Release { task, epoch: entry.epoch, delay: Duration::ZERO, participant: None })
        .collect();
    let mut released = 0;
    for batch in unstarted.chunks(RELEASE_BATCH) {
        released += release(db, membership, wakeups, membership.id(), batch).await;
    }
    for (doing, statement) in [("retire", query::RETIRE), ("bury", query::BURY)] {
        if let Err(error) = db.run(PoolKind::Control, sqlx::query(statement).bind(membership.id())).await {
            db.failed(doing, &error);
            break;
        }
    }
    tracing::info!(
        released,
        cut_off = cut_off.len(),
        within_grace,
        took_ms = started.elapsed().as_millis() as u64,
        "drained"
    );
}
