//! How handles are made, and those of which there are as many as a label has values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

/// What an answer was, by its first digit; without one there was none.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// So many values a label has at most: whoever calls a host of its own for each saga must not fill Prometheus.
pub(super) const PARTICIPANTS_MAX: usize = 100;
pub(super) const QUEUES_MAX: usize = 50;
/// The value that all others share.
const OTHER: &str = "other";

/// Makes handles. Where a process serves several databases, each series says of which it is.
#[derive(Debug, Clone, Default)]
pub struct Series {
    database: Option<Label>,
}

/// Label and value.
type Own<'a> = (&'static str, &'a str);

impl Series {
    /// Of one of several databases.
    pub fn of(database: &str) -> Series {
        Series { database: Some(Label::new("database", database.to_owned())) }
    }

    fn labels(&self, own: &[Own]) -> Vec<Label> {
        let own = own.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
        self.database.iter().cloned().chain(own).collect()
    }

    /// Touched with 0.
    pub(super) fn counter(&self, name: &'static str, own: &[Own]) -> Counter {
        let counter = counter!(name, self.labels(own));
        counter.absolute(0);
        counter
    }

    /// A gauge.
    pub fn gauge(&self, name: &'static str, own: &[Own]) -> Gauge {
        gauge!(name, self.labels(own))
    }

    /// A histogram.
    pub fn histogram(&self, name: &'static str, own: &[Own]) -> Histogram {
        histogram!(name, self.labels(own))
    }
}

/// What is counted of each queue, here and in the database.
#[derive(Debug)]
pub struct OfQueue {
    /// Sagas whose first step was claimed for the first time.
    pub started: Counter,
    /// By status: succeeded, failed, stuck.
    pub(super) finished: [Counter; 3],
    /// Tasks by state: due, waiting, running; sampled.
    pub tasks: [Gauge; 3],
    /// Age of the oldest due task in seconds; sampled.
    pub oldest_due_seconds: Gauge,
}

/// What is counted of each participant.
#[derive(Debug, Clone)]
pub struct OfParticipant {
    responses: Arc<[Counter; 6]>,
    /// 1 while its breaker is open. Of those that share a name: how many are.
    pub breaker: Gauge,
}

/// Handles by the value of a label, at most `max` of them; all others share one.
#[derive(Debug)]
pub(super) struct Named<T> {
    known: Mutex<HashMap<String, T>>,
    max: usize,
    series: Series,
    make: fn(&Series, &str) -> T,
}

impl<T: Clone> Named<T> {
    pub(super) fn new(max: usize, series: &Series, make: fn(&Series, &str) -> T) -> Arc<Named<T>> {
        Arc::new(Named { known: Mutex::default(), max, series: series.clone(), make })
    }

    pub(super) fn get(&self, name: &str) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known.get(name) {
            return handles.clone();
        }
        // The shared one is the last that is added.
        let name = if known.len() < self.max { name } else { OTHER };
        known.entry(name.to_owned()).or_insert_with(|| (self.make)(&self.series, name)).clone()
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl OfQueue {
    pub(super) fn new(series: &Series, queue: &str) -> Arc<OfQueue> {
        let queue = ("queue", queue);
        Arc::new(OfQueue {
            started: series.counter("pgsaga_sagas_started_total", &[queue]),
            finished: ["succeeded", "failed", "stuck"]
                .map(|status| series.counter("pgsaga_sagas_finished_total", &[queue, ("status", status)])),
            tasks: ["due", "waiting", "running"]
                .map(|state| series.gauge("pgsaga_tasks", &[queue, ("state", state)])),
            oldest_due_seconds: series.gauge("pgsaga_oldest_due_task_seconds", &[queue]),
        })
    }
}

impl OfParticipant {
    pub(super) fn new(series: &Series, participant: &str) -> OfParticipant {
        let participant = ("participant", participant);
        OfParticipant {
            responses: Arc::new(
                CLASSES
                    .map(|class| series.counter("pgsaga_responses_total", &[participant, ("class", class)])),
            ),
            breaker: series.gauge("pgsaga_breaker_open", &[participant]),
        }
    }

    /// A call was answered with this status, or not at all.
    pub fn responded(&self, status_code: Option<u16>) {
        let class = status_code.map_or(0, |code| usize::from(code / 100).min(CLASSES.len() - 1));
        self.responses[class].increment(1);
    }
}
