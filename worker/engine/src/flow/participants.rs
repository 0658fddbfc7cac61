//! Whom this worker calls, and how much of it each may take: one that is dead or hangs must not hold up the others.
//!
//! * *answering*: up to seven eighths of all calls at once, or what `--participant-limit` says.
//! * *new*: it has not answered yet: a quarter of all calls, and half of what the worker holds.
//! * *silent*: calls run, and none has been answered for a second: a quarter of all calls, and twice that held.
//! * *open* (a circuit breaker): 20 calls in a row were unreachable or timed out. One call a second is let through; an
//!   answer, even a bad one, closes it.
//! * *denied*: this worker may not call it, or does not know where it is. Another worker may: so its tasks go back to the
//!   queue due at once, and for 30 s this worker neither claims nor parks them. Then one task at a time finds out whether
//!   that has changed; and where every living worker says the same, its tasks are parked, or each claim would walk over them.
//!
//! What is over is neither claimed nor chained, and what lies in front of the queue is parked (park.rs). All of it is one
//! worker's own view, in memory: a new worker finds out by itself.

mod ticket;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::telemetry::metrics::{Metrics, OfParticipant};
pub use ticket::{Admission, Ticket};

/// Calls in a row without a sign of life that open the breaker.
pub const OPEN_AFTER: u32 = 20;
/// One call in so long is let through an open breaker.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Calls run for so long without an answer: the participant is silent.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// Silent for so long: what is due for it is parked.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// The shortest and the longest time for which a task is put off.
pub const PUT_OFF_MIN: Duration = Duration::from_secs(1);
/// See [`PUT_OFF_MIN`].
pub const PUT_OFF_MAX: Duration = Duration::from_secs(30);
/// A worker leaves a participant alone for so long after it was denied a call.
pub const DENIED_FOR: Duration = Duration::from_secs(30);
/// Skipped tasks are bounded, because each claim compares each of them.
const PASSED_OVER_MAX: usize = 1_000;
/// A denial is told to the log once in so long, however many calls are denied.
const DENIED_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// So many of them are told to whoever asks for a saga.
const DENIED_TOLD_MAX: usize = 20;
/// Participants are forgotten when nothing has been held for them for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// There was an answer, of whatever kind.
    Answered,
    /// The connection broke: that says neither.
    Broken,
    /// Unreachable, or no answer in time.
    Silent,
    /// Nobody was called.
    Nobody,
}

/// Whom a URL calls: host and port as it writes them, or `participant:NAME`; nothing for no call. queue_sagas() reads it the
/// same way.
pub fn participant(url: &str) -> &str {
    let nth = if url.starts_with("participant:") { 0 } else { 2 };
    url.split('/').nth(nth).and_then(|authority| authority.split('?').next()).unwrap_or("")
}

/// All participants of one worker.
#[derive(Debug)]
pub struct Participants {
    calls_max: usize,
    limits: HashMap<String, usize>,
    metrics: Metrics,
    known: Mutex<HashMap<Arc<str>, Participant>>,
    /// Interrupted or overdue tasks are claimed even if their participant is denied, because most
    /// end without a call. These needed the call: claims skip them until then.
    passed_over: Mutex<HashMap<i64, Instant>>,
    /// One that claims left out has room again.
    pub room: Notify,
}

#[derive(Debug)]
struct Participant {
    held: usize,
    in_flight: usize,
    answered: bool,
    /// The last sign of life, or when calls began to run.
    since: Instant,
    /// When something was last held for it.
    used: Instant,
    silent_in_a_row: u32,
    open_since: Option<Instant>,
    probe_at: Instant,
    denied: Option<Denied>,
    /// When the log last had a denial.
    denial_logged: Option<Instant>,
    freed: Arc<Notify>,
    counted: OfParticipant,
}

/// This worker may not call it.
#[derive(Debug)]
struct Denied {
    since: Instant,
    until: Instant,
    why: Arc<str>,
}

/// Which participants get nothing now.
#[derive(Debug, Default)]
pub struct Blocked {
    /// Claims leave their tasks where they are.
    pub unclaimed: Vec<String>,
    /// Claims bring at most so many tasks of them.
    pub few: (Vec<String>, Vec<i64>),
    /// What is due for them is parked, each with how long it has been so.
    pub parked: Vec<(String, Duration)>,
    /// The same for those that this worker may not call: only where no living worker may.
    pub parked_if_nobody_may: Vec<(String, Duration)>,
    /// Interrupted or overdue tasks that claims skip, because this worker may not make the call
    /// that they need.
    pub passed_over: Vec<i64>,
    /// How many breakers are open.
    pub open: usize,
}

impl Participants {
    /// For a worker of `calls_max` calls at once; `limits` of single participants, by what [`participant`] reads.
    pub fn new(calls_max: usize, limits: HashMap<String, usize>, metrics: Metrics) -> Arc<Participants> {
        let (known, passed_over) = (Mutex::default(), Mutex::default());
        Arc::new(Participants { calls_max, limits, metrics, known, passed_over, room: Notify::new() })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Participant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls at once: while it answers, and while it does not.
    fn bounds(&self, name: &str) -> (usize, usize) {
        let few = (self.calls_max / 4).max(16).min(self.calls_max);
        let most = if self.calls_max < 16 { self.calls_max } else { self.calls_max - self.calls_max / 8 };
        match self.limits.get(name) {
            Some(&limit) => (limit.min(most), limit.min(few)),
            None => (most, few),
        }
    }

    fn calls_max(&self, name: &str, known: &Participant, now: Instant) -> usize {
        let (answering, silent) = self.bounds(name);
        if !known.answered || known.is_silent(now) { silent } else { answering }
    }

    /// Everything held for it, running or waiting, that makes sense; `None` is without bound.
    fn held_max(&self, name: &str, known: &Participant, now: Instant) -> Option<usize> {
        if name.is_empty() {
            // Nobody is called, so nobody ever answers.
            None
        } else if known.denied.is_some() {
            Some(1)
        } else if known.is_silent(now) || self.limits.contains_key(name) {
            Some(2 * self.calls_max(name, known, now))
        } else {
            // Nobody knows yet: half of what a worker holds.
            (!known.answered).then_some(self.calls_max.max(16))
        }
    }

    /// Whether one more task for it may be held: a chain asks before it goes on.
    pub fn has_room(&self, name: &str) -> bool {
        let now = Instant::now();
        let known = self.known();
        let Some(participant) = known.get(name) else { return true };
        let room = self.held_max(name, participant, now).is_none_or(|most| participant.held < most);
        room && participant.may_be_tried(now)
    }

    /// Takes a place for a task that is held.
    pub fn hold(self: &Arc<Self>, name: &str) -> Ticket {
        let mut known = self.known();
        let name: Arc<str> = match known.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => name.into(),
        };
        let participant = known
            .entry(Arc::clone(&name))
            .or_insert_with(|| Participant::new(self.metrics.participant(&name)));
        participant.held += 1;
        participant.used = Instant::now();
        let freed = Arc::clone(&participant.freed);
        drop(known);
        Ticket { participants: Arc::clone(self), name, freed, calling: false }
    }

    /// How long a task for it is put off: as long as its breaker has been open, 1 to 30 seconds;
    /// not at all where only this worker may not call it. `None`: it is neither. `plans`: a claim
    /// brought the task whatever its participant.
    pub fn put_off(&self, name: &str, task: i64, plans: bool) -> Option<Duration> {
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
        Some((now - participant.open_since?).clamp(PUT_OFF_MIN, PUT_OFF_MAX))
    }

    fn passed_over(&self) -> MutexGuard<'_, HashMap<i64, Instant>> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this worker may not call it.
    pub fn is_denied(&self, name: &str) -> bool {
        self.known().get(name).is_some_and(|participant| participant.denied.is_some())
    }

    /// Some of what this worker may not call, and why, as a JSON object; `None` where it is
    /// nothing.
    pub fn denied(&self) -> Option<serde_json::Value> {
        let known = self.known();
        let now = Instant::now();
        let why = |(name, participant): (&Arc<str>, &Participant)| {
            // While its tasks are due, one of them is tried soon after each denial ends.
            let denied = participant.denied.as_ref().filter(|denied| now < denied.until + DENIED_FOR)?;
            Some((name.to_string(), denied.why.as_ref().into()))
        };
        let denied: serde_json::Map<_, _> = known.iter().filter_map(why).take(DENIED_TOLD_MAX).collect();
        (!denied.is_empty()).then_some(denied.into())
    }

    /// Who gets nothing now. An open breaker whose probe is due is not blocked.
    pub fn blocked(&self) -> Blocked {
        let now = Instant::now();
        let mut blocked = Blocked::default();
        let mut known = self.known();
        known.retain(|_, participant| {
            let kept = participant.held > 0 || now - participant.used < FORGOTTEN_AFTER;
            if !kept && participant.open_since.is_some() {
                participant.counted.breaker.decrement(1.0);
            }
            kept
        });
        let mut passed_over = self.passed_over();
        passed_over.retain(|_, until| now < *until);
        blocked.passed_over = passed_over.keys().copied().collect();
        drop(passed_over);
        for (name, participant) in &*known {
            if let Some(denied) = &participant.denied {
                let denied_for = now - denied.since;
                if denied_for >= DENIED_FOR {
                    blocked.parked_if_nobody_may.push((name.to_string(), denied_for));
                }
                if now < denied.until {
                    blocked.unclaimed.push(name.to_string());
                    continue;
                }
            }
            let most = self.held_max(name, participant, now);
            let room = most.map(|most| most.saturating_sub(participant.held));
            if let Some(since) = participant.open_since {
                blocked.open += 1;
                blocked.parked.push((name.to_string(), now - since));
                if now < participant.probe_at || room == Some(0) {
                    blocked.unclaimed.push(name.to_string());
                    continue;
                }
            }
            if let (Some(room), Some(most)) = (room, most) {
                // A claim that brings one task, and walks over all that is due to find it, is not worth its while.
                if room <= most / 2 {
                    blocked.unclaimed.push(name.to_string());
                    if participant.is_silent(now)
                        && now - participant.since >= PARK_AFTER
                        && participant.open_since.is_none()
                    {
                        blocked.parked.push((name.to_string(), Duration::ZERO));
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
    fn new(counted: OfParticipant) -> Participant {
        let now = Instant::now();
        Participant {
            held: 0,
            in_flight: 0,
            answered: false,
            since: now,
            used: now,
            silent_in_a_row: 0,
            open_since: None,
            probe_at: now,
            denied: None,
            denial_logged: None,
            freed: Arc::default(),
            counted,
        }
    }

    /// Neither its breaker nor a denial keeps calls away.
    fn may_be_tried(&self, now: Instant) -> bool {
        (self.open_since.is_none() || now >= self.probe_at)
            && self.denied.as_ref().is_none_or(|denied| now >= denied.until)
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.in_flight > 0 && now - self.since >= SILENT_AFTER
    }
}

#[cfg(test)]
mod tests;
