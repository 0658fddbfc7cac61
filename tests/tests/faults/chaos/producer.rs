//! Inserts the sagas of a run, at an even pace as far as Postgres lets it.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_tests::oracle::Fate;
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::saga::{Draft, Places};

const EVERY: Duration = Duration::from_millis(10);
/// Clients that insert at once.
pub(crate) const CLIENTS: usize = 12;

/// Inserts one saga after the other until it is told to stop. Returns what it knows of each, by its
/// number.
pub(crate) async fn produce(
    seed: u64,
    pool: PgPool,
    places: Arc<Places>,
    stopped: watch::Receiver<bool>,
) -> Vec<Fate> {
    let mut told = Vec::new();
    let mut clients = JoinSet::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !*stopped.borrow() || !clients.is_empty() {
        if *stopped.borrow() || clients.len() == CLIENTS {
            if let Some(done) = clients.join_next().await {
                let (n, fate) = done.unwrap();
                told[n] = fate;
            }
            continue;
        }
        tick.tick().await;
        let n = told.len();
        told.push(Fate::Unknown);
        let (pool, places) = (pool.clone(), Arc::clone(&places));
        clients.spawn(async move { (n, Draft::nth(seed, n as u64).submit(&pool, &places).await) });
        while let Some(done) = clients.try_join_next() {
            let (n, fate) = done.unwrap();
            told[n] = fate;
        }
    }
    told
}
