//! The handlers that run now: whom to cancel, and which of them does not yield.

pub(crate) mod supervise;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A handler that was polled for this long without yielding is named in the log.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Upper bound on the handlers whose reports a heartbeat carries.
const REPORTS_MAX: usize = 100;

#[derive(Debug)]
pub(crate) struct RunningHandler {
    pub(crate) whose: Whose,
    /// Asks the handler to end.
    pub(crate) cancelled: CancellationToken,
    /// Drops the handler, because the worker has drained for as long as it may.
    pub(crate) dropped: CancellationToken,
    began: Instant,
    /// Microseconds from `began` to the beginning of the current poll, plus one. 0: it yields.
    polled_since: AtomicU64,
    stall_logged: AtomicBool,
    /// What the handler has reported last.
    progress: Mutex<Option<String>>,
}

#[derive(Debug)]
pub(crate) struct Whose {
    /// The worker's id that claimed the task.
    pub(crate) worker: i64,
    pub(crate) task: i64,
    /// The target of the op.
    pub(crate) target: String,
    pub(crate) gid: String,
}

impl RunningHandler {
    fn since_began(&self) -> u64 {
        self.began.elapsed().as_micros() as u64 + 1
    }

    pub(crate) fn poll_begins(&self) {
        self.polled_since.store(self.since_began(), Ordering::Relaxed);
    }

    pub(crate) fn poll_ends(&self) {
        self.polled_since.store(0, Ordering::Relaxed);
        self.stall_logged.store(false, Ordering::Relaxed);
    }

    /// Keeps what the handler reports, for the next heartbeat.
    pub(crate) fn report(&self, progress: String) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// How long the handler has run.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long the current poll has taken.
    fn polled_for(&self) -> Duration {
        match self.polled_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(self.since_began().saturating_sub(since)),
        }
    }
}

/// The handlers that run now.
#[derive(Debug, Default)]
pub(crate) struct RunningHandlers {
    /// By the worker id and the id of their task.
    running: Mutex<HashMap<(i64, i64), Arc<RunningHandler>>>,
    one_ended: Notify,
}

/// A handler in the list. It leaves the list when the value is dropped.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) handler: Arc<RunningHandler>,
    list: &'a RunningHandlers,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.list.lock().remove(&(self.handler.whose.worker, self.handler.whose.task));
        self.list.one_ended.notify_waiters();
    }
}

impl RunningHandlers {
    fn lock(&self) -> MutexGuard<'_, HashMap<(i64, i64), Arc<RunningHandler>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a handler that begins now.
    pub(crate) fn add(&self, whose: Whose) -> Listed<'_> {
        let key = (whose.worker, whose.task);
        let handler = Arc::new(RunningHandler {
            whose,
            cancelled: CancellationToken::new(),
            dropped: CancellationToken::new(),
            began: Instant::now(),
            polled_since: AtomicU64::new(0),
            stall_logged: AtomicBool::new(false),
            progress: Mutex::default(),
        });
        self.lock().insert(key, Arc::clone(&handler));
        Listed { handler, list: self }
    }

    /// The handlers that run now.
    pub(crate) fn all(&self) -> Vec<Arc<RunningHandler>> {
        self.lock().values().map(Arc::clone).collect()
    }

    /// What the handlers of this worker id have reported, by task. Of many handlers those that have
    /// run longest.
    pub(crate) fn progress(&self, worker: i64) -> Option<Value> {
        let mut running = self.all();
        running.retain(|handler| handler.whose.worker == worker);
        running.sort_unstable_by_key(|handler| handler.began);
        let reported: Map<String, Value> = running
            .iter()
            .filter_map(|handler| {
                let progress = handler.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
                Some((handler.whose.task.to_string(), progress.into()))
            })
            .take(REPORTS_MAX)
            .collect();
        (!reported.is_empty()).then(|| reported.into())
    }

    /// Drops every handler at its next await.
    pub(crate) fn drop_all(&self) {
        self.all().iter().for_each(|handler| handler.dropped.cancel());
    }

    /// Waits until no handler runs.
    pub(crate) async fn ended(&self) {
        loop {
            let mut one_ended = std::pin::pin!(self.one_ended.notified());
            one_ended.as_mut().enable();
            if self.lock().is_empty() {
                return;
            }
            one_ended.await;
        }
    }

    pub(crate) fn log_all(&self, event: &'static str) {
        for handler in self.all() {
            let Whose { target, gid, .. } = &handler.whose;
            tracing::warn!(handler = target, gid, "{event}");
        }
    }

    /// Logs each handler that has not yielded for a second, once. Meanwhile its thread runs nothing
    /// else. Called from the thread of the heartbeats, which no handler can hold up.
    pub(crate) fn log_stalled(&self) {
        for handler in self.all() {
            let polled_for = handler.polled_for();
            if polled_for >= STALLED_AFTER && !handler.stall_logged.swap(true, Ordering::Relaxed) {
                let Whose { target, gid, .. } = &handler.whose;
                tracing::warn!(
                    handler = target,
                    gid,
                    polled_ms = polled_for.as_millis() as u64,
                    "a handler does not yield: move blocking work to tokio::task::spawn_blocking"
                );
            }
        }
    }
}
