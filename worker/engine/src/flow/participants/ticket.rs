//! A task's place with the participant that it calls, and what its call tells of that participant.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::{
    DENIED_FOR, DENIED_LOGGED_EVERY, Denied, OPEN_AFTER, PROBE_EVERY, Participants, Reached, SILENT_AFTER,
};

/// A held task's place with its participant; free again when dropped.
#[derive(Debug)]
pub struct Ticket {
    pub(super) participants: Arc<Participants>,
    pub(super) name: Arc<str>,
    pub(super) freed: Arc<Notify>,
    pub(super) calling: bool,
}

/// What a task that wants to call may do.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Call now.
    Call,
    /// Not now, and not soon: back to the queue, for as long as [`Participants::put_off`] says.
    Park,
}

impl Ticket {
    /// Name of the participant it is for.
    pub fn participant(&self) -> &str {
        &self.name
    }

    /// Whether a task that a claim has brought may stay.
    pub fn fits(&self) -> bool {
        let now = Instant::now();
        let known = self.participants.known();
        let Some(participant) = known.get(&self.name) else { return true };
        let most = self.participants.held_max(&self.name, participant, now);
        most.is_none_or(|most| participant.held <= most) && participant.may_be_tried(now)
    }

    /// Waits until the participant may get one more call.
    pub async fn admit(&mut self) -> Admission {
        // Nearly always at once.
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
            // A second at most: silence is a matter of time as well.
            let _ = tokio::time::timeout(SILENT_AFTER, free).await;
        }
    }

    /// The same without waiting; `None` where it would have to.
    pub fn try_admit(&mut self) -> Option<Admission> {
        let now = Instant::now();
        let mut known = self.participants.known();
        let participant = known.get_mut(&self.name)?;
        if participant.denied.as_ref().is_some_and(|denied| now < denied.until) {
            return Some(Admission::Park);
        }
        if participant.open_since.is_some() {
            if now < participant.probe_at {
                return Some(Admission::Park);
            }
            participant.probe_at = now + PROBE_EVERY;
        } else if participant.in_flight >= self.participants.calls_max(&self.name, participant, now) {
            let held_max = self.participants.held_max(&self.name, participant, now);
            return held_max.is_some_and(|most| participant.held > most).then_some(Admission::Park);
        }
        if participant.in_flight == 0 {
            participant.since = now;
        }
        participant.in_flight += 1;
        self.calling = true;
        Some(Admission::Call)
    }

    /// The call was not made: this worker may not, or does not know where. True where the log
    /// should have it.
    pub fn denied(&mut self, why: &str) -> bool {
        self.ended(Reached::Nobody, None);
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

    /// The call has ended, with this status where there was an answer.
    pub fn ended(&mut self, reached: Reached, status_code: Option<u16>) {
        if !std::mem::take(&mut self.calling) {
            return;
        }
        let now = Instant::now();
        let mut known = self.participants.known();
        let Some(participant) = known.get_mut(&self.name) else { return };
        participant.in_flight = participant.in_flight.saturating_sub(1);
        if reached != Reached::Nobody {
            participant.counted.responded(status_code);
            participant.denied = None;
        }
        match reached {
            Reached::Answered => {
                if !participant.answered || participant.is_silent(now) {
                    participant.freed.notify_waiters();
                }
                participant.answered = true;
                participant.since = now;
                participant.silent_in_a_row = 0;
                if let Some(since) = participant.open_since.take() {
                    participant.counted.breaker.decrement(1.0);
                    let open_ms = (now - since).as_millis() as u64;
                    tracing::info!(
                        participant = &*self.name,
                        open_ms,
                        "a participant answers again: its breaker closes"
                    );
                }
            }
            Reached::Silent => {
                participant.silent_in_a_row = participant.silent_in_a_row.saturating_add(1);
                if participant.silent_in_a_row >= OPEN_AFTER && participant.open_since.is_none() {
                    participant.open_since = Some(now);
                    participant.counted.breaker.increment(1.0);
                    participant.answered = false;
                    participant.probe_at = now + PROBE_EVERY;
                    participant.freed.notify_waiters();
                    tracing::warn!(
                        participant = &*self.name,
                        calls = participant.silent_in_a_row,
                        "a participant is unreachable or does not answer: its breaker opens, one call a second is tried"
                    );
                }
            }
            Reached::Broken | Reached::Nobody => {}
        }
        participant.freed.notify_one();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.ended(Reached::Nobody, None);
        let now = Instant::now();
        let mut known = self.participants.known();
        let Some(participant) = known.get_mut(&self.name) else { return };
        participant.held = participant.held.saturating_sub(1);
        participant.freed.notify_one();
        // The moment from which claims bring its tasks again.
        let most = self.participants.held_max(&self.name, participant, now);
        if most.is_some_and(|most| participant.held == most - most / 2 - 1) {
            self.participants.room.notify_one();
        }
    }
}
