//! Limits on each participant that this worker calls, so that a dead or hanging participant does
//! not delay the others.
//!
//! States of a participant:
//!
//! * *answering*: up to seven eighths of the worker's calls, or the limit of `--participant-limit`.
//! * *new* (no response yet): up to a quarter of the calls. The worker holds as many tasks for it
//!   as it has calls.
//! * *silent* (calls in flight, but no response for 1 s): up to a quarter of the calls. The worker
//!   holds twice as many tasks.
//! * *full* (an HTTP/2 connection took no more calls): for a minute, as many calls as the
//!   connection carried, and a few that wait for a stream.
//! * *in this process*: up to seven eighths of the worker's calls, or its limit. Its handlers may
//!   take hours, so that their silence says nothing.
//! * *open* (circuit breaker): 20 calls in a row were unreachable or timed out. One probe call per
//!   second is allowed (breaker.rs). Any response, even an error, closes the breaker.
//! * *denied*: this worker may not call the participant, or does not know its address. The tasks
//!   return to the queue, due immediately, because another worker may be able to call it. For 30 s
//!   this worker neither claims nor defers them. Then one task at a time tests whether the denial
//!   persists. If every living worker is denied, the tasks are deferred, because each claim would
//!   scan them.
//!
//! Claims and chained steps skip a participant that has reached its limit, and its tasks at the
//! head of the queue are deferred (claim/defer.rs). All states are this worker's own observations,
//! in memory. A new worker starts without them.

mod blocked;
mod breaker;
mod pace;
mod permit;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::telemetry::metrics::{Metrics, ParticipantMetrics};
pub(crate) use blocked::Blocked;
pub(crate) use breaker::Lane;
use breaker::Open;
use pace::Pace;
pub(crate) use permit::{Admission, ParticipantPermit};
use pgsaga_sql::contract::NamedUrl;

/// Number of consecutive calls without a sign of life that opens the breaker.
pub(crate) const OPEN_AFTER: u32 = 20;
/// Time without a response, with calls in flight, after which a participant is silent.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// Time of silence after which the participant's due tasks are deferred.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// Lower bound on the time for which a task is deferred.
pub(crate) const DEFER_MIN: Duration = Duration::from_secs(1);
pub(crate) const DEFER_MAX: Duration = Duration::from_secs(30);
// control: denied-pause
/// Time for which a worker does not call a participant after a denied call.
pub(crate) const DENIED_FOR: Duration = Duration::from_secs(30);
/// Upper bound on the tasks that claims skip. Each claim compares every row with all of them.
const PASSED_OVER_MAX: usize = 1_000;
/// Minimum interval between log events about a participant's denied calls.
const DENIED_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Upper bound on the denied participants that the worker publishes.
const DENIED_TOLD_MAX: usize = 20;
/// Time for which a participant is limited to the calls that its connection carried. The next
/// connection may carry more.
const FULL_FOR: Duration = Duration::from_secs(60);
/// Calls above that limit, which wait for a stream so that none stays idle.
const FULL_SPARE: usize = 4;
/// Time without held tasks after which a participant is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The participant sent a response, of any status.
    Answered,
    /// A handler of this process has returned.
    Ran,
    /// The connection broke, which tells nothing about the participant.
    Broken,
    /// The participant was unreachable or did not respond in time.
    Silent,
    /// No participant was called.
    Nobody,
}

/// The states of all participants, as one worker observes them.
#[derive(Debug)]
pub(crate) struct Participants {
    calls_max: usize,
    limits: HashMap<String, usize>,
    /// The named participants that this worker serves.
    served: HashSet<String>,
    /// Those whose handlers run in this process. They are never silent.
    in_process: HashSet<String>,
    metrics: Metrics,
    known: Mutex<HashMap<Arc<str>, Participant>>,
    /// Tasks that claims skip, with the end of the skip. Interrupted or overdue tasks are claimed
    /// even if their participant is denied, because most of them end without a call. These tasks
    /// needed the call.
    passed_over: Mutex<HashMap<i64, Instant>>,
    /// Notified when a participant that claims left out has room again.
    pub(crate) room: Notify,
}

#[derive(Debug)]
struct Participant {
    held: usize,
    in_flight: usize,
    pace: Pace,
    /// Claims leave out some of its tasks.
    is_bounded: bool,
    is_in_process: bool,
    answered: bool,
    /// Time of the last response, or the time when calls began to be in flight.
    since: Instant,
    /// Time when a task was last held for the participant.
    used: Instant,
    silent_in_a_row: u32,
    open: Option<Open>,
    full: Option<Full>,
    denied: Option<Denied>,
    denial_logged: Option<Instant>,
    freed: Arc<Notify>,
    counted: Arc<ParticipantMetrics>,
}

/// A connection that took no more calls.
#[derive(Debug, Clone, Copy)]
struct Full {
    calls: usize,
    until: Instant,
}

#[derive(Debug)]
struct Denied {
    since: Instant,
    until: Instant,
    why: Arc<str>,
}

impl Participants {
    /// Creates the states for a worker with `calls_max` call slots. The keys of `limits` have the
    /// format of [`participant`].
    pub(crate) fn new(
        calls_max: usize,
        limits: HashMap<String, usize>,
        served: HashSet<String>,
        in_process: HashSet<String>,
        metrics: Metrics,
    ) -> Arc<Participants> {
        let (known, passed_over) = (Mutex::default(), Mutex::default());
        Arc::new(Participants {
            calls_max,
            limits,
            served,
            in_process,
            metrics,
            known,
            passed_over,
            room: Notify::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Participant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the upper bounds on calls in flight: while the participant answers, and while it
    /// does not.
    fn bounds(&self, name: &str, known: &Participant, now: Instant) -> (usize, usize) {
        let few = (self.calls_max / 4).max(16).min(self.calls_max);
        let most = if self.calls_max < 16 { self.calls_max } else { self.calls_max - self.calls_max / 8 };
        match self.limit(name, known, now) {
            Some(limit) => (limit.min(most), limit.min(few)),
            None => (most, few),
        }
    }

    /// Returns the configured limit, or what the participant's connection carries if that is less.
    fn limit(&self, name: &str, known: &Participant, now: Instant) -> Option<usize> {
        let full = known.full.filter(|full| now < full.until).map(|full| full.calls);
        self.limits.get(name).copied().into_iter().chain(full).min()
    }

    fn calls_max(&self, name: &str, known: &Participant, now: Instant) -> usize {
        let (answering, silent) = self.bounds(name, known, now);
        if !known.answered || known.is_silent(now) { silent } else { answering }
    }

    /// Returns the upper bound on tasks held for the participant, waiting or in flight. `None` is
    /// unlimited.
    fn held_max(&self, name: &str, known: &Participant, now: Instant) -> Option<usize> {
        if name.is_empty() {
            // Without a call there is never a response.
            None
        } else if known.denied.is_some() {
            Some(1)
        } else if known.is_silent(now) || self.limit(name, known, now).is_some() {
            // The slots are not idle while the next claim is under way, however short the calls.
            Some(2 * self.calls_max(name, known, now) + known.pace.calls(now))
        } else {
            // New participant: as many tasks as the worker has calls.
            (!known.answered).then_some(self.calls_max.max(16))
        }
    }

    /// Whether this worker knows where the participant is.
    pub(crate) fn serves(&self, name: &str) -> bool {
        !name.starts_with(NamedUrl::SCHEME) || self.served.contains(name)
    }

    /// Whether one more task may be held for the participant. Settle asks before it chains the next
    /// step.
    pub(crate) fn has_room(&self, name: &str) -> bool {
        if !self.serves(name) {
            return false;
        }
        let now = Instant::now();
        let known = self.known();
        let Some(participant) = known.get(name) else { return true };
        let room = self.held_max(name, participant, now).is_none_or(|most| participant.held < most);
        room && participant.may_be_tried(now)
    }

    /// Counts a held task of this lane until the returned permit is dropped.
    pub(crate) fn hold(self: &Arc<Self>, name: &str, lane: Lane) -> ParticipantPermit {
        let mut known = self.known();
        let name: Arc<str> = match known.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => name.into(),
        };
        let participant = known.entry(Arc::clone(&name)).or_insert_with(|| {
            Participant::new(self.metrics.participant(&name), self.in_process.contains(&*name))
        });
        participant.held += 1;
        participant.used = Instant::now();
        let freed = Arc::clone(&participant.freed);
        drop(known);
        ParticipantPermit::new(Arc::clone(self), name, freed, lane)
    }

    /// Returns how long a task is deferred: as long as the breaker has been open, between 1 and 30
    /// s. Zero if only this worker is denied the call. `None` if the participant is neither open
    /// nor denied. `plans`: a claim took the task without regard to its participant.
    pub(crate) fn defer_for(&self, name: &str, task: i64, plans: bool) -> Option<Duration> {
        let now = Instant::now();
        let known = self.known();
        let participant = known.get(name)?;
        if participant.denied.is_some() {
            let mut passed_over = self.passed_over();
            if plans {
                if passed_over.len() >= PASSED_OVER_MAX {
                    return Some(DENIED_FOR);
                }
                passed_over.insert(task, now + DENIED_FOR);
            }
            return Some(Duration::ZERO);
        }
        Some((now - participant.open.as_ref()?.since).clamp(DEFER_MIN, DEFER_MAX))
    }

    fn passed_over(&self) -> MutexGuard<'_, HashMap<i64, Instant>> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this worker is denied calls to the participant, or does not know where it is.
    pub(crate) fn is_for_others(&self, name: &str) -> bool {
        !self.serves(name) || self.known().get(name).is_some_and(|participant| participant.denied.is_some())
    }

    /// Returns denied participants and the reasons, as a JSON object; `None` if there are none.
    pub(crate) fn denied(&self) -> Option<serde_json::Value> {
        let known = self.known();
        let now = Instant::now();
        let why = |(name, participant): (&Arc<str>, &Participant)| {
            // As long as tasks are due, one of them tests the denial soon after its end.
            let denied = participant.denied.as_ref().filter(|denied| now < denied.until + DENIED_FOR)?;
            Some((name.to_string(), denied.why.as_ref().into()))
        };
        let denied: serde_json::Map<_, _> = known.iter().filter_map(why).take(DENIED_TOLD_MAX).collect();
        (!denied.is_empty()).then_some(denied.into())
    }

    /// Returns the participants that are blocked now. An open breaker whose probe is due is not
    /// blocked.
    pub(crate) fn blocked(&self) -> Blocked {
        let now = Instant::now();
        let mut blocked = Blocked::default();
        let mut known = self.known();
        known.retain(|_, participant| {
            let kept = participant.held > 0 || now - participant.used < FORGOTTEN_AFTER;
            if !kept && participant.open.is_some() {
                participant.counted.breaker.decrement(1.0);
            }
            kept
        });
        let mut passed_over = self.passed_over();
        passed_over.retain(|_, until| now < *until);
        blocked.passed_over = passed_over.keys().copied().collect();
        drop(passed_over);
        for (name, participant) in &mut *known {
            participant.is_bounded = false;
            if let Some(denied) = &participant.denied {
                let denied_for = now - denied.since;
                if denied_for >= DENIED_FOR && self.serves(name) {
                    blocked.deferred_if_nobody_may.push((name.to_string(), denied_for));
                }
                if now < denied.until {
                    blocked.unclaimed.push(name.to_string());
                    if !self.serves(name) {
                        blocked.unserved.push(name.to_string());
                    }
                    continue;
                }
            }
            let most = self.held_max(name, participant, now);
            let room = most.map(|most| most.saturating_sub(participant.held));
            if let Some(open) = &participant.open {
                blocked.open += 1;
                blocked.deferred.push((name.to_string(), now - open.since));
                if now < open.probe_at || room == Some(0) {
                    blocked.unclaimed.push(name.to_string());
                    continue;
                }
            }
            if let (Some(room), Some(most)) = (room, most) {
                participant.is_bounded = true;
                // To find a single task, a claim would scan all due tasks of the participant. It
                // waits for more room.
                if room <= most / 2 {
                    blocked.unclaimed.push(name.to_string());
                    if participant.is_silent(now)
                        && now - participant.since >= PARK_AFTER
                        && participant.open.is_none()
                    {
                        blocked.deferred.push((name.to_string(), Duration::ZERO));
                    }
                } else {
                    blocked.few.0.push(name.to_string());
                    blocked.few.1.push(room as i64);
                }
            }
        }
        blocked
    }
}

impl Participant {
    fn new(counted: Arc<ParticipantMetrics>, is_in_process: bool) -> Participant {
        let now = Instant::now();
        Participant {
            held: 0,
            in_flight: 0,
            pace: Pace::new(now),
            is_bounded: false,
            is_in_process,
            answered: is_in_process,
            since: now,
            used: now,
            silent_in_a_row: 0,
            open: None,
            full: None,
            denied: None,
            denial_logged: None,
            freed: Arc::default(),
            counted,
        }
    }

    /// Whether neither the breaker nor a denial blocks a call now.
    fn may_be_tried(&self, now: Instant) -> bool {
        self.open.as_ref().is_none_or(|open| now >= open.probe_at) && self.is_allowed(now)
    }

    /// Whether no denial blocks a call now.
    fn is_allowed(&self, now: Instant) -> bool {
        self.denied.as_ref().is_none_or(|denied| now >= denied.until)
    }

    fn is_silent(&self, now: Instant) -> bool {
        // control: handlers-are-not-silent
        !self.is_in_process && self.in_flight > 0 && now - self.since >= SILENT_AFTER
    }
}

#[cfg(test)]
mod tests;
