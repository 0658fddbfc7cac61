//! The scenarios, and what they share.

pub(crate) mod backlog;
pub(crate) mod held_snapshot;
pub(crate) mod history;
pub(crate) mod idle;
pub(crate) mod jobs;
pub(crate) mod latency;
pub(crate) mod producers;
pub(crate) mod steady;
mod usual;

use std::time::Duration;

use pgsaga_sql::contract::SagaStatus;

use super::Bench;
use super::load::{Pace, Plan, Shape};
use super::run::Setup;

/// Concurrent calls of a worker without flags.
const CONCURRENCY: usize = 512;
/// Open sagas for each concurrent call of the workers, so that a claim always finds a full group.
const OPEN_FOR_EACH_CALL: usize = 8;
/// What the figure of a first call means.
const TO_FIRST_CALL: &str = "from the INSERT's commit to the first call";

impl Bench {
    fn duration(&self, default_seconds: u64) -> Duration {
        Duration::from_secs(self.duration_seconds.unwrap_or(default_seconds))
    }

    fn workers(&self, default: usize) -> usize {
        self.workers.map_or(default, usize::from)
    }

    fn concurrency(&self) -> usize {
        self.concurrency.map_or(CONCURRENCY, |concurrency| concurrency as usize)
    }

    fn flags(&self) -> Vec<String> {
        self.concurrency
            .map(|concurrency| vec!["--concurrency".to_owned(), concurrency.to_string()])
            .unwrap_or_default()
    }

    fn shape(&self, default_steps: usize) -> Shape {
        Shape {
            steps: self.steps.map_or(default_steps, usize::from),
            payload_bytes: self.payload_bytes as usize,
            refused: false,
        }
    }

    fn plan(&self, shape: Shape, workers: usize) -> Plan {
        Plan {
            shape,
            pace: Pace::Open((self.concurrency() * OPEN_FOR_EACH_CALL * workers) as u64),
            producers: self.producers.map_or(2, usize::from),
            batch: usize::from(self.batch),
            dead: None,
            first: 0,
        }
    }

    fn setup(&self, name: &str, workers: usize) -> Setup {
        Setup {
            name: name.to_owned(),
            plan: self.plan(self.shape(2), workers),
            workers,
            flags: self.flags(),
            duration: self.duration(30),
            status: SagaStatus::Succeeded,
        }
    }
}
