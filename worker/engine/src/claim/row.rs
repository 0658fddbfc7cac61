//! Reads claimed rows and converts them to tasks.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::postgres::PgRow;
use sqlx::{Column as _, Row as _};
use tokio::sync::OwnedSemaphorePermit;

use super::Claimer;
use crate::db::PoolKind;
use crate::execute::task::Task;
use crate::execute::task::bounds::within;
use crate::execute::task::definition::{Definition, FreshKeys, SagaColumns};
use crate::execute::task::references::Answers;
use crate::telemetry::metrics::QueueMetrics;
use pgsaga_plan::Outcome;
use pgsaga_plan::{Attempt, Interrupt, Op};

/// Upper bound on the steps of a saga, as in the INSERT.
const STEPS_MAX: i16 = 1_000;
/// Upper bound on attempts. The counter can still grow by another billion without overflow.
const ATTEMPTS_MAX: i32 = 1_000_000_000;
/// Upper bound on the epoch, which each write raises.
const EPOCH_MAX: i32 = 2_000_000_000;
/// Upper bound on lost workers, where a rescue stops counting.
const LOST_MAX: i16 = 30_000;
/// Upper bound on the bytes of a definition, which is the maximum size of a jsonb.
const BYTES_MAX: i32 = 268_435_456;
/// Upper bound on the seconds from an earlier time to now, about 160 years.
const PAST_SECONDS_MAX: f64 = 5e9;
/// Upper bound on the seconds from now to a later time, about the year 9999.
const FUTURE_SECONDS_MAX: f64 = 3e11;

macro_rules! columns {
    ($($column:ident)*) => {
        /// Positions of the columns of a claim's result, looked up once per claim instead of once
        /// per row.
        pub(super) struct Columns {
            $(pub(super) $column: usize,)*
        }

        impl Columns {
            pub(super) fn of(row: &PgRow) -> Result<Columns, sqlx::Error> {
                Ok(Columns { $($column: row.try_column(stringify!($column))?.ordinal(),)* })
            }
        }
    };
}

columns! {
    id saga_id epoch step op attempt counted unknown_before last_outcome lost lost_alone bytes interrupt lane waited
    deadline gid steps headers retry_interval retry_limit compensate_retry_limit request_timeout timeout
    fresh_keys parallel refers requested age
}

/// A claimed row whose definition is not decoded yet.
pub(super) struct Row {
    pub(super) task_id: i64,
    pub(super) saga_id: i64,
    pub(super) epoch: i32,
    pub(super) lane: i32,
    now: Attempt,
    lost: i16,
    lost_isolated: i16,
    bytes: usize,
    interrupt: Option<Interrupt>,
    requested: bool,
    /// Time from due to claimed, by the database's clock.
    pub(super) waited: Duration,
    age: Duration,
    deadline: Option<Instant>,
    fresh_keys: FreshKeys,
    columns: SagaColumns,
    /// Keeps the shared definition alive, because its other tasks may end before this row is
    /// decoded.
    known: Option<Arc<Definition>>,
}

impl Row {
    /// # Errors
    /// The value found in a column, and the values allowed.
    pub(super) fn read(
        claimer: &Claimer,
        worker: i64,
        at: &Columns,
        row: &PgRow,
        task_id: i64,
    ) -> Result<Row, String> {
        fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
            row: &'r PgRow,
            at: usize,
        ) -> Result<T, String> {
            row.try_get(at).map_err(|error| error.to_string())
        }
        let number = |place: &str, at: usize, allowed: RangeInclusive<i32>| {
            let found = within(format_args!("task {task_id}: {place}"), get(row, at)?, allowed)?;
            u32::try_from(found).map_err(|error| error.to_string())
        };
        let small = |place: &str, at: usize, allowed: RangeInclusive<i16>| {
            within(format_args!("task {task_id}: {place}"), get(row, at)?, allowed)
        };
        let word = |at: usize| get::<Option<&str>>(row, at);
        let saga_id: i64 = get(row, at.saga_id)?;
        let Some(gid) = get(row, at.gid)? else {
            return Err(format!("task {task_id}: saga_id: found {saga_id}; allowed: the id of a saga"));
        };
        let now = Attempt {
            step: small("step", at.step, 1..=STEPS_MAX)?.unsigned_abs().into(),
            op: word(at.op)?.and_then(Op::parse).ok_or("op: allowed: action and compensate")?,
            attempt: number("attempt", at.attempt, 1..=ATTEMPTS_MAX)?,
            counted: number("counted", at.counted, 0..=ATTEMPTS_MAX)?,
            unknown_before: get(row, at.unknown_before)?,
            last: word(at.last_outcome)?.and_then(Outcome::parse),
        };
        let now = Attempt { step: now.step - 1, ..now };
        let interrupt = match word(at.interrupt)? {
            None => None,
            Some(word) => Some(Interrupt::parse(word).ok_or("interrupt: allowed: turn, skip and end")?),
        };
        let ago = |place: std::fmt::Arguments<'_>, at: usize| {
            let seconds =
                within(place, get(row, at)?, -FUTURE_SECONDS_MAX..=PAST_SECONDS_MAX).map_err(|_| {
                    format!("{place}: found a time beyond all bounds; allowed: from 1970 to 9999")
                })?;
            // Negative if the database's clock stepped back.
            Ok::<_, String>(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO))
        };
        let deadline = match get::<Option<f64>>(row, at.deadline)? {
            None => None,
            Some(seconds) if (-PAST_SECONDS_MAX..=FUTURE_SECONDS_MAX).contains(&seconds) => {
                let now = Instant::now();
                let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
                now.checked_add(left)
            }
            Some(_) => {
                let place = format!("task {task_id}: deadline");
                return Err(format!("{place}: found a time beyond all bounds; allowed: from 1970 to 9999"));
            }
        };
        let parallel = get(row, at.parallel)?;
        Ok(Row {
            task_id,
            saga_id,
            known: if parallel { claimer.definitions.get(worker, saga_id) } else { None },
            epoch: within(format_args!("task {task_id}: epoch"), get(row, at.epoch)?, 0..=EPOCH_MAX)?,
            lane: get(row, at.lane)?,
            now,
            lost: small("lost", at.lost, 0..=LOST_MAX)?,
            lost_isolated: small("lost_alone", at.lost_alone, 0..=LOST_MAX)?,
            bytes: number("bytes", at.bytes, 0..=BYTES_MAX)? as usize,
            interrupt,
            requested: get(row, at.requested)?,
            waited: ago(format_args!("task {task_id}: run_at"), at.waited)?,
            age: ago(format_args!("created_at"), at.age)?,
            deadline,
            fresh_keys: FreshKeys::read(get(row, at.fresh_keys)?)
                .map_err(|error| format!("fresh_keys: found {error}; allowed: an object of numbers"))?,
            columns: SagaColumns {
                gid,
                steps: get::<Option<String>>(row, at.steps)?.unwrap_or_default(),
                headers: get(row, at.headers)?,
                retry_limit: get(row, at.retry_limit)?,
                compensate_retry_limit: get(row, at.compensate_retry_limit)?,
                retry_interval: get(row, at.retry_interval)?,
                request_timeout: get(row, at.request_timeout)?,
                timeout: get(row, at.timeout)?,
                parallel,
                refers: get(row, at.refers)?,
                result_mapping: None,
            },
        })
    }

    pub(super) fn decode(
        mut self,
        claimer: &Claimer,
        id: i64,
        queue: &str,
        counted: &Arc<QueueMetrics>,
        details: &mut HashMap<i64, Details>,
        place: OwnedSemaphorePermit,
    ) -> Result<Box<Task>, String> {
        let mut answers = Answers::default();
        let details = if self.needs_details() {
            Some(details.get_mut(&self.saga_id).ok_or(
                "history.answer: found what no worker can read; allowed: the JSON that participants answered",
            )?)
        } else {
            None
        };
        if let Some(details) = &details {
            answers = details.answers.clone();
        }
        let shared = details.as_ref().and_then(|details| details.saga.clone());
        let known = self.known.take().or(shared);
        let saga = match known.filter(|_| self.columns.parallel) {
            Some(saga) => saga,
            None => {
                if let Some(details) = &details {
                    self.columns.result_mapping.clone_from(&details.result_mapping);
                    if let Some(steps) = &details.steps {
                        self.columns.steps.clone_from(steps);
                    }
                }
                let parallel = self.columns.parallel;
                let weight = claimer.capacity.memory.add(self.bytes);
                let saga =
                    Arc::new(Definition::decode(self.columns, weight).map_err(|error| error.to_string())?);
                if parallel {
                    claimer.definitions.keep(id, self.saga_id, &saga);
                    if let Some(details) = details {
                        details.saga = Some(Arc::clone(&saga));
                    }
                }
                saga
            }
        };
        let Some(step) = saga.steps.get(self.now.step) else {
            return Err(format!(
                "step {} of a saga with {} steps",
                self.now.step.wrapping_add(1),
                saga.steps.len()
            ));
        };
        let permit = claimer.participants.hold(step.participant(self.now.op));
        Ok(Box::new(Task {
            id: self.task_id,
            epoch: self.epoch,
            saga_id: self.saga_id,
            worker: id,
            now: self.now,
            lost: self.lost,
            lost_isolated: self.lost_isolated,
            interrupt: self.interrupt,
            requested: self.requested,
            deadline: self.deadline,
            unbuildable: None,
            permit,
            saga,
            answers,
            fresh_keys: self.fresh_keys,
            queue: claimer.queues.hold(queue),
            counted: Arc::clone(counted),
            age: self.age,
            claimed: Instant::now(),
            _slot: place,
        }))
    }

    /// Whether this is the first claim of the saga's first step.
    pub(super) fn begins(&self) -> bool {
        self.epoch == 1 && self.now.step == 0 && self.now.op == Op::Action && self.now.attempt == 1
    }

    pub(super) fn gid(&self) -> &str {
        &self.columns.gid
    }

    pub(super) fn needs_details(&self) -> bool {
        self.columns.refers || self.columns.parallel && self.known.is_none()
    }
}

/// Data of a saga that the claim statement does not return.
pub(super) struct Details {
    steps: Option<String>,
    result_mapping: Option<String>,
    answers: Answers,
    /// Decoded by the saga's first task in this claim.
    saga: Option<Arc<Definition>>,
}

impl Details {
    fn read(claimer: &Claimer, row: &PgRow) -> Result<Details, sqlx::Error> {
        let answers = match row.try_get::<Option<&str>, _>("answers")? {
            Some(text) => Answers::read(text, claimer.capacity.memory.add(text.len()))
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            None => Answers::default(),
        };
        let (steps, result_mapping) = (row.try_get("steps")?, row.try_get("result_mapping")?);
        Ok(Details { steps, result_mapping, answers, saga: None })
    }
}

/// Reads the details of all sagas in a claim that need them, in one statement.
///
/// # Errors
/// Any error of the database. The tasks are not at fault, and the next claim may succeed.
pub(super) async fn read_details(
    claimer: &Claimer,
    claimed: &[Row],
) -> Result<HashMap<i64, Details>, sqlx::Error> {
    let mut sagas: Vec<i64> =
        claimed.iter().filter(|row| row.needs_details()).map(|row| row.saga_id).collect();
    sagas.sort_unstable();
    sagas.dedup();
    let mut details = HashMap::with_capacity(sagas.len());
    if sagas.is_empty() {
        return Ok(details);
    }
    for row in claimer.db.run(PoolKind::Work, sqlx::query(query::DETAILS).bind(&sagas)).await? {
        let saga: i64 = row.try_get("id")?;
        match Details::read(claimer, &row) {
            Ok(read) => drop(details.insert(saga, read)),
            // Only this saga becomes stuck.
            Err(error) => tracing::error!(saga, %error, "the answers of a saga's steps cannot be read"),
        }
    }
    Ok(details)
}
