//! The producers: insert sagas through the crate, as fast as they are ended, or at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgsaga_producer::{Definition, Producer, Saga, Step};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::stub::Stub;
use super::times::Times;
use crate::error::Error;
use pgsaga_worker::db;

/// How soon a producer that was too fast looks again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// What a saga of the bench is like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) steps: usize,
    pub(crate) payload_bytes: usize,
    /// Its last step refuses, and what was done is undone.
    pub(crate) refused: bool,
}

impl Shape {
    /// Calls of one saga until it has ended.
    pub(crate) fn calls(&self) -> usize {
        if self.refused { 2 * self.steps - 1 } else { self.steps }
    }

    /// The saga of this number, checked. `dead` is called instead of the stub by sagas that go to nobody.
    pub(crate) fn saga(&self, stub: &Stub, number: u64, dead: Option<&str>) -> Result<Definition, Error> {
        let mut saga = Saga::new().gid(Times::gid(number)).map_err(pgsaga_producer::Error::from)?;
        let payload = "x".repeat(self.payload_bytes);
        for step in 1..=self.steps {
            let last = step == self.steps;
            let answer = match (last, self.refused) {
                (false, _) => "ok",
                (true, true) => "refuse",
                (true, false) => "end",
            };
            let action = dead.map_or_else(|| stub.url(answer, step), str::to_owned);
            let mut built = Step::new(format!("step-{step}")).action(action);
            if self.refused {
                built = built.compensate(stub.url(if step == 1 { "end" } else { "ok" }, step));
            }
            if self.payload_bytes > 0 {
                built = built.payload(&payload);
            }
            saga = saga.step(built);
        }
        Ok(saga.definition().map_err(pgsaga_producer::Error::from)?)
    }

    /// The steps of one saga.
    pub(crate) fn steps_json(&self, stub: &Stub) -> Result<String, Error> {
        Ok(self.saga(stub, 0, None)?.steps().to_owned())
    }
}

/// How fast sagas come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many are open at once.
    Open(u64),
    /// So many a second in all, whatever becomes of them.
    Rate(f64),
}

/// A running load.
pub(crate) struct Load {
    inserted: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
    stop: CancellationToken,
    producers: JoinSet<Result<(), Error>>,
}

/// How sagas are inserted.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) pace: Pace,
    pub(crate) producers: usize,
    /// Sagas of one INSERT; 1 is the crate's single one.
    pub(crate) batch: usize,
    /// Every fifth saga goes to this URL.
    pub(crate) dead: Option<String>,
    /// The number of the first saga.
    pub(crate) first: u64,
}

impl Plan {
    /// A fifth.
    const DEAD_EVERY: u64 = 5;

    fn is_dead(&self, saga: u64) -> bool {
        self.dead.is_some() && saga.is_multiple_of(Self::DEAD_EVERY)
    }

    /// How many of the first so many sagas go to somebody who answers.
    pub(crate) fn alive(&self, sagas: u64) -> u64 {
        if self.dead.is_some() { sagas - sagas.div_ceil(Self::DEAD_EVERY) } else { sagas }
    }
}

impl Load {
    /// Starts producers, each with a connection of its own.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn start(url: &str, plan: Plan, stub: Arc<Stub>) -> Result<Load, Error> {
        let pool = connect(url, plan.producers).await?;
        let mut load = Load {
            inserted: Arc::default(),
            commits: Arc::default(),
            stop: CancellationToken::new(),
            producers: JoinSet::new(),
        };
        let next = Arc::new(AtomicU64::new(plan.first));
        for _ in 0..plan.producers {
            let one = One {
                pool: pool.clone(),
                plan: plan.clone(),
                stub: Arc::clone(&stub),
                next: Arc::clone(&next),
                inserted: Arc::clone(&load.inserted),
                commits: Arc::clone(&load.commits),
            };
            let stop = load.stop.clone();
            load.producers.spawn(one.run(stop));
        }
        Ok(load)
    }

    /// Sagas inserted so far.
    pub(crate) fn inserted(&self) -> u64 {
        self.inserted.load(Ordering::Relaxed)
    }

    /// The transactions that it took.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Ends it. Everything that was begun is inserted.
    ///
    /// # Errors
    /// The first of a producer.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        self.stop.cancel();
        while let Some(ended) = self.producers.join_next().await {
            ended.map_err(|error| Error::loop_ended(&error))??;
        }
        Ok(())
    }

    /// Whether a producer has failed.
    ///
    /// # Errors
    /// What it failed with.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.producers.try_join_next() {
            Some(ended) => ended.map_err(|error| Error::loop_ended(&error))?,
            None => Ok(()),
        }
    }
}

/// One producer.
struct One {
    pool: PgPool,
    plan: Plan,
    stub: Arc<Stub>,
    next: Arc<AtomicU64>,
    inserted: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
}

impl One {
    async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        let batch = self.plan.batch as u64;
        let mut tick = match self.plan.pace {
            Pace::Rate(rate) => {
                let every = Duration::from_secs_f64(batch as f64 * self.plan.producers as f64 / rate);
                // Not all at the same moment.
                let offset = every.mul_f64(rand::random::<f64>());
                let mut tick = tokio::time::interval_at(Instant::now() + offset, every);
                // What was missed is made up for: the load does not wait for the system under test.
                tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                Some(tick)
            }
            Pace::Open(_) => None,
        };
        while !stop.is_cancelled() {
            match (&mut tick, self.plan.pace) {
                (Some(tick), _) => drop(tick.tick().await),
                (None, Pace::Open(most)) => {
                    let open =
                        self.plan.alive(self.next.load(Ordering::Relaxed)).saturating_sub(self.stub.ended());
                    if open + batch > most {
                        tokio::time::sleep(FULL_PAUSE).await;
                        continue;
                    }
                }
                (None, Pace::Rate(_)) => {}
            }
            let first = self.next.fetch_add(batch, Ordering::Relaxed);
            let sagas = (first..first + batch)
                .map(|saga| {
                    let dead = self.plan.dead.as_deref().filter(|_| self.plan.is_dead(saga));
                    self.plan.shape.saga(&self.stub, saga, dead)
                })
                .collect::<Result<Vec<_>, _>>()?;
            let producer = Producer::default();
            match sagas.as_slice() {
                [saga] => drop(producer.submit_definition(&mut *connection, saga).await?),
                sagas => drop(producer.submit_definitions(&mut *connection, sagas).await?),
            }
            for saga in first..first + batch {
                self.stub.times().committed(saga);
            }
            self.inserted.fetch_add(batch, Ordering::Relaxed);
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

async fn connect(url: &str, connections: usize) -> Result<PgPool, Error> {
    let options = db::choose(url).await?;
    Ok(PgPoolOptions::new()
        .max_connections(connections as u32)
        .connect_with(sqlx::ConnectOptions::disable_statement_logging(options))
        .await?)
}
