//! The last reading of the overview, for all who ask: however many pages are open, the database is
//! asked seldom.

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

/// The overview. A request that comes while the overview is read waits for that reading.
pub(crate) async fn current(app: &App) -> Result<Arc<Overview>, Failure> {
    let mut cached = Arc::clone(&app.overview.0).lock_owned().await;
    if let Some(last) = cached.as_ref().filter(|last| Instant::now() < last.until) {
        return last.read.clone();
    }
    let reader = app.clone();
    // In a task of its own: the database works on it even when the first to ask hangs up, and
    // nobody else may ask meanwhile.
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
