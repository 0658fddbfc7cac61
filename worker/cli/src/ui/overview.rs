//! The latest overview, shared by all visitors: the number of open pages does not raise the load on
//! the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::App;
use super::failure::Failure;
use crate::operate::read::overview::Overview;

/// Lower bound on the time between two readings.
const FRESH: Duration = Duration::from_secs(1);
/// Upper bound on the share of the database's time that readings may take: a tenth.
const PART: u32 = 10;

#[derive(Default)]
pub(crate) struct Cache(Arc<Mutex<Option<Cached>>>);

struct Cached {
    read: Result<Arc<Overview>, Failure>,
    until: Instant,
}

/// Returns the overview. A request that arrives during a read waits for that read.
pub(crate) async fn current(app: &App) -> Result<Arc<Overview>, Failure> {
    let mut cached = Arc::clone(&app.overview.0).lock_owned().await;
    if let Some(last) = cached.as_ref().filter(|last| Instant::now() < last.until) {
        return last.read.clone();
    }
    let reader = app.clone();
    // A task of its own, because the read continues even if the first visitor hangs up, and no
    // other visitor may start one meanwhile.
    let reading = tokio::spawn(async move {
        let started = Instant::now();
        let read = reader.store.read(Overview::read).await.map(Arc::new);
        let is_load = read.as_ref().err().is_none_or(Failure::is_too_long);
        let fresh = if is_load { FRESH.max(started.elapsed() * PART) } else { FRESH };
        *cached = Some(Cached { read: read.clone(), until: Instant::now() + fresh });
        read
    });
    reading.await.unwrap_or_else(|_| Err(Failure::broken("The page ended unexpectedly; its log says why.")))
}
