//! The parts of a saga, each as a struct that is read from a row.

use std::collections::BTreeMap;

use pgsaga_plan::{Attempt, Completion, Interrupt, Op, Outcome, State};
use pgsaga_sql::contract::{STEP_KEYS, SagaStatus, default_step_name};
use pgsaga_worker::db::Time;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::row;
use super::words::{EventKind, later, optional, serialize, serialize_optional, word};

/// The position of a step that cannot exist.
pub(super) const NO_POSITION: usize = usize::MAX;

row! {
    /// The saga's own row, in the order of the JSON keys. JSON columns are Postgres's own text, and
    /// shortened where the saga was not read whole.
    #[derive(Debug, Serialize)]
    Head {
        #[serde(skip)]
        id: i64,
        gid: String,
        status: SagaStatus,
        reason: Option<String>,
        created_at: Time,
        finished_at: Option<Time>,
        queue: String,
        priority: i16,
        paused_at: Option<Time>,
        paused_by: Option<String>,
        run_at: Option<Time>,
        timeout_to_fail_seconds: Option<f64>,
        deadline: Option<Time>,
        #[serde(skip)]
        deadline_us: Option<i64>,
        retry_interval_seconds: f64,
        retry_limit: Option<i32>,
        compensate_retry_limit: Option<i32>,
        compensate_failed: bool,
        request_timeout_seconds: f64,
        abort_reason: Option<String>,
        ending: Option<SagaStatus>,
        format: i16,
        version: i32,
        progress: Option<String>,
        #[serde(serialize_with = "raw")]
        headers: Option<String>,
        #[serde(serialize_with = "raw")]
        labels: Option<String>,
        #[serde(serialize_with = "raw")]
        fresh_keys: Option<String>,
        #[serde(serialize_with = "raw")]
        result_mapping: Option<String>,
        #[serde(serialize_with = "raw")]
        result: Option<String>,
        #[serde(serialize_with = "raw")]
        steps: Option<String>,
        /// Number of workers heard from within their lease.
        #[serde(skip)]
        workers: i64,
        /// Number of those that serve the saga's queue.
        #[serde(skip)]
        serving: i64,
        #[serde(skip)]
        last_seq: Option<i64>,
    }
}

/// Text of Postgres as the JSON that it is, with all the digits of its numbers.
pub(crate) fn raw<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let raw = text.as_deref().map(serde_json::from_str::<&RawValue>);
    raw.transpose().map_err(S::Error::custom)?.serialize(serializer)
}

/// A step as it was defined, and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) action: String,
    pub(crate) compensate: Option<String>,
    /// The first characters of the payload.
    pub(crate) payload: Option<String>,
    pub(crate) pivot: bool,
    /// Positions from 0 of the steps that this one waits for.
    pub(crate) after: Vec<usize>,
    /// The numbers that say how the ops of this step are run, by their keys, as JSON.
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) acted: Tries,
    pub(crate) undone: Tries,
    /// Whether a person counted an op of the step as done.
    pub(crate) skipped: bool,
    pub(crate) state: State,
}

/// A step as the column `steps` holds it. After an edit by hand a key may have any JSON value.
pub(super) struct StepDefinition<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> StepDefinition<'a> {
    pub(super) fn read(row: &'a PgRow) -> Result<Self, sqlx::Error> {
        let text = row.try_get("definition")?;
        serde_json::from_str(text).map(Self).map_err(|error| sqlx::Error::Decode(error.into()))
    }

    fn json(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(|value| value.get())
    }

    fn text(&self, key: &str) -> Option<String> {
        text(self.json(key)?)
    }

    /// The names behind a key; none where there is no array.
    pub(super) fn names(&self, key: &str) -> Option<Vec<String>> {
        let values: Vec<&RawValue> = serde_json::from_str(self.json(key)?).unwrap_or_default();
        Some(values.into_iter().filter_map(|value| text(value.get())).collect())
    }
}

/// What Postgres's operator `->>` makes of a value.
fn text(json: &str) -> Option<String> {
    match serde_json::from_str(json) {
        Ok(text) => text,
        Err(_) => Some(json.to_owned()),
    }
}

impl Step {
    /// Reads the step at `index`, from 0. What it waits for and where it stands follow from the
    /// other steps, and are set later.
    pub(super) fn read(index: usize, keys: &StepDefinition<'_>, row: &PgRow) -> Result<Step, sqlx::Error> {
        let settings = STEP_KEYS.iter().filter(|key| key.is_setting());
        Ok(Step {
            name: keys.text("name").unwrap_or_else(|| default_step_name(index + 1)),
            action: keys.text("action").unwrap_or_default(),
            compensate: keys.text("compensate"),
            payload: row.try_get("payload")?,
            pivot: keys.json("pivot") == Some("true"),
            after: Vec::new(),
            settings: settings.filter_map(|key| Some((key.name, keys.json(key.name)?.to_owned()))).collect(),
            acted: tries(row, Op::Action)?,
            undone: tries(row, Op::Compensate)?,
            skipped: row.try_get("skipped")?,
            state: State::Waiting,
        })
    }

    /// The value of a key in `settings`; `None` if the step lacks it, or it is no number.
    pub(crate) fn setting(&self, key: &str) -> Option<f64> {
        self.settings.iter().find(|(name, _)| *name == key)?.1.parse().ok()
    }

    /// Whether the action waits for a completion instead of calling somebody.
    pub(crate) fn waits(&self) -> bool {
        self.settings.iter().any(|(name, _)| *name == "wait_seconds")
    }

    pub(crate) fn tries(&self, op: Op) -> &Tries {
        match op {
            Op::Action => &self.acted,
            Op::Compensate => &self.undone,
        }
    }
}

/// What came of an op of a step.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tries {
    pub(crate) tries: i64,
    pub(crate) succeeded: bool,
    /// Whether every try was definitely refused or never left. Only then may a retry use a fresh
    /// key.
    pub(crate) refused: bool,
    pub(crate) may_have_happened: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) status_code: Option<i16>,
    pub(crate) message: Option<String>,
}

fn tries(row: &PgRow, op: Op) -> Result<Tries, sqlx::Error> {
    let column = |name: &str| format!("{}_{name}", op.as_str());
    let is = |name: &str| row.try_get::<bool, _>(&*column(name));
    let last = Attempt {
        unknown_before: is("unknown")?,
        last: optional(row, &column("last_sent"))?,
        ..Attempt::first(0, op)
    };
    Ok(Tries {
        tries: row.try_get(&*column("tries"))?,
        succeeded: is("done")?,
        refused: is("refused")?,
        may_have_happened: last.may_have_taken_effect(),
        outcome: optional(row, &column("outcome"))?,
        status_code: row.try_get(&*column("status_code"))?,
        message: row.try_get(&*column("message"))?,
    })
}

row! {
    /// A queued try.
    #[derive(Debug, Serialize)]
    Task {
        #[serde(rename = "step")]
        name: String => later,
        /// The step's position from 0.
        #[serde(skip)]
        step: usize => position,
        #[serde(serialize_with = "serialize")]
        op: Op => word,
        attempt: i32,
        counted: i32,
        participant: String,
        /// Number of living workers that may not call the participant, and why one of them may not.
        #[serde(rename = "denied_by_workers")]
        denied_by: i64,
        denied: Option<String>,
        /// No living worker serves the named participant.
        unserved: bool,
        #[serde(serialize_with = "serialize_optional")]
        interrupt: Option<Interrupt> => optional,
        #[serde(serialize_with = "serialize_optional")]
        completion: Option<Completion> => optional,
        /// The end of the wait for a completion.
        wait_ends_at: Option<Time>,
        #[serde(skip)]
        wait_left_ms: i64,
        worker: Option<i64>,
        host: Option<String>,
        pid: Option<i32>,
        #[serde(rename = "lost_workers")]
        lost: i16,
        /// What the running handler has reported last.
        progress: Option<String>,
        run_at: Time,
        due_ms: i64,
        #[serde(skip)]
        format: i16,
        #[serde(skip)]
        seen_us: Option<i64>,
        #[serde(skip)]
        held_us_max: i64,
    }
}

row! {
    /// A step that waits for a person.
    #[derive(Debug, Serialize)]
    Stuck {
        step: String,
        /// The step's position from 0; absent where an early release did not write it.
        #[serde(skip)]
        position: Option<usize> => optional_position,
        #[serde(serialize_with = "serialize_optional")]
        op: Option<Op> => optional,
        attempt: Option<i32>,
        reason: String,
        at: Time,
        #[serde(skip)]
        since_us: i64,
    }
}

row! {
    /// A line of the timeline: a try, a run of tries that ended alike, a decision, or the deadline.
    #[derive(Debug)]
    Line {
        kind: EventKind => word,
        step: Option<usize> => optional_position,
        op: Option<Op> => optional,
        outcome: Option<Outcome> => optional,
        status_code: Option<i16>,
        at: Time,
        until: Time,
        tries: i64,
        attempt: Option<i32>,
        last_attempt: Option<i32>,
        duration_us_min: Option<i32>,
        duration_us_max: Option<i32>,
        wait_us_min: Option<i64>,
        wait_us_max: Option<i64>,
        message: Option<String>,
        decision: Option<String>,
        decided_by: Option<String>,
        /// Number of this line, from 1, counted with the lines that are left out.
        place: i64,
        tries_so_far: i64,
        successes_so_far: i64,
    }
}

/// A position in `pgsaga.saga.steps` from 0. A number below 1, which a person may have written, is
/// no position.
fn position(row: &PgRow, column: &str) -> Result<usize, sqlx::Error> {
    Ok(from_1(row.try_get(column)?))
}

pub(super) fn optional_position(row: &PgRow, column: &str) -> Result<Option<usize>, sqlx::Error> {
    Ok(row.try_get::<Option<i16>, _>(column)?.map(from_1))
}

fn from_1(position: i16) -> usize {
    usize::try_from(i32::from(position) - 1).unwrap_or(NO_POSITION)
}

impl Task {
    /// Whether it waits for its next try.
    pub(crate) fn waits(&self) -> bool {
        self.worker.is_none() && self.due_ms > 0 && !self.waits_for_completion()
    }

    /// Whether it waits for a completion that has not come.
    pub(crate) fn waits_for_completion(&self) -> bool {
        self.wait_left_ms > 0 && self.completion.is_none() && self.interrupt.is_none()
    }
}
