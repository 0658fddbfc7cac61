//! The life of a worker: wait for Postgres, register, run the loops, drain.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::{fail, query};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument as _, Span};

use crate::backoff::Reconnect;
use crate::claim::{self, defer};
use crate::db::{Class, Hosts, Lane};
use crate::error::Error;
use crate::liveness::release::{Returned, hand_back};
use crate::liveness::{heartbeat, reconcile, rescue};
use crate::settle;
use crate::telemetry::metrics::Loop;
use crate::upkeep::{retention, sample};
use crate::wake::listen;
use crate::worker::{Receivers, Worker};

/// How often the worker looks whether history partitions must be made ahead.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
/// How long the loops may take to end after the drain.
const LOOPS_END_MAX: Duration = Duration::from_secs(3);
/// How long the farewell may take. Where Postgres does not answer, the others rescue what was held after the lease.
const SIGN_OFF_MAX: Duration = Duration::from_secs(5);

/// Works until `worker.stop`, then drains: no new call starts, running calls may end within the grace, everything is
/// settled, and what was not started goes back.
///
/// # Errors
/// [`Error::Schema`] where the database was not migrated for this release, [`Error::LoopEnded`] where a loop ended by itself.
pub async fn run(
    worker: Arc<Worker>,
    Receivers { finished, unfit }: Receivers,
    listen_on: Option<Hosts>,
) -> Result<(), Error> {
    if !wait_for_postgres(&worker).await? {
        return Ok(());
    }
    let mut loops = Loops::default();
    let (dead, dying) = mpsc::unbounded_channel();
    loops.spawn("heartbeat", heartbeat::run(Arc::clone(&worker), dead.clone()));
    loops.spawn("rescue", rescue::run(Arc::clone(&worker), dying));
    loops.spawn("reconcile", reconcile::run(Arc::clone(&worker), dead));
    loops.spawn("settle", settle::run(Arc::clone(&worker), finished));
    loops.spawn("defer", defer::run(Arc::clone(&worker), unfit));
    loops.spawn("sample", sample::run(Arc::clone(&worker)));
    loops.spawn("partitions", keep_partitions_ahead(Arc::clone(&worker)));
    if let Some(age) = worker.limits.retention {
        loops.spawn("retention", retention::run(Arc::clone(&worker), age));
    }
    match listen_on {
        Some(hosts) => loops.spawn("listen", listen::run(Arc::clone(&worker), hosts)),
        None => tracing::info!("no direct connection for LISTEN: this worker polls"),
    }
    loops.spawn("claim", claim::run(Arc::clone(&worker)));

    let ended = tokio::select! {
        () = worker.stop.cancelled() => None,
        ended = loops.first_ended() => Some(ended),
    };
    if let Some(name) = ended.filter(|_| !worker.stop.is_cancelled()) {
        worker.done.cancel();
        return Err(Error::LoopEnded(name));
    }
    let started = Instant::now();
    fail::point("drain:before");
    let settled = finish_calls(&worker).await;
    fail::point("drain:calls_ended");
    worker.done.cancel();
    // A loop may be in the middle of a statement; its own timeout bounds it, and nothing below depends on its end.
    let _ = tokio::time::timeout(LOOPS_END_MAX, loops.join()).await;
    if tokio::time::timeout(SIGN_OFF_MAX, sign_off(&worker, settled, started)).await.is_err() {
        tracing::warn!(
            held = worker.held.len(),
            "the database did not answer the farewell: what was held is rescued after the lease"
        );
    }
    fail::point("drain:after");
    Ok(())
}

/// Waits as long as it takes, not ready, and says so. False when the worker was told to stop meanwhile.
async fn wait_for_postgres(worker: &Worker) -> Result<bool, Error> {
    let mut reconnect = Reconnect::new();
    while !worker.stop.is_cancelled() {
        let fits = async {
            worker.db.answers().await?;
            worker.db.check_schema().await?;
            make_history_partitions(worker).await.map_err(Error::from)
        };
        let fits = tokio::select! {
            () = worker.stop.cancelled() => break,
            fits = fits => fits,
        };
        // Dropped half-way it may leave a row that nobody signs off, and that the others bury after the lease.
        let given_up = async {
            worker.stop.cancelled().await;
            tokio::time::sleep(SIGN_OFF_MAX).await;
        };
        let started = match fits {
            Ok(()) => tokio::select! {
                registered = heartbeat::register(worker) => registered.map_err(Error::from),
                () = given_up => break,
            },
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => return Ok(true),
            Err(Error::Database(error))
                if matches!(Class::of(&error), Class::Connection | Class::Conflict) =>
            {
                worker.metrics.database_error(Class::of(&error));
                let again = reconnect.pause();
                tracing::warn!(%error, again_ms = again.as_millis() as u64, "waiting for Postgres");
                tokio::select! {
                    () = worker.stop.cancelled() => {}
                    () = tokio::time::sleep(again) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

async fn make_history_partitions(worker: &Worker) -> Result<(), sqlx::Error> {
    worker.db.run(Lane::Control, sqlx::query(query::MAKE_HISTORY_PARTITIONS)).await.map(drop)
}

async fn keep_partitions_ahead(worker: Arc<Worker>) {
    let mut tick = tokio::time::interval(PARTITIONS_EVERY);
    loop {
        worker.metrics.tick(Loop::Partitions);
        tokio::select! {
            () = worker.done.cancelled() => return,
            _ = tick.tick() => {}
        }
        // One does it for all: they are made millions of sagas ahead, and each worker has looked when it started.
        if !worker.is_first() {
            continue;
        }
        if let Err(error) = make_history_partitions(&worker).await {
            worker.database_failed("make history partitions", &error);
        }
    }
}

/// Waits until every place is free again: every task is settled, or dropped unstarted. False when the grace ended first.
async fn finish_calls(worker: &Worker) -> bool {
    tracing::info!(held = worker.held.len(), grace_ms = worker.limits.grace.as_millis() as u64, "draining");
    let all = worker.limits.held_max as u32;
    tokio::time::timeout(worker.limits.grace, worker.places.acquire_many(all)).await.is_ok()
}

/// Hands back what was not started. Calls that outlasted the grace are left to be rescued, which records them as unknown:
/// the worker's row says that it is dead, so that nobody waits for a lease.
async fn sign_off(worker: &Worker, settled: bool, started: Instant) {
    let (unstarted, cut_off): (Vec<_>, Vec<_>) =
        worker.held.all().into_iter().partition(|(_, entry)| !entry.started);
    let unstarted: Vec<Returned> = unstarted
        .into_iter()
        .map(|(task, entry)| Returned { task, epoch: entry.epoch, delay: Duration::ZERO, participant: None })
        .collect();
    let mut back = 0;
    for batch in unstarted.chunks(1000) {
        back += hand_back(worker, worker.id(), batch).await;
    }
    for (doing, statement) in [("retire", query::RETIRE), ("bury", query::BURY)] {
        if let Err(error) = worker.db.run(Lane::Control, sqlx::query(statement).bind(worker.id())).await {
            worker.database_failed(doing, &error);
            break;
        }
    }
    tracing::info!(
        handed_back = back,
        cut_off = cut_off.len(),
        within_grace = settled,
        took_ms = started.elapsed().as_millis() as u64,
        "drained"
    );
}

/// The running loops, by name.
#[derive(Default)]
struct Loops(JoinSet<&'static str>);

impl Loops {
    fn spawn(&mut self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let loop_to_its_end = async move {
            run.await;
            name
        };
        // What it logs is of the database that this worker serves.
        self.0.spawn(loop_to_its_end.instrument(Span::current()));
    }

    async fn first_ended(&mut self) -> String {
        match self.0.join_next().await {
            Some(Ok(name)) => name.to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "every".to_owned(),
        }
    }

    async fn join(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}
