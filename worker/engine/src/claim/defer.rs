//! Puts off what participants cannot take now: one that is dead or hangs, however much is due for it, must not slow down
//! sagas that do not need it. Also gives back what must not be started next to a newer schema. Waits for a breaker are not tries: nothing is counted or recorded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::db::Lane;
use crate::flow::participants::{PUT_OFF_MAX, PUT_OFF_MIN};
use crate::liveness::release::{Returned, hand_back};
use crate::task::Task;
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;

/// How often what is due for blocked participants is parked.
const EVERY: Duration = Duration::from_secs(1);
/// Tasks a lane in one statement.
const BATCH: i64 = 10_000;
/// So many a second may come back for one participant: what a worker parks again and again costs about as much as
/// claiming it.
const BACK_PER_SECOND: i64 = 5_000;
/// Tasks handed back by one statement.
const GROUP_MAX: usize = 1000;

/// Parks until everything is done: tasks that this worker holds and cannot call now, and what lies in the queue for
/// participants that get no call.
pub async fn run(worker: Arc<Worker>, mut held: mpsc::UnboundedReceiver<Task>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut parked = HashMap::new();
    let mut tasks = Vec::new();
    loop {
        worker.metrics.tick(Loop::Park);
        tokio::select! {
            () = worker.done.cancelled() => return,
            count = held.recv_many(&mut tasks, GROUP_MAX) => {
                if count == 0 {
                    return;
                }
                give_back(&worker, &mut tasks).await;
            }
            _ = tick.tick() => if worker.schema.fits() { park(&worker, &mut parked).await },
        }
    }
}

async fn give_back(worker: &Worker, tasks: &mut Vec<Task>) {
    let id = worker.id();
    let returned: Vec<Returned> = tasks
        .iter()
        // What an old identity held is another's.
        .filter(|task| task.worker == id)
        .map(|task| {
            let delay = task.put_off(&worker.participants).unwrap_or(PUT_OFF_MIN);
            let participant = Some(task.ticket.participant().to_owned());
            Returned { task: task.id, epoch: task.epoch, delay, participant }
        })
        .collect();
    let put_off = returned.iter().filter(|returned| !returned.delay.is_zero()).count();
    let back = hand_back(worker, id, &returned).await;
    worker.metrics.parked.increment(back.min(put_off) as u64);
    tasks.clear();
}

/// Parks what is due, each participant's for as long as its breaker has been open, or long enough that it does not come
/// back faster than is cheap.
async fn park(worker: &Worker, parked: &mut HashMap<String, i64>) {
    let blocked = worker.participants.blocked();
    let whoever = blocked.parked.into_iter().map(|(name, open)| (name, open, false));
    let if_nobody_may = blocked.parked_if_nobody_may.into_iter().map(|(name, open)| (name, open, true));
    let blocked: Vec<_> = whoever.chain(if_nobody_may).collect();
    parked.retain(|name, _| blocked.iter().any(|(blocked, ..)| blocked == name));
    for (name, open, if_nobody_may) in blocked {
        let before = parked.get(&name).copied().unwrap_or(0);
        let delay =
            open.max(Duration::from_secs((before / BACK_PER_SECOND) as u64)).clamp(PUT_OFF_MIN, PUT_OFF_MAX);
        let mut count = 0;
        loop {
            let (lanes, marks) = worker.marks.all();
            let most = BATCH * lanes.len() as i64;
            let defer = query::Defer {
                participants: &[&name],
                delay_us: delay.as_micros() as i64,
                lanes: &lanes,
                watermarks: &marks,
                lane_tasks_max: BATCH,
                only_if_nobody_may_call: if_nobody_may,
            };
            let done: i64 = match worker.db.run(Lane::Control, defer.query()).await {
                Ok(rows) => rows.first().and_then(|row| row.try_get("parked").ok()).unwrap_or(0),
                Err(error) => {
                    worker.database_failed("park", &error);
                    return;
                }
            };
            count += done;
            if done < BATCH || done > most || worker.done.is_cancelled() {
                break;
            }
        }
        worker.metrics.parked.increment(count as u64);
        if count > 0 {
            tracing::debug!(
                participant = name,
                tasks = count,
                delay_ms = delay.as_millis() as u64,
                "tasks are parked"
            );
        }
        // What comes back in a round is a part of all that is parked: the largest round says how much that is.
        let all = parked.entry(name).or_insert(0);
        *all = (*all).max(count);
    }
}
