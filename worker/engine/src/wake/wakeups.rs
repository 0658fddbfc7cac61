//! The signals between the loops of one worker.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

/// The signals between the loops of one worker.
#[derive(Debug)]
pub(crate) struct Wakeups {
    /// A task may be due: claim.
    pub(crate) due: Notify,
    /// A task may be due, but another idle worker was woken as well: peek before claiming.
    pub(crate) peek: Notify,
    /// The database may hold a task for this worker that its memory does not know: reconcile.
    pub(crate) reconcile: Notify,
    /// True while there is nothing to do, so that producers should notify.
    pub(crate) idle: watch::Sender<bool>,
    polling_peer: AtomicBool,
}

impl Default for Wakeups {
    fn default() -> Wakeups {
        Wakeups {
            due: Notify::new(),
            peek: Notify::new(),
            reconcile: Notify::new(),
            idle: watch::Sender::new(false),
            polling_peer: AtomicBool::new(false),
        }
    }
}

impl Wakeups {
    /// Whether this worker is notified of inserts, and another idle worker that serves every queue
    /// looks each second for sagas that were inserted without a notification.
    pub(crate) fn has_polling_peer(&self) -> bool {
        self.polling_peer.load(Ordering::Relaxed)
    }

    /// The listening connection learned this, or was lost.
    pub(crate) fn set_polling_peer(&self, has_peer: bool) {
        self.polling_peer.store(has_peer, Ordering::Relaxed);
    }
}
