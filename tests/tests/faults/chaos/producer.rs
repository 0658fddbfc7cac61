//! Inserts the sagas of a run, at an even pace as far as Postgres lets it.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_tests::oracle::Fate;
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::saga::{Draft, Places};

const EVERY: Duration = Duration::from_millis(25);

/// Inserts one saga after the other until it is told to stop. Returns what it knows of each.
pub(crate) async fn produce(
    seed: u64,
    pool: PgPool,
    places: Arc<Places>,
    stopped: watch::Receiver<bool>,
) -> Vec<Fate> {
    let mut told = Vec::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !*stopped.borrow() {
        tick.tick().await;
        let draft = Draft::nth(seed, told.len() as u64);
        told.push(draft.submit(&pool, &places).await);
    }
    told
}
