use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// What goes wrong, where and how often: `Fault::cut_before_reply("-- Settles").times(3)`.
///
/// A marker is a part of a statement's text; the statement strikes when it begins to run, not when
/// it is prepared.
#[derive(Clone, Debug)]
pub struct Fault {
    kind: Kind,
    marker: Option<String>,
    after: bool,
    with_rows: bool,
    ends_all: bool,
    skip: usize,
    reach: Reach,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    CutBeforeReply,
    CutBeforeRequest,
    Stall,
    Delay(Duration),
    Reset,
    ServerGone,
    ClientGone,
}

/// How often, or whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Times(usize),
    Always,
    Now,
}

impl Fault {
    fn new(kind: Kind, marker: Option<&str>) -> Fault {
        Fault {
            kind,
            marker: marker.map(str::to_owned),
            after: false,
            with_rows: false,
            ends_all: false,
            skip: 0,
            reach: Reach::Times(1),
        }
    }

    /// The statement reaches the server, which answers; the answer never comes, and both sides are
    /// closed. A statement that commits itself, or `COMMIT`, is then committed, and its client
    /// cannot know.
    pub fn cut_before_reply(marker: &str) -> Fault {
        Fault::new(Kind::CutBeforeReply, Some(marker))
    }

    /// The statement never reaches the server, and both sides are closed.
    pub fn cut_before_request(marker: &str) -> Fault {
        Fault::new(Kind::CutBeforeRequest, Some(marker))
    }

    /// Bytes are accepted and kept back until the fault is lifted.
    pub fn stall() -> Fault {
        Fault::new(Kind::Stall, None)
    }

    /// Each request, and each piece of its reply, takes so much longer.
    pub fn delay(by: Duration) -> Fault {
        Fault::new(Kind::Delay(by), None)
    }

    /// Both sides get a RST.
    pub fn reset() -> Fault {
        Fault::new(Kind::Reset, None)
    }

    /// Half-open: the server's side is closed, the client's stays open and silent. Lifted, the
    /// client gets a RST.
    pub fn server_gone() -> Fault {
        Fault::new(Kind::ServerGone, None)
    }

    /// Half-open: the client's side is closed, the server's stays open and silent until the fault
    /// is lifted.
    pub fn client_gone() -> Fault {
        Fault::new(Kind::ClientGone, None)
    }

    /// Only where such a statement begins to run; with [`Self::now`], where one ever ran.
    #[must_use]
    pub fn on(mut self, marker: &str) -> Fault {
        self.marker = Some(marker.to_owned());
        self
    }

    /// Only when such a statement is over and its client asks for a sign of life, as sqlx does
    /// before it keeps a connection.
    #[must_use]
    pub fn after(mut self, marker: &str) -> Fault {
        self.after = true;
        self.on(marker)
    }

    /// Only a reply that has a row.
    #[must_use]
    pub fn with_rows(mut self) -> Fault {
        self.with_rows = true;
        self
    }

    /// Once it has struck, every connection ends and none begins, as if the client's process had
    /// died.
    #[must_use]
    pub fn ends_all(mut self) -> Fault {
        self.ends_all = true;
        self
    }

    /// Spares the first requests, or replies, that it is for.
    #[must_use]
    pub fn skip(mut self, spared: usize) -> Fault {
        self.skip = spared;
        self
    }

    /// So many requests; one, unless this is said.
    #[must_use]
    pub fn times(mut self, times: usize) -> Fault {
        self.reach = Reach::Times(times);
        self
    }

    /// Every request until it is lifted; without a marker also every connection that is open or
    /// comes.
    #[must_use]
    pub fn always(mut self) -> Fault {
        self.reach = Reach::Always;
        self
    }

    /// The connections that are open now, at once, and none that comes.
    #[must_use]
    pub fn now(mut self) -> Fault {
        self.reach = Reach::Now;
        self
    }

    pub(super) fn state(self) -> Arc<State> {
        let left = match self.reach {
            Reach::Times(times) => times,
            Reach::Always => usize::MAX,
            Reach::Now => 0,
        };
        Arc::new(State {
            spared: AtomicUsize::new(self.skip),
            fault: self,
            left: AtomicUsize::new(left),
            struck: watch::Sender::new(0),
            lifted: watch::Sender::new(false),
        })
    }
}

/// A fault in force.
#[derive(Debug)]
pub(super) struct State {
    fault: Fault,
    /// How many are yet to be spared.
    spared: AtomicUsize,
    left: AtomicUsize,
    struck: watch::Sender<usize>,
    lifted: watch::Sender<bool>,
}

impl State {
    pub(super) fn kind(&self) -> Kind {
        self.fault.kind
    }

    /// Whether every connection ends with it.
    pub(super) fn ends_all(&self) -> bool {
        self.fault.ends_all
    }

    /// How it reaches the connections that are open already; `None` where it waits for their next
    /// request.
    pub(super) fn reach_of_the_open(&self) -> Option<Reach> {
        match (self.fault.reach, self.kind(), &self.fault.marker) {
            (Reach::Now, ..) => Some(Reach::Now),
            (Reach::Always, Kind::Delay(_), _) | (Reach::Times(_), ..) | (Reach::Always, _, Some(_)) => None,
            (Reach::Always, _, None) => Some(Reach::Always),
        }
    }

    /// Whether a connection that comes is struck before its first request.
    pub(super) fn is_for_new_connections(&self) -> bool {
        self.reach_of_the_open() == Some(Reach::Always)
    }

    /// Whether it is for a connection that runs, or ran, one of these.
    pub(super) fn is_for<'a>(&self, mut texts: impl Iterator<Item = &'a Arc<str>>) -> bool {
        self.fault.marker.as_ref().is_none_or(|marker| texts.any(|text| text.contains(marker.as_str())))
    }

    /// Whether it is for a request that runs these texts, or none, after these.
    pub(super) fn is_for_request(&self, runs: &[Arc<str>], before: &[Arc<str>]) -> bool {
        if self.fault.after {
            runs.is_empty() && self.is_for(before.iter())
        } else {
            self.is_for(runs.iter())
        }
    }

    pub(super) fn is_over(&self) -> bool {
        *self.lifted.borrow() || self.left.load(Ordering::Acquire) == 0
    }

    /// Takes one of the times that are left. Where it depends on the reply, nothing is taken yet.
    pub(super) fn take(&self) -> bool {
        if self.fault.with_rows { !self.is_over() } else { self.take_now() }
    }

    /// Whether a reply that may be lost is lost.
    pub(super) fn loses_reply(&self, has_rows: bool) -> bool {
        !self.fault.with_rows || has_rows && self.take_now()
    }

    fn take_now(&self) -> bool {
        let fewer = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
        let take = |from: &AtomicUsize| from.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer).is_ok();
        !*self.lifted.borrow() && !take(&self.spared) && take(&self.left)
    }

    /// It has struck.
    pub(super) fn strike(&self) {
        self.struck.send_modify(|struck| *struck += 1);
    }

    pub(super) async fn lifted(&self) {
        // It fails only when the sender is gone, and we hold it.
        drop(self.lifted.subscribe().wait_for(|lifted| *lifted).await);
    }
}

/// A fault that was injected. Dropping this leaves it in force.
#[derive(Clone, Debug)]
pub struct Injected(pub(super) Arc<State>);

impl Injected {
    /// How often it has struck. A lost reply counts once the server has given it.
    pub fn struck(&self) -> usize {
        *self.0.struck.borrow()
    }

    /// Waits until it has struck so often.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_until_struck(&self, times: usize, deadline: Duration) {
        let mut struck = self.0.struck.subscribe();
        let enough = timeout(deadline, struck.wait_for(|struck| *struck >= times)).await;
        assert!(
            enough.is_ok(),
            "{:?} struck {} times within {deadline:?}, not {times}",
            self.0.fault,
            self.struck()
        );
    }

    /// It strikes no more; what it stalls goes on.
    pub fn lift(&self) {
        self.0.lifted.send_replace(true);
    }
}
