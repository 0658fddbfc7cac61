use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::error::WaitError;
use crate::submit::{Producer, Status};

/// A gid is looked at after so long, then after twice that, up to the longest.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_millis(500);
/// After a failed look.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A look that hangs, say on a dead network, is given up, and its connection with it. It is a single read, so nothing is left
/// half done.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Gids of one statement; the rest wait for the next look.
const GIDS_MAX: usize = 10_000;

/// Waits for sagas to end. A thousand waiters cost the database next to nothing: one task, which lives while someone
/// waits, asks for all of them in one statement, at most every 10 ms, and for each saga a few times a second in the long run.
///
/// Cheap to clone; clones share the task. Make one for a process and a database.
#[derive(Debug, Clone)]
pub struct Waiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    producer: Producer,
    state: Mutex<State>,
    /// Someone new waits.
    joined: Notify,
}

#[derive(Debug, Default)]
struct State {
    awaited: HashMap<String, Awaited>,
    next_ticket: u64,
    looking: bool,
    /// Why the newest look failed; `None` after one that succeeded.
    failure: Option<String>,
}

#[derive(Debug)]
struct Awaited {
    waiters: HashMap<u64, oneshot::Sender<Status>>,
    due: Instant,
    interval: Duration,
    seen: Seen,
}

#[derive(Debug, Clone)]
enum Seen {
    NotLooked,
    Absent,
    Open(String),
}

impl Waiter {
    /// Looks through this pool.
    pub fn new(pool: PgPool) -> Self {
        Self::with(Producer::default(), pool)
    }

    /// Looks through this pool, with statements as `producer` sends them.
    pub fn with(producer: Producer, pool: PgPool) -> Self {
        Self { shared: Arc::new(Shared { pool, producer, state: Mutex::default(), joined: Notify::new() }) }
    }

    /// Waits until the saga has succeeded, failed or got stuck, for up to `deadline` from now.
    ///
    /// A gid that is not there is waited for, since the transaction that inserts it may not have committed:
    /// [`WaitError::Unknown`] comes at the deadline. A database that fails is asked again until then, too.
    /// Dropping the future withdraws the wait.
    pub async fn wait(&self, gid: impl Into<String>, deadline: Duration) -> Result<Status, WaitError> {
        let gid = gid.into();
        let (ticket, mut answer) = self.join(gid);
        if let Ok(Ok(status)) = timeout(deadline, &mut answer).await {
            return Ok(status);
        }
        // It may have come together with the deadline.
        answer.try_recv().map_err(|_| ticket.give_up())
    }

    fn join(&self, gid: String) -> (Ticket, oneshot::Receiver<Status>) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.shared.state();
        let number = state.next_ticket;
        state.next_ticket += 1;
        let now = Instant::now();
        let awaited = state.awaited.entry(gid.clone()).or_insert_with(|| Awaited {
            waiters: HashMap::new(),
            due: now,
            interval: INTERVAL_MIN,
            seen: Seen::NotLooked,
        });
        awaited.waiters.insert(number, sender);
        if !state.looking {
            state.looking = true;
            tokio::spawn(look_while_awaited(Looking { shared: Arc::clone(&self.shared), ended: false }));
        }
        drop(state);
        self.shared.joined.notify_one();
        (Ticket { shared: Arc::clone(&self.shared), gid, number }, answer)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is valid between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the waiters, given back when dropped.
struct Ticket {
    shared: Arc<Shared>,
    gid: String,
    number: u64,
}

impl Ticket {
    fn give_up(&self) -> WaitError {
        let state = self.shared.state();
        let gid = self.gid.clone();
        let database = state.failure.clone();
        match state.awaited.get(&self.gid).map(|awaited| &awaited.seen) {
            Some(Seen::Absent) if database.is_none() => WaitError::Unknown { gid },
            Some(Seen::Open(status)) => WaitError::Deadline { gid, status: Some(status.clone()), database },
            _ => WaitError::Deadline { gid, status: None, database },
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(awaited) = state.awaited.get_mut(&self.gid) {
            awaited.waiters.remove(&self.number);
            if awaited.waiters.is_empty() {
                state.awaited.remove(&self.gid);
            }
        }
    }
}

/// The right to look. When its task is dropped with its runtime, the next waiter starts another.
struct Looking {
    shared: Arc<Shared>,
    /// Handed back already; somebody else may have it by now.
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
    /// The gids to look at now. `None` ends the task: nobody waits, and whoever comes next starts a new one.
    fn due(&self) -> Option<Due> {
        let mut state = self.state();
        // Answered and removed under this same lock, so a waiter either is seen here or finds no task.
        let Some(next) = state.awaited.values().map(|awaited| awaited.due).min() else {
            state.looking = false;
            return None;
        };
        let now = Instant::now();
        if next > now {
            return Some(Due { gids: Vec::new(), next });
        }
        // Who is due soon goes along: looks of many gids fall together instead of following one another.
        let gids = state.awaited.iter().filter(|(_, awaited)| awaited.due <= now + awaited.interval / 2);
        Some(Due { gids: gids.map(|(gid, _)| gid.clone()).take(GIDS_MAX).collect(), next })
    }

    async fn look(&self, gids: &[String]) -> Result<Vec<Row>, String> {
        let no_answer = || format!("no answer within {} s", LOOK_MAX.as_secs());
        let deadline = Instant::now() + LOOK_MAX;
        let connection = timeout_at(deadline, self.pool.acquire()).await.map_err(|_| no_answer())?;
        let mut connection = connection.map_err(|error| error.to_string())?;
        match timeout_at(deadline, self.read(&mut connection, gids)).await {
            Ok(rows) => rows.map_err(|error| error.to_string()),
            Err(_) => {
                // In the pool again, it would be waited for until the network gives it up, which may be never; and what is
                // dropped here may own a transaction.
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
        // The transaction keeps both halves of the query on one server connection.
        let mut transaction = connection.begin().await?;
        let rows = rows.persistent(false).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Hands out what was seen. True when the look before had failed.
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
            if ended {
                let awaited = state.awaited.remove(&gid);
                let ended = Status { status, reason, result };
                for waiter in awaited.into_iter().flat_map(|awaited| awaited.waiters.into_values()) {
                    // A waiter that has just gone needs no answer.
                    let _: Result<(), Status> = waiter.send(ended.clone());
                }
            } else if let Some(awaited) = state.awaited.get_mut(&gid) {
                awaited.seen = Seen::Open(status);
            }
        }
        state.failure.take().is_some()
    }
}
