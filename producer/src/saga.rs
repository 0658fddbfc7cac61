use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sqlx::{Executor, Postgres};

use crate::definition::Definition;
use crate::error::Error;
use crate::gid::Gid;
use crate::invalid::Invalid;
use crate::payload::Payload;
use crate::step::Step;
use crate::submit::{Producer, Submitted};
use crate::validate::Columns;

/// A saga to submit: its steps run one after the other, or as their [`Step::after`] says; when one refuses, those that
/// may have taken effect are compensated in the reverse order.
#[derive(Debug, Clone, Default)]
pub struct Saga {
    gid: Option<Gid>,
    steps: Vec<Step>,
    queue: Option<String>,
    priority: Option<u8>,
    start: Start,
    timeout_to_fail: Option<Duration>,
    retry_interval: Option<Duration>,
    retry_limit: Option<u32>,
    compensate_retry_limit: Option<u32>,
    request_timeout: Option<Duration>,
    headers: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    result_mapping: Payload,
}

#[derive(Debug, Clone, Copy, Default)]
enum Start {
    #[default]
    Now,
    At(SystemTime),
    After(Duration),
}

impl Saga {
    /// A saga without steps. Without a gid, the database makes a time-ordered one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the saga, which makes submitting it idempotent: 1 to 128 of the characters `A-Z a-z 0-9 . _ : -`, unique
    /// over all databases that share participants, and never used again.
    pub fn gid(mut self, gid: impl Into<String>) -> Result<Self, Invalid> {
        self.gid = Some(Gid::new(gid)?);
        Ok(self)
    }

    /// Adds a step, to run after the one added before it unless it says otherwise. 1 to 1,000 of them.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The queue, for workers that serve chosen ones: 1 to 64 of the characters `A-Z a-z 0-9 . _ : -`, `default` by default.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// The class in its queue, from 0, the most urgent, to 3; 1 by default.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Not before this time, by the database's clock; before the year 10000. The database keeps microseconds. A time in
    /// the past is now. The last of `run_at` and [`run_after`](Self::run_after) counts.
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.start = Start::At(time);
        self
    }

    /// Not before so long after the INSERT; up to 3,153,600,000 s.
    pub fn run_after(mut self, delay: Duration) -> Self {
        self.start = Start::After(delay);
        self
    }

    /// The deadline, counted from the later of the INSERT and the start: when it passes before the saga has ended, the
    /// saga turns back, once its calls in flight have ended. 1 ms to 31,536,000 s (365 days); none by default.
    /// The database keeps microseconds.
    pub fn timeout_to_fail(mut self, timeout: Duration) -> Self {
        self.timeout_to_fail = Some(timeout);
        self
    }

    /// The wait before the first retry of an op, doubled for each further one: 1 ms to a day, 10 s by default.
    /// The database keeps microseconds.
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval = Some(interval);
        self
    }

    /// Retries of a step's action after its first try, up to 1,000,000; without limit by default.
    pub fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = Some(limit);
        self
    }

    /// Retries of a compensation after its first try, up to 1,000,000; without limit by default. A saga whose compensation
    /// uses them up is stuck until a person decides.
    pub fn compensate_retry_limit(mut self, limit: u32) -> Self {
        self.compensate_retry_limit = Some(limit);
        self
    }

    /// How long one call may take: 1 ms to an hour, 3 s by default. The database keeps microseconds.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// A header of every call, such as `traceparent`. Up to 64.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// A label, for people who look for the saga. Up to 64.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// What becomes the saga's result, with [`answer_of`](crate::answer_of) in it for the answers of any steps; by default
    /// the last step's answer. Up to 1 MiB as Postgres prints it, nested up to 64 deep.
    pub fn result_mapping<T: Serialize + ?Sized>(mut self, mapping: &T) -> Self {
        self.result_mapping = Payload::of(mapping);
        self
    }

    /// Checks the saga, in the words that the INSERT would use.
    pub fn definition(&self) -> Result<Definition, Invalid> {
        for (position, step) in (1..).zip(&self.steps) {
            step.check_payloads(position)?;
        }
        self.result_mapping.check(|| "result_mapping".to_owned())?;
        let (run_at_us, run_after_us) = match self.start {
            Start::Now => (None, None),
            Start::At(time) => (Some(since_1970(time)), None),
            Start::After(delay) => (None, Some(micros(delay))),
        };
        Definition::new(&Columns {
            gid: self.gid.as_ref().map(Gid::as_str),
            steps: &text(&self.steps, "steps")?,
            queue: self.queue.as_deref(),
            priority: self.priority.map(i64::from),
            run_at_us,
            run_after_us,
            timeout_to_fail_us: self.timeout_to_fail.map(micros),
            retry_interval_us: self.retry_interval.map(micros),
            retry_limit: self.retry_limit.map(i64::from),
            compensate_retry_limit: self.compensate_retry_limit.map(i64::from),
            request_timeout_us: self.request_timeout.map(micros),
            headers: strings(&self.headers, "headers")?.as_deref(),
            labels: strings(&self.labels, "labels")?.as_deref(),
            result_mapping: self.result_mapping.text(),
        })
    }

    /// Checks the saga and inserts it: in your transaction when `executor` is one, so that it exists exactly when your
    /// own rows do. A gid that exists already is left as it is, and `created` is false.
    pub async fn submit<'e, E>(&self, executor: E) -> Result<Submitted, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        Producer::default().submit(executor, self).await
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

fn strings(entries: &BTreeMap<String, String>, place: &str) -> Result<Option<String>, Invalid> {
    (!entries.is_empty()).then(|| text(entries, place)).transpose()
}

fn text<T: Serialize + ?Sized>(value: &T, place: &str) -> Result<String, Invalid> {
    serde_json::to_string(value).map_err(|error| {
        Invalid::new(place, format!("a value that does not become JSON ({error})"), "any JSON")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

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
                r#"{"action":"","payload":"x","compensate_payload":null,"after":["pay"],"pivot":true,"headers":{"X-A":"b"},"retry_limit":0,"compensate_retry_limit":2,"retry_interval_seconds":1.5,"request_timeout_seconds":3600}]"#
            )
        );
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
            "request_timeout: found 18446744073709551615.999999 seconds; allowed: from 0.001 to 3,600 seconds"
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
