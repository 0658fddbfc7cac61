//! The producers, which insert sagas through the crate: as fast as sagas end, or at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgsaga_producer::{Definition, Producer, Saga, Step};
use pgsaga_worker::db;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::stub::Stub;
use super::times::Times;
use crate::error::Error;

/// Pause of a producer that has inserted enough for now.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The definition of the bench's sagas.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) steps: usize,
    pub(crate) payload_bytes: usize,
    /// Whether the last step refuses, so that the earlier steps are compensated.
    pub(crate) refused: bool,
}

impl Shape {
    pub(crate) fn calls(&self) -> usize {
        if self.refused { 2 * self.steps - 1 } else { self.steps }
    }

    /// The saga with this number, validated. Calls `dead` instead of the stub.
    pub(crate) fn saga(&self, stub: &Stub, number: u64, dead: Option<&str>) -> Result<Definition, Error> {
        let mut saga = Saga::new().gid(Times::gid(number)).map_err(pgsaga_producer::Error::from)?;
        let payload = "x".repeat(self.payload_bytes);
        for step in 1..=self.steps {
            let answer = match (step == self.steps, self.refused) {
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

    pub(crate) fn steps_json(&self, stub: &Stub) -> Result<String, Error> {
        Ok(self.saga(stub, 0, None)?.steps().to_owned())
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Number of sagas that are open at the same time.
    Open(u64),
    /// Number of sagas per second, whether earlier ones have ended or not.
    Rate(f64),
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) pace: Pace,
    pub(crate) producers: usize,
    /// Sagas in one INSERT; 1 uses the crate's INSERT of one saga.
    pub(crate) batch: usize,
    /// A URL that every fifth saga calls.
    pub(crate) dead: Option<String>,
    pub(crate) first: u64,
}

impl Plan {
    const DEAD_EVERY: u64 = 5;

    /// Number of the first `sagas` sagas whose participant answers.
    pub(crate) fn alive(&self, sagas: u64) -> u64 {
        if self.dead.is_some() { sagas - sagas.div_ceil(Self::DEAD_EVERY) } else { sagas }
    }

    fn saga(&self, stub: &Stub, number: u64) -> Result<Definition, Error> {
        let dead = self.dead.as_deref().filter(|_| number.is_multiple_of(Self::DEAD_EVERY));
        self.shape.saga(stub, number, dead)
    }
}

pub(crate) struct Load {
    counts: Arc<Counts>,
    stop: CancellationToken,
    producers: JoinSet<Result<(), Error>>,
}

#[derive(Default)]
struct Counts {
    next: AtomicU64,
    inserted: AtomicU64,
    commits: AtomicU64,
}

impl Load {
    /// Starts producers, each with its own connection.
    pub(crate) async fn start(url: &str, plan: Plan, stub: Arc<Stub>) -> Result<Load, Error> {
        let options = sqlx::ConnectOptions::disable_statement_logging(db::choose(url).await?);
        let pool = PgPoolOptions::new().max_connections(plan.producers as u32);
        let pool = pool.connect_with(options).await?;
        let counts = Arc::new(Counts { next: plan.first.into(), ..Counts::default() });
        let mut load = Load { counts, stop: CancellationToken::new(), producers: JoinSet::new() };
        for _ in 0..plan.producers {
            let (counts, stop) = (Arc::clone(&load.counts), load.stop.clone());
            let producer =
                OneProducer { pool: pool.clone(), plan: plan.clone(), stub: Arc::clone(&stub), counts };
            load.producers.spawn(producer.run(stop));
        }
        Ok(load)
    }

    pub(crate) fn inserted(&self) -> u64 {
        self.counts.inserted.load(Ordering::Relaxed)
    }

    pub(crate) fn commits(&self) -> u64 {
        self.counts.commits.load(Ordering::Relaxed)
    }

    /// Ends the load, after the sagas that were begun are inserted.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        self.stop.cancel();
        while let Some(ended) = self.producers.join_next().await {
            ended.map_err(|error| Error::loop_ended(&error))??;
        }
        Ok(())
    }

    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.producers.try_join_next() {
            Some(ended) => ended.map_err(|error| Error::loop_ended(&error))?,
            None => Ok(()),
        }
    }
}

struct OneProducer {
    pool: PgPool,
    plan: Plan,
    stub: Arc<Stub>,
    counts: Arc<Counts>,
}

impl OneProducer {
    async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        let batch = self.plan.batch as u64;
        let mut tick = match self.plan.pace {
            Pace::Rate(rate) => {
                let every = Duration::from_secs_f64(batch as f64 * self.plan.producers as f64 / rate);
                // A random offset, so that the producers do not insert at the same moments.
                let offset = every.mul_f64(rand::random::<f64>());
                let mut tick = tokio::time::interval_at(Instant::now() + offset, every);
                // Missed ticks are made up for, because the load must not wait for the system under
                // test.
                tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                Some(tick)
            }
            Pace::Open(_) => None,
        };
        while !stop.is_cancelled() {
            if let Some(tick) = &mut tick {
                tick.tick().await;
            }
            if let Pace::Open(most) = self.plan.pace {
                let begun = self.plan.alive(self.counts.next.load(Ordering::Relaxed));
                if begun.saturating_sub(self.stub.ended()) + batch > most {
                    tokio::time::sleep(FULL_PAUSE).await;
                    continue;
                }
            }
            let first = self.counts.next.fetch_add(batch, Ordering::Relaxed);
            let sagas = (first..first + batch).map(|saga| self.plan.saga(&self.stub, saga));
            match sagas.collect::<Result<Vec<_>, _>>()?.as_slice() {
                [saga] => drop(Producer::default().submit_definition(&mut *connection, saga).await?),
                sagas => drop(Producer::default().submit_definitions(&mut *connection, sagas).await?),
            }
            for saga in first..first + batch {
                self.stub.times().committed(saga);
            }
            self.counts.inserted.fetch_add(batch, Ordering::Relaxed);
            self.counts.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
