//! What an application builds: a saga, its steps, and what stands in their payloads.

mod answer;
mod step;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pgsaga_sql::contract::GID;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

pub use answer::{AnswerOf, Literal, answer_of, literal};
pub use step::Step;

use crate::definition::Definition;
use crate::validate::{self, Columns, Invalid};

/// A saga to submit. Its steps run one after the other, or as [`Step::after`] says. When a step
/// refuses, the steps that may have taken effect are compensated in reverse order.
#[derive(Debug, Clone, Default)]
pub struct Saga {
    /// All columns but those below.
    columns: Columns,
    steps: Vec<Step>,
    headers: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    result_mapping: Option<Json>,
}

/// A value as JSON, or why it did not become JSON. The error is reported when the saga is checked,
/// so that building stays one chain of calls.
type Json = Result<Box<RawValue>, String>;

fn to_json<T: Serialize + ?Sized>(value: &T) -> Json {
    to_raw_value(value).map_err(|error| error.to_string())
}

fn not_json(place: &str, error: &str) -> Invalid {
    Invalid::new(place, format!("a value that does not become JSON ({error})"), "any JSON")
}

impl Saga {
    /// A saga without steps. The database makes a time-ordered gid for a saga that has none.
    pub fn new() -> Self {
        Self::default()
    }

    /// A background job: a saga of one step without a compensation, such as
    /// `Saga::single("participant:mail/send", &mail)`.
    pub fn single<T: Serialize + ?Sized>(action: impl Into<String>, payload: &T) -> Self {
        Self::new().step(Step::new("job").action(action).payload(payload))
    }

    /// Names the saga, which makes submitting idempotent. A gid has 1 to 128 of the characters
    /// `A-Z a-z 0-9 . _ : -`. It is unique over all databases that share participants, and is never
    /// used again, not even after retention has deleted its saga.
    pub fn gid(mut self, gid: impl Into<String>) -> Result<Self, Invalid> {
        let gid = gid.into();
        validate::name("gid", Some(&gid), GID)?;
        self.columns.gid = Some(gid);
        Ok(self)
    }

    /// Adds a step. It runs after the step added before it, unless it says otherwise. A saga has 1
    /// to 1,000 steps.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Chooses the queue, for workers that serve chosen queues: 1 to 64 of the characters
    /// `A-Z a-z 0-9 . _ : -`, `default` by default.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.columns.queue = Some(queue.into());
        self
    }

    /// Chooses the class in the queue, from 0, the most urgent, to 3; 1 by default.
    pub fn priority(mut self, priority: u8) -> Self {
        self.columns.priority = Some(priority.into());
        self
    }

    /// Delays the start until this time by the database's clock, to the microsecond. A time in the
    /// past is now; the year 9999 is the last one allowed. Replaces
    /// [`run_after`](Self::run_after).
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.columns.run_at_us = Some(since_1970(time));
        self.columns.run_after_us = None;
        self
    }

    /// Delays the start by this time after the INSERT, up to 3,153,600,000 s. Replaces
    /// [`run_at`](Self::run_at).
    pub fn run_after(mut self, delay: Duration) -> Self {
        self.columns.run_after_us = Some(micros(delay));
        self.columns.run_at_us = None;
        self
    }

    /// Sets the deadline: 1 ms to 31,536,000 s (365 days) after the later of INSERT and start; none
    /// by default. A saga that has not ended by then rolls back, after its calls in flight.
    pub fn timeout_to_fail(mut self, timeout: Duration) -> Self {
        self.columns.timeout_to_fail_us = Some(micros(timeout));
        self
    }

    /// Sets the wait before the first retry of an op; it doubles with each further retry. 1 ms to a
    /// day, 10 s by default.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.columns.retry_interval_us = Some(micros(interval));
        self
    }

    /// Limits the retries of an action after its first try, up to 1,000,000; no limit by default.
    pub fn retry_limit(mut self, limit: u32) -> Self {
        self.columns.retry_limit = Some(limit.into());
        self
    }

    /// Limits the retries of a compensation after its first try, up to 1,000,000; no limit by
    /// default. When a compensation has used up its retries, the saga is stuck until a person
    /// decides.
    pub fn compensate_retry_limit(mut self, limit: u32) -> Self {
        self.columns.compensate_retry_limit = Some(limit.into());
        self
    }

    /// Compensates a step whose action was refused as well, as DTM does. By default nothing is
    /// undone of what a participant has definitely refused.
    pub fn compensate_failed(mut self) -> Self {
        self.columns.compensate_failed = Some(true);
        self
    }

    /// Limits the time of one call: 1 ms to a day, 3 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.columns.request_timeout_us = Some(micros(timeout));
        self
    }

    /// Adds a header to every call, such as `traceparent`. A saga has up to 64.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Adds a label, by which people find the saga. A saga has up to 64.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets what becomes the saga's result; by default the last step's answer. The mapping may hold
    /// [`answer_of`] for any step. Up to 1 MiB as Postgres prints it, nested up to 64 deep.
    pub fn result_mapping<T: Serialize + ?Sized>(mut self, mapping: &T) -> Self {
        self.result_mapping = Some(to_json(mapping));
        self
    }

    /// Checks the saga, in the words that the INSERT would use.
    pub fn definition(&self) -> Result<Definition, Invalid> {
        let steps = (1..).zip(&self.steps).map(|(position, step)| step.to_json(position));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let mapping = self.result_mapping.as_ref().map(|mapping| match mapping {
            Ok(mapping) => Ok(mapping.get().to_owned()),
            Err(error) => Err(not_json("result_mapping", error)),
        });
        Definition::new(Columns {
            steps: format!("[{}]", steps.join(",")),
            headers: strings("headers", &self.headers)?,
            labels: strings("labels", &self.labels)?,
            result_mapping: mapping.transpose()?,
            ..self.columns.clone()
        })
    }
}

fn micros(duration: Duration) -> i128 {
    i128::try_from(duration.as_micros()).unwrap_or(i128::MAX)
}

fn since_1970(time: SystemTime) -> i128 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    }
}

fn strings(place: &str, entries: &BTreeMap<String, String>) -> Result<Option<String>, Invalid> {
    let text = || serde_json::to_string(entries).map_err(|error| not_json(place, &error.to_string()));
    (!entries.is_empty()).then(text).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_saga_is_the_json_one_would_write() {
        let exact: &RawValue = serde_json::from_str(r#"{"cents":12345678901234567890.1230}"#).unwrap();
        let saga = Saga::new()
            .gid("order-42")
            .unwrap()
            .step(
                Step::new("pay").action("https://pay/charge").compensate("https://pay/refund").payload(exact),
            )
            .step(
                Step::unnamed()
                    .action("")
                    .payload("x")
                    .compensate_payload(&None::<()>)
                    .after(["pay"])
                    .pivot()
                    .header("X-A", "b")
                    .retry_limit(0)
                    .compensate_retry_limit(2)
                    .retry_interval(Duration::from_millis(1500))
                    .request_timeout(Duration::from_secs(3600)),
            );
        assert_eq!(
            saga.definition().unwrap().steps(),
            concat!(
                r#"[{"name":"pay","action":"https://pay/charge","compensate":"https://pay/refund","payload":{"cents":12345678901234567890.1230}},"#,
                r#"{"action":"","after":["pay"],"compensate_payload":null,"compensate_retry_limit":2,"payload":"x","pivot":true,"request_timeout_seconds":3600,"retry_interval_seconds":1.5,"retry_limit":0,"headers":{"X-A":"b"}}]"#
            )
        );
    }

    #[test]
    fn a_background_job_is_a_saga_of_one_step() {
        let steps = Saga::single("participant:mail/send", "ann").definition().unwrap();
        assert_eq!(steps.steps(), r#"[{"name":"job","action":"participant:mail/send","payload":"ann"}]"#);
    }

    #[test]
    fn building_refuses_in_the_words_of_the_insert() {
        let words = |saga: Saga| saga.definition().unwrap_err().to_string();
        assert_eq!(words(Saga::new()), "steps: found 0 steps; allowed: an array of 1 to 1,000 steps");
        let saga = Saga::new().step(Step::new("a").action("http://a"));
        assert_eq!(
            words(saga.clone().retry_interval(Duration::ZERO)),
            "retry_interval: found 0 seconds; allowed: from 0.001 to 86,400 seconds"
        );
        assert_eq!(
            words(saga.clone().request_timeout(Duration::MAX)),
            "request_timeout: found 18446744073709551615.999999 seconds; allowed: from 0.001 to 86,400 seconds"
        );
        assert_eq!(
            words(saga.clone().retry_limit(u32::MAX)),
            "retry_limit: found 4294967295; allowed: a whole number from 0 to 1,000,000"
        );
        assert_eq!(
            words(saga.clone().header("Host", "x")),
            r#"headers "Host": found a header that pgsaga or the transport sets; allowed: any other"#
        );
        assert_eq!(
            words(saga.clone().label("a", "\0")),
            "labels: found a string with \\u0000; allowed: JSON that jsonb can hold"
        );
        let since_1970 = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap();
        assert!(saga.clone().run_at(since_1970(253_402_300_799)).definition().is_ok());
        assert_eq!(
            words(saga.clone().run_at(since_1970(253_402_300_800))),
            "run_at: found a time after the year 9999; allowed: a finite time before the year 10000"
        );
        assert_eq!(
            words(saga.clone().run_at(SystemTime::UNIX_EPOCH - Duration::from_secs(210_866_803_201))),
            "run_at: found a time before the year 4713 BC; allowed: a finite time before the year 10000"
        );
        assert!(saga.clone().run_after(Duration::ZERO).definition().is_ok());
        assert_eq!(
            words(saga.clone().run_after(Duration::from_secs(4_000_000_000))),
            "run_after: found 4000000000 seconds; allowed: up to 3,153,600,000 seconds"
        );
        assert_eq!(
            words(saga.clone().step(Step::new("b").action("").after(["b"]))),
            r#"step "b": after: found "b" itself; allowed: names of other steps of the saga, each once"#
        );
        let keys_are_not_strings: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        assert!(
            words(saga.clone().result_mapping(&keys_are_not_strings))
                .starts_with("result_mapping: found a value that does not become JSON")
        );
        assert!(
            words(saga.step(Step::unnamed().payload(&keys_are_not_strings)))
                .starts_with(r#"step "02": payload: found a value that does not become JSON"#)
        );
    }
}
