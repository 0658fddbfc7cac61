//! Wake-ups: LISTEN on a connection of its own. While this worker is idle it also holds an advisory lock there, which
//! tells producers that a NOTIFY is worth its price (DESIGN.md §6). A wake-up is a hint: the claim loop polls anyway.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use crate::backoff::Reconnect;
use crate::worker::Worker;

const CHANNEL: &str = "pgsaga";
/// How often an idle worker tries again for a lock that another idle worker, or a producer for a moment, has.
const LOCK_AGAIN: Duration = Duration::from_secs(3);

/// Listens until everything is done; connects again by itself.
pub async fn run(worker: Arc<Worker>, options: PgConnectOptions) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(options);
    let mut reconnect = Reconnect::new();
    while !worker.done.is_cancelled() {
        let listened = tokio::select! {
            () = worker.done.cancelled() => return,
            listened = listen(&worker, &pool, &mut reconnect) => listened,
        };
        worker.metrics.listener_up.set(0.0);
        if let Err(error) = listened {
            worker.database_failed("listen", &error);
        }
        // What came in between is lost: look again.
        worker.wake.notify_one();
        tokio::select! {
            () = worker.done.cancelled() => return,
            () = tokio::time::sleep(reconnect.pause()) => {}
        }
    }
}

/// Returns when the connection is lost.
async fn listen(worker: &Worker, pool: &sqlx::PgPool, reconnect: &mut Reconnect) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    reconnect.reset();
    worker.metrics.listener_up.set(1.0);
    worker.wake.notify_one();
    let mut idle = worker.idle.subscribe();
    idle.mark_changed();
    let mut locked = false;
    loop {
        let wanted = *idle.borrow();
        tokio::select! {
            changed = idle.changed() => if changed.is_err() { return Ok(()) },
            notification = listener.try_recv() => match notification? {
                Some(_) => worker.wake.notify_one(),
                None => return Ok(()),
            },
            () = tokio::time::sleep(LOCK_AGAIN), if wanted && !locked => {}
        }
        let wanted = *idle.borrow_and_update();
        if wanted && !locked {
            locked = sqlx::query(query::IDLE_LOCK).fetch_one(&mut listener).await?.try_get("locked")?;
            if locked {
                // An insert before this moment did not notify (RACES 19).
                worker.wake.notify_one();
            }
        } else if !wanted && locked {
            sqlx::query(query::IDLE_UNLOCK).fetch_one(&mut listener).await?;
            locked = false;
        }
    }
}
