//! The slot that a task takes at its participant, and the effect of a call's end on the
//! participant's state.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::breaker::{Lane, Open, Turn};
use super::{
    DENIED_FOR, DENIED_LOGGED_EVERY, Denied, FULL_FOR, FULL_SPARE, Full, OPEN_AFTER, Participants, Reach,
    SILENT_AFTER,
};

/// Pause of a task whose turn to probe is not yet, although a probe is due.
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// A held task's slot at its participant. Dropping the permit frees the slot.
#[derive(Debug)]
pub(crate) struct ParticipantPermit {
    participants: Arc<Participants>,
    name: Arc<str>,
    freed: Arc<Notify>,
    lane: Lane,
    calling: bool,
    /// The task waits for its turn to probe an open breaker.
    waits_for_probe: bool,
}

/// Decision on a task that is ready to call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The task may call now.
    Call,
    /// Not now, and not soon: back to the queue, for as long as [`Participants::defer_for`] says.
    Defer,
}

impl ParticipantPermit {
    pub(super) fn new(
        participants: Arc<Participants>,
        name: Arc<str>,
        freed: Arc<Notify>,
        lane: Lane,
    ) -> ParticipantPermit {
        ParticipantPermit { participants, name, freed, lane, calling: false, waits_for_probe: false }
    }

    /// The lane of the task.
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    pub(crate) fn participant(&self) -> &str {
        &self.name
    }

    /// Whether a task that was just claimed is within the participant's limit.
    pub(crate) fn fits(&self) -> bool {
        let now = Instant::now();
        let known = self.participants.known();
        let Some(participant) = known.get(&self.name) else { return true };
        let most = self.participants.held_max(&self.name, participant, now);
        let has_place = participant.open.as_ref().is_none_or(|open| open.has_place(self.lane, now));
        most.is_none_or(|most| participant.held <= most) && has_place && participant.is_allowed(now)
    }

    /// Waits until the participant may receive one more call.
    pub(crate) async fn admit(&mut self) -> Admission {
        if let Some(admission) = self.try_admit() {
            return admission;
        }
        let freed = Arc::clone(&self.freed);
        loop {
            let mut free = std::pin::pin!(freed.notified());
            free.as_mut().enable();
            if let Some(admission) = self.try_admit() {
                return admission;
            }
            // Wakes up once a second, because a participant also becomes silent by the passage of
            // time.
            let wake_at = self.probe_at().unwrap_or_else(|| Instant::now() + SILENT_AFTER);
            let _ = tokio::time::timeout_at(wake_at, free).await;
        }
    }

    /// Like [`ParticipantPermit::admit`], but returns `None` instead of waiting.
    pub(crate) fn try_admit(&mut self) -> Option<Admission> {
        let now = Instant::now();
        let mut known = self.participants.known();
        let participant = known.get_mut(&self.name)?;
        if participant.denied.as_ref().is_some_and(|denied| now < denied.until) {
            return Some(Admission::Defer);
        }
        if let Some(open) = &mut participant.open {
            let turn = open.ask(self.lane, self.waits_for_probe, now);
            self.waits_for_probe = turn == Turn::Wait;
            match turn {
                Turn::Probe => {}
                Turn::Wait => return None,
                Turn::Defer => return Some(Admission::Defer),
            }
        } else if participant.in_flight >= self.participants.calls_max(&self.name, participant, now) {
            let held_max = self.participants.held_max(&self.name, participant, now);
            return held_max.is_some_and(|most| participant.held > most).then_some(Admission::Defer);
        }
        if participant.in_flight == 0 {
            participant.since = now;
        }
        participant.in_flight += 1;
        self.calling = true;
        Some(Admission::Call)
    }

    /// Returns when the task should ask again for its turn to probe.
    fn probe_at(&self) -> Option<Instant> {
        let known = self.participants.known();
        let open = known.get(&self.name)?.open.as_ref()?;
        // A turn that is due belongs to another lane's task, which is about to take it.
        Some(open.probe_at.max(Instant::now() + TURN_PAUSE))
    }

    /// Records that the participant's connection carries this many calls and took no more.
    pub(crate) fn busy(&mut self, calls: usize) {
        self.ended(Reach::Nobody, None);
        if let Some(participant) = self.participants.known().get_mut(&self.name) {
            participant.full = Some(Full { calls: calls + FULL_SPARE, until: Instant::now() + FULL_FOR });
        }
    }

    /// Records that this worker is denied the call. Returns true if the caller should log the
    /// denial.
    pub(crate) fn denied(&mut self, why: &str) -> bool {
        self.ended(Reach::Nobody, None);
        let now = Instant::now();
        let mut known = self.participants.known();
        let Some(participant) = known.get_mut(&self.name) else { return false };
        let since = participant.denied.as_ref().map_or(now, |denied| denied.since);
        participant.denied = Some(Denied { since, until: now + DENIED_FOR, why: why.into() });
        participant.freed.notify_waiters();
        let is_news = participant.denial_logged.is_none_or(|logged| now - logged >= DENIED_LOGGED_EVERY);
        if is_news {
            participant.denial_logged = Some(now);
        }
        is_news
    }

    /// Records the end of a call, with the HTTP status if there was a response.
    pub(crate) fn ended(&mut self, reached: Reach, status_code: Option<u16>) {
        if !std::mem::take(&mut self.calling) {
            return;
        }
        let now = Instant::now();
        let mut known = self.participants.known();
        let Some(participant) = known.get_mut(&self.name) else { return };
        participant.in_flight = participant.in_flight.saturating_sub(1);
        participant.pace.call_ended(now);
        if reached != Reach::Nobody {
            let counted = &participant.counted;
            if reached == Reach::Ran {
                counted.ran()
            } else {
                counted.responded(status_code)
            }
            participant.denied = None;
        }
        match reached {
            Reach::Answered => {
                if !participant.answered || participant.is_silent(now) {
                    participant.freed.notify_waiters();
                }
                participant.answered = true;
                participant.since = now;
                participant.silent_in_a_row = 0;
                if let Some(open) = participant.open.take() {
                    participant.counted.breaker.decrement(1.0);
                    participant.freed.notify_waiters();
                    let open_ms = (now - open.since).as_millis() as u64;
                    tracing::info!(
                        participant = &*self.name,
                        open_ms,
                        "a participant answers again: its breaker closes"
                    );
                }
            }
            Reach::Silent => {
                participant.silent_in_a_row = participant.silent_in_a_row.saturating_add(1);
                if participant.silent_in_a_row >= OPEN_AFTER && participant.open.is_none() {
                    participant.open = Some(Open::new(now));
                    participant.counted.breaker.increment(1.0);
                    participant.answered = false;
                    participant.freed.notify_waiters();
                    tracing::warn!(
                        participant = &*self.name,
                        calls = participant.silent_in_a_row,
                        "a participant is unreachable or does not answer: its breaker opens, one call a second is tried"
                    );
                }
            }
            Reach::Ran | Reach::Broken | Reach::Nobody => {}
        }
        participant.freed.notify_one();
    }
}

impl Drop for ParticipantPermit {
    fn drop(&mut self) {
        self.ended(Reach::Nobody, None);
        let now = Instant::now();
        let mut known = self.participants.known();
        let Some(participant) = known.get_mut(&self.name) else { return };
        participant.held = participant.held.saturating_sub(1);
        if let Some(open) = participant.open.as_mut().filter(|_| self.waits_for_probe) {
            open.leave(self.lane);
        }
        participant.freed.notify_one();
        // From this moment on, claims take the participant's tasks again.
        let most = self.participants.held_max(&self.name, participant, now);
        if participant.is_bounded && most.is_none_or(|most| participant.held < most - most / 2) {
            participant.is_bounded = false;
            self.participants.room.notify_one();
        }
    }
}
