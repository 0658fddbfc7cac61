//! The worker's claim and settle statements, with a worker's group sizes, without a worker and
//! without HTTP.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use pgsaga_plan::{Op, Outcome, StatusChange};
use pgsaga_sql::query::{self, SettledTask};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::load::Shape;
use super::super::rig::{Database, Groups, Rig};
use super::super::screen::Screen;
use super::super::stub::Stub;
use super::super::times::Times;
use super::failed;
use crate::error::Error;
use pgsaga_worker::db;

/// Numbers of sessions that claim and settle at the same time, because a worker's claims and
/// settles overlap as well. The best number counts.
const SESSIONS: [usize; 2] = [2, 3];

pub(crate) async fn measure(
    rig: &Rig,
    screen: &mut Screen,
    shape: &Shape,
    groups: Groups,
    sagas: i64,
) -> Result<f64, Error> {
    let mut best: f64 = 0.0;
    for sessions in SESSIONS {
        let drain =
            async |database: &Database| drain(database, screen, shape, groups, (sagas, sessions)).await;
        best = best.max(rig.in_database(drain).await?);
    }
    Ok(best)
}

async fn drain(
    database: &Database,
    screen: &mut Screen,
    shape: &Shape,
    groups: Groups,
    (sagas, sessions): (i64, usize),
) -> Result<f64, Error> {
    // Called by nobody: the stub only provides the URLs.
    let stub = Stub::start(Times::new(1)).await?;
    database.fill(&shape.steps_json(&stub)?, sagas).await?;
    database.settle_down().await?;
    let ended = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..sessions {
        let session = Session::open(&database.url, shape.clone(), groups, Arc::clone(&ended)).await?;
        running.spawn(session.run());
    }
    let phase = format!("statements alone, {sessions} sessions, groups of {:.0}", groups.settle);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = tick.tick() => screen.show(&phase, started.elapsed(), None, ended.load(Ordering::Relaxed)),
            next = running.join_next() => match next {
                Some(ended) => ended.map_err(failed)??,
                None => break,
            },
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    match ended.load(Ordering::Relaxed) {
        all if all == sagas.cast_unsigned() => Ok(sagas as f64 / seconds),
        some => Err(failed(format!("only {some} of {sagas} sagas ended"))),
    }
}

#[derive(Debug, Clone, Copy)]
struct Task {
    id: i64,
    saga: i64,
    epoch: i32,
    step: i16,
    compensates: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next step's action, in the same row.
    Advance,
    /// The compensation of this step, in a new row. If `turns`, the saga unwinds now.
    Compensate {
        step: i16,
        turns: bool,
    },
    End,
}

/// One session, which acts as a worker of its own.
struct Session {
    connection: PgConnection,
    shape: Shape,
    groups: Groups,
    worker: i64,
    watermark: DateTime<Utc>,
    ended: Arc<AtomicU64>,
}

impl Session {
    async fn open(url: &str, shape: Shape, groups: Groups, ended: Arc<AtomicU64>) -> Result<Session, Error> {
        let options = db::choose(url).await?.options(db::PLANNER).disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await?;
        let register = query::Register {
            lease_ms: 60_000,
            host: "bench",
            process_id: std::process::id().cast_signed(),
            version: env!("CARGO_PKG_VERSION"),
            environment: None,
            queues: None,
            participants: &[],
            transactional: &[],
        };
        let row = register.query().fetch_one(&mut connection).await?;
        let worker = row.try_get("id")?;
        Ok(Session { connection, shape, groups, worker, watermark: DateTime::UNIX_EPOCH, ended })
    }

    async fn run(mut self) -> Result<(), Error> {
        let (claim, settle) = (self.groups.claim.ceil().max(1.0), self.groups.settle.ceil().max(1.0));
        let mut held: Vec<Task> = Vec::new();
        loop {
            if (held.len() as f64) < settle {
                let claimed = self.claim(claim as i64).await?;
                held.extend(claimed);
            }
            if held.is_empty() {
                return Ok(());
            }
            let group: Vec<Task> = held.drain(..held.len().min(settle as usize)).collect();
            held.extend(self.settle(group).await?);
        }
    }

    async fn claim(&mut self, tasks: i64) -> Result<Vec<Task>, sqlx::Error> {
        let claim = query::Claim {
            worker_id: self.worker,
            tasks_max: tasks,
            format_max: pgsaga_sql::FORMAT,
            definition_bytes_max: i64::MAX,
            lanes: &[1],
            watermarks: &[self.watermark],
            ..query::Claim::default()
        };
        let rows = claim.query().fetch_all(&mut self.connection).await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in &rows {
            match row.try_get::<Option<i64>, _>("id")? {
                Some(id) => claimed.push(Task {
                    id,
                    saga: row.try_get("saga_id")?,
                    epoch: row.try_get("epoch")?,
                    step: row.try_get("step")?,
                    compensates: row.try_get::<&str, _>("op")? == Op::Compensate.as_str(),
                }),
                // No saga is inserted meanwhile, so rows before the oldest one are gone.
                None => self.watermark = row.try_get::<Option<_>, _>("lowest")?.unwrap_or(self.watermark),
            }
        }
        Ok(claimed)
    }

    fn refuses(&self, task: &Task) -> bool {
        self.shape.refused && !task.compensates && usize::try_from(task.step) == Ok(self.shape.steps)
    }

    fn next(&self, task: &Task) -> Next {
        let last = usize::try_from(task.step) == Ok(self.shape.steps);
        match (task.compensates, last) {
            (true, _) if task.step == 1 => Next::End,
            (true, _) => Next::Compensate { step: task.step - 1, turns: false },
            (false, true) if self.shape.refused && task.step > 1 => {
                Next::Compensate { step: task.step - 1, turns: true }
            }
            (false, true) => Next::End,
            (false, false) => Next::Advance,
        }
    }

    /// Settles a group and returns the tasks that follow.
    async fn settle(&mut self, mut group: Vec<Task>) -> Result<Vec<Task>, sqlx::Error> {
        group.sort_unstable_by_key(|task| task.saga);
        let nexts: Vec<Next> = group.iter().map(|task| self.next(task)).collect();
        let mut settle = query::Settle { worker_id: self.worker, ..query::Settle::default() };
        settle.tasks.extend(group.iter().zip(&nexts).map(|(task, next)| self.settled(task, *next)));
        let rows = settle.query().fetch_all(&mut self.connection).await?;
        self.follow(&group, &nexts, &rows)
    }

    fn settled(&self, task: &Task, next: Next) -> SettledTask<'static> {
        let (outcome, status_code) =
            if self.refuses(task) { (Outcome::Failure, 409) } else { (Outcome::Success, 200) };
        let settled = SettledTask {
            task_id: task.id,
            epoch: task.epoch,
            saga_id: task.saga,
            outcome: Some(outcome.as_str()),
            status_code: Some(status_code),
            duration_us: Some(1000),
            ..SettledTask::default()
        };
        match next {
            Next::Advance => SettledTask { in_place: true, ..settled },
            Next::Compensate { step, turns } => SettledTask {
                next_step: Some(step),
                next_op: Some(Op::Compensate.as_str()),
                next_attempt: Some(1),
                next_counted: Some(0),
                next_unknown_before: Some(false),
                next_participant: Some("stub"),
                saga_status: turns.then_some(StatusChange::Aborting.as_str()),
                saga_reason: turns.then_some("refused"),
                ..settled
            },
            Next::End => {
                let status = if self.shape.refused { StatusChange::Failed } else { StatusChange::Succeeded };
                SettledTask { saga_status: Some(status.as_str()), ..settled }
            }
        }
    }

    fn follow(&self, group: &[Task], nexts: &[Next], rows: &[PgRow]) -> Result<Vec<Task>, sqlx::Error> {
        let mut queued = HashMap::new();
        let mut settled = HashSet::new();
        for row in rows {
            match row.try_get::<Option<i64>, _>("task_id")? {
                Some(task) => drop(settled.insert(task)),
                None => drop(queued.insert(row.try_get::<i64, _>("saga_id")?, row.try_get("queued_id")?)),
            }
        }
        let mut following = Vec::with_capacity(group.len());
        for (task, next) in group.iter().zip(nexts) {
            let epoch = task.epoch + 1;
            if !settled.contains(&task.id) {
                // Another session's claim with an older snapshot held the task briefly, so it is
                // settled again.
                following.push(*task);
                continue;
            }
            match *next {
                Next::Advance => following.push(Task { epoch, step: task.step + 1, ..*task }),
                Next::Compensate { step, .. } => {
                    let id = queued
                        .get(&task.saga)
                        .copied()
                        .ok_or_else(|| sqlx::Error::Decode("a settle queued nothing".into()))?;
                    following.push(Task { id, epoch, step, compensates: true, ..*task });
                }
                Next::End => drop(self.ended.fetch_add(1, Ordering::Relaxed)),
            }
        }
        Ok(following)
    }
}
