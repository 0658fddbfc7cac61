use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::{describe, query};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::WaitError;
use crate::submit::{Producer, Status};

/// Time between two looks at a saga. It doubles from the first to the last value.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_millis(500);
/// Time until the next look after a failed one. It doubles from the first to the last value.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Upper bound on one look. A look that hangs, as on a dead network, is given up with its
/// connection. It only reads, so nothing is left half done.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Sagas in one look; the others wait for the next one.
const GIDS_MAX: usize = 10_000;

/// Waits for sagas to end. A thousand waiters cost the database next to nothing: while anybody
/// waits, one task reads all awaited sagas in one statement, at most every 10 ms, and each saga a
/// few times a second in the long run.
///
/// Clones share the task. Make one waiter for a process and a database.
#[derive(Debug, Clone)]
pub struct Waiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    producer: Producer,
    state: Mutex<State>,
    /// Signalled when a waiter joins.
    joined: Notify,
}

#[derive(Debug, Default)]
struct State {
    awaited: HashMap<String, Awaited>,
    looking: bool,
    /// Why the latest look failed; `None` after a look that succeeded.
    failure: Option<String>,
}

#[derive(Debug)]
struct Awaited {
    /// The status once the saga has ended. Without receivers, nobody waits any more.
    ended: watch::Sender<Option<Status>>,
    due: Instant,
    interval: Duration,
    seen: Seen,
}

#[derive(Debug, Clone)]
enum Seen {
    NotLooked,
    Absent,
    /// `None`: a newer schema knows the status. The other sagas of the look are not held up.
    Open(Option<SagaStatus>),
}

impl Waiter {
    /// Makes a waiter that reads through this pool.
    pub fn new(pool: PgPool) -> Self {
        Self::with(Producer::default(), pool)
    }

    /// Makes a waiter that reads through this pool and sends statements as `producer` does.
    pub fn with(producer: Producer, pool: PgPool) -> Self {
        Self { shared: Arc::new(Shared { pool, producer, state: Mutex::default(), joined: Notify::new() }) }
    }

    /// Waits up to `deadline` until the saga has succeeded, failed or is stuck.
    ///
    /// A saga that does not exist may be in a transaction that has not committed, so it is awaited
    /// too, and [`WaitError::Unknown`] is returned at the deadline. Until then, a failing database
    /// is asked again. Dropping the future ends the wait.
    pub async fn wait(&self, gid: impl Into<String>, deadline: Duration) -> Result<Status, WaitError> {
        let gid = gid.into();
        let mut ended = self.join(&gid);
        drop(timeout(deadline, ended.wait_for(Option::is_some)).await);
        // The status may have arrived together with the deadline.
        let status = ended.borrow().clone();
        status.ok_or_else(|| self.shared.give_up(gid))
    }

    fn join(&self, gid: &str) -> watch::Receiver<Option<Status>> {
        let mut state = self.shared.state();
        let awaited = state.awaited.entry(gid.to_owned()).or_insert_with(|| Awaited {
            ended: watch::Sender::new(None),
            due: Instant::now(),
            interval: INTERVAL_MIN,
            seen: Seen::NotLooked,
        });
        let ended = awaited.ended.subscribe();
        if !state.looking {
            state.looking = true;
            tokio::spawn(look_while_awaited(Looking { shared: Arc::clone(&self.shared), ended: false }));
        }
        drop(state);
        self.shared.joined.notify_one();
        ended
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is valid between any two
        // statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a waiter got no status until its deadline.
    fn give_up(&self, gid: String) -> WaitError {
        let state = self.state();
        let database = state.failure.clone();
        match state.awaited.get(&gid).map(|awaited| &awaited.seen) {
            Some(Seen::Absent) if database.is_none() => WaitError::Unknown { gid },
            Some(Seen::Open(status)) => WaitError::Deadline { gid, status: *status, database },
            _ => WaitError::Deadline { gid, status: None, database },
        }
    }
}

/// Held by the task that looks. When the task is dropped with its runtime, the next waiter starts
/// another one.
struct Looking {
    shared: Arc<Shared>,
    /// The task has ended by itself, and another one may run by now.
    ended: bool,
}

impl Drop for Looking {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.state().looking = false;
        }
    }
}

async fn look_while_awaited(mut looking: Looking) {
    let shared = Arc::clone(&looking.shared);
    let mut backoff = BACKOFF_MIN;
    loop {
        let Some(due) = shared.due() else {
            looking.ended = true;
            return;
        };
        if due.gids.is_empty() {
            tokio::select! {
                () = sleep_until(due.next) => {}
                () = shared.joined.notified() => {}
            }
            continue;
        }
        let started = Instant::now();
        match shared.look(&due.gids).await {
            Ok(rows) => {
                if shared.answer(&due.gids, rows) {
                    tracing::info!("the database answers again");
                }
                backoff = BACKOFF_MIN;
                sleep_until(started + INTERVAL_MIN).await;
            }
            Err(error) => {
                if shared.state().failure.replace(error.clone()).is_none() {
                    tracing::warn!(
                        error,
                        "cannot look at the sagas waited for; trying on until their deadlines"
                    );
                }
                sleep_until(Instant::now() + backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

struct Due {
    gids: Vec<String>,
    next: Instant,
}

type Row = (String, String, Option<String>, Option<String>, bool);

impl Shared {
    /// The gids to look at now. `None` when nobody waits: the task ends, and the next waiter starts
    /// another one.
    fn due(&self) -> Option<Due> {
        let mut state = self.state();
        // A waiter joins under the same lock, so it is seen here or finds that no task runs.
        state.awaited.retain(|_, awaited| awaited.ended.receiver_count() > 0);
        let Some(next) = state.awaited.values().map(|awaited| awaited.due).min() else {
            state.looking = false;
            return None;
        };
        let now = Instant::now();
        if next > now {
            return Some(Due { gids: Vec::new(), next });
        }
        // Sagas that are due soon are read as well, so that one look serves many.
        let gids = state.awaited.iter().filter(|(_, awaited)| awaited.due <= now + awaited.interval / 2);
        Some(Due { gids: gids.map(|(gid, _)| gid.clone()).take(GIDS_MAX).collect(), next })
    }

    async fn look(&self, gids: &[String]) -> Result<Vec<Row>, String> {
        let no_answer = || format!("no answer within {} s", LOOK_MAX.as_secs());
        let deadline = Instant::now() + LOOK_MAX;
        let connection = timeout_at(deadline, self.pool.acquire()).await.map_err(|_| no_answer())?;
        let mut connection = connection.map_err(|error| describe(&error).to_string())?;
        match timeout_at(deadline, self.read(&mut connection, gids)).await {
            Ok(rows) => rows.map_err(|error| describe(&error).to_string()),
            Err(_) => {
                // Back in the pool, the connection could be waited for until the network gives up,
                // and it may own a transaction.
                connection.close_on_drop();
                Err(no_answer())
            }
        }
    }

    async fn read(&self, connection: &mut PgConnection, gids: &[String]) -> Result<Vec<Row>, sqlx::Error> {
        let rows = sqlx::query_as(query::PRODUCER_WAIT).bind(gids);
        if self.producer.persistent {
            return rows.fetch_all(connection).await;
        }
        // The transaction keeps both exchanges of the query on one server connection.
        let mut transaction = connection.begin().await?;
        let rows = rows.persistent(false).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Gives the statuses to the waiters. True when the look before had failed.
    fn answer(&self, gids: &[String], rows: Vec<Row>) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        for gid in gids {
            if let Some(awaited) = state.awaited.get_mut(gid) {
                awaited.seen = Seen::Absent;
                awaited.due = now + awaited.interval;
                awaited.interval = (awaited.interval * 2).min(INTERVAL_MAX);
            }
        }
        for (gid, status, reason, result, ended) in rows {
            match SagaStatus::of(&status) {
                Some(status) if ended => {
                    if let Some(awaited) = state.awaited.remove(&gid) {
                        awaited.ended.send_replace(Some(Status { status, reason, result }));
                    }
                }
                status => {
                    if let Some(awaited) = state.awaited.get_mut(&gid) {
                        awaited.seen = Seen::Open(status);
                    }
                }
            }
        }
        state.failure.take().is_some()
    }
}
