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
use super::lanes::Scanned;
use crate::db::PoolKind;
use crate::execute::task::Task;
use crate::execute::task::bounds::within;
use crate::execute::task::definition::{Definition, FreshKeys, SagaColumns};
use crate::execute::task::references::Answers;
use crate::execute::task::report::Report;
use crate::flow::participants::Lane;
use pgsaga_plan::{Attempt, Completion, Interrupt, Op, Word};

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

/// Upper bound on the seconds from now to a later time, and the times allowed, in words.
type Future = (f64, &'static str);
const ANY_TIME: Future = (FUTURE_SECONDS_MAX, "from 1970 to 9999");
/// The bound of the INSERT, and a day for clocks that were set back.
const END_OF_WAIT: Future = (366.0 * 86_400.0, "up to 365 days from now");

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
    id saga_id epoch step op attempt counted unknown_before last_outcome lost lost_isolated bytes interrupt
    completion lane waited deadline wait_left gid steps headers retry_interval retry_limit compensate_retry_limit request_timeout timeout
    fresh_keys compensate_failed parallel refers requested age
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
    pub(super) completion: Option<Completion>,
    wait_ends: Option<Instant>,
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

/// Reads the columns of one row, and says of a bad value what is allowed.
struct Reader<'r> {
    row: &'r PgRow,
    at: &'r Columns,
    task_id: i64,
}

impl<'r> Reader<'r> {
    fn get<T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
        &self,
        at: usize,
    ) -> Result<T, String> {
        self.row.try_get(at).map_err(|error| error.to_string())
    }

    fn number(&self, place: &str, at: usize, allowed: RangeInclusive<i32>) -> Result<u32, String> {
        let found = within(self.place(place), self.get(at)?, allowed)?;
        u32::try_from(found).map_err(|error| error.to_string())
    }

    fn small(&self, place: &str, at: usize, allowed: RangeInclusive<i16>) -> Result<i16, String> {
        within(self.place(place), self.get(at)?, allowed)
    }

    /// A word of an enum. `None` where the column is null.
    fn word<T: Word>(&self, column: &str, at: usize) -> Result<Option<T>, String> {
        let Some(found) = self.get::<Option<&str>>(at)? else { return Ok(None) };
        T::of(found).map(Some).ok_or_else(|| {
            let allowed: Vec<_> = T::VALUES.iter().map(|value| value.word()).collect();
            format!("{}: found {found:?}; allowed: {}", self.place(column), allowed.join(", "))
        })
    }

    /// The time since a moment of the past.
    fn ago(&self, place: String, at: usize) -> Result<Duration, String> {
        let seconds = self.get::<f64>(at)?;
        if !(-FUTURE_SECONDS_MAX..=PAST_SECONDS_MAX).contains(&seconds) {
            return Err(beyond(&place, ANY_TIME.1));
        }
        // Negative if the database's clock stepped back.
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO))
    }

    /// A later time, by this process's clock. `None` where the column is null.
    fn later(
        &self,
        column: &str,
        at: usize,
        (seconds_max, allowed): Future,
    ) -> Result<Option<Instant>, String> {
        let Some(seconds) = self.get::<Option<f64>>(at)? else { return Ok(None) };
        if !(-PAST_SECONDS_MAX..=seconds_max).contains(&seconds) {
            return Err(beyond(&self.place(column), allowed));
        }
        let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
        Ok(Instant::now().checked_add(left))
    }

    fn attempt(&self) -> Result<Attempt, String> {
        let at = self.at;
        let step: usize = self.small("step", at.step, 1..=STEPS_MAX)?.unsigned_abs().into();
        let op: Option<Op> = self.word("op", at.op)?;
        Ok(Attempt {
            step: step - 1,
            op: op.ok_or_else(|| format!("{}: found none", self.place("op")))?,
            attempt: self.number("attempt", at.attempt, 1..=ATTEMPTS_MAX)?,
            counted: self.number("counted", at.counted, 0..=ATTEMPTS_MAX)?,
            unknown_before: self.get(at.unknown_before)?,
            last: self.word("last_outcome", at.last_outcome)?,
        })
    }

    fn saga(&self, gid: String) -> Result<SagaColumns, String> {
        let at = self.at;
        Ok(SagaColumns {
            gid,
            steps: self.get::<Option<String>>(at.steps)?.unwrap_or_default(),
            headers: self.get(at.headers)?,
            retry_limit: self.get(at.retry_limit)?,
            compensate_retry_limit: self.get(at.compensate_retry_limit)?,
            retry_interval: self.get(at.retry_interval)?,
            request_timeout: self.get(at.request_timeout)?,
            timeout: self.get(at.timeout)?,
            compensate_failed: self.get(at.compensate_failed)?,
            parallel: self.get(at.parallel)?,
            refers: self.get(at.refers)?,
            result_mapping: None,
        })
    }

    fn place(&self, column: &str) -> String {
        format!("task {}: {column}", self.task_id)
    }
}

fn beyond(place: &str, allowed: &str) -> String {
    format!("{place}: found a time beyond all bounds; allowed: {allowed}")
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
        let reader = Reader { row, at, task_id };
        let saga_id: i64 = reader.get(at.saga_id)?;
        let Some(gid) = reader.get(at.gid)? else {
            return Err(format!("task {task_id}: saga_id: found {saga_id}; allowed: the id of a saga"));
        };
        let columns = reader.saga(gid)?;
        let known = if columns.parallel { claimer.definitions.get(worker, saga_id) } else { None };
        Ok(Row {
            task_id,
            saga_id,
            known,
            epoch: within(reader.place("epoch"), reader.get(at.epoch)?, 0..=EPOCH_MAX)?,
            lane: reader.get(at.lane)?,
            now: reader.attempt()?,
            lost: reader.small("lost", at.lost, 0..=LOST_MAX)?,
            lost_isolated: reader.small("lost_isolated", at.lost_isolated, 0..=LOST_MAX)?,
            bytes: reader.number("bytes", at.bytes, 0..=BYTES_MAX)? as usize,
            interrupt: reader.word("interrupt", at.interrupt)?,
            requested: reader.get(at.requested)?,
            waited: reader.ago(reader.place("run_at"), at.waited)?,
            age: reader.ago("created_at".to_owned(), at.age)?,
            deadline: reader.later("deadline", at.deadline, ANY_TIME)?,
            completion: reader.word("completion", at.completion)?,
            wait_ends: reader.later("wait_ends_at", at.wait_left, END_OF_WAIT)?,
            fresh_keys: FreshKeys::read(reader.get(at.fresh_keys)?)
                .map_err(|error| format!("fresh_keys: found {error}; allowed: an object of numbers"))?,
            columns,
        })
    }

    pub(super) fn decode(
        mut self,
        claimer: &Claimer,
        id: i64,
        scanned: &Scanned,
        Known { details, reports }: &mut Known,
        slot: OwnedSemaphorePermit,
    ) -> Result<Box<Task>, String> {
        let report = reports.remove(&self.task_id).map(Box::new);
        let details = match self.needs_details() {
            true => Some(details.get_mut(&self.saga_id).ok_or(
                "history.answer: found what no worker can read; allowed: the JSON that participants answered",
            )?),
            false => None,
        };
        let answers = details.as_ref().map_or_else(Answers::default, |details| details.answers.clone());
        let saga = self.definition(claimer, id, details)?;
        let Some(step) = saga.steps.get(self.now.step) else {
            return Err(format!(
                "step {} of a saga with {} steps",
                self.now.step.wrapping_add(1),
                saga.steps.len()
            ));
        };
        let lane = Lane { id: self.lane, priority: scanned.priority };
        let permit = claimer.participants.hold(step.participant(self.now.op), lane);
        Ok(Box::new(Task {
            id: self.task_id,
            epoch: self.epoch,
            saga_id: self.saga_id,
            worker: id,
            now: self.now,
            lost: self.lost,
            lost_isolated: self.lost_isolated,
            interrupt: self.interrupt,
            report,
            wait_ends: self.wait_ends,
            requested: self.requested,
            deadline: self.deadline,
            unbuildable: None,
            permit,
            saga,
            answers,
            fresh_keys: self.fresh_keys,
            queue: claimer.queues.hold(&scanned.queue),
            counted: Arc::clone(&scanned.counted),
            age: self.age,
            claimed: Instant::now(),
            _slot: slot,
        }))
    }

    /// The saga's definition: of a parallel saga the shared one, if a task holds it.
    fn definition(
        &mut self,
        claimer: &Claimer,
        id: i64,
        details: Option<&mut Details>,
    ) -> Result<Arc<Definition>, String> {
        let mut columns = std::mem::take(&mut self.columns);
        let shared = details.as_ref().and_then(|details| details.saga.clone());
        if let Some(saga) = self.known.take().or(shared).filter(|_| columns.parallel) {
            return Ok(saga);
        }
        if let Some(details) = &details {
            columns.result_mapping.clone_from(&details.result_mapping);
            if let Some(steps) = &details.steps {
                columns.steps.clone_from(steps);
            }
        }
        let parallel = columns.parallel;
        let memory = claimer.capacity.memory.add(self.bytes);
        let saga = Arc::new(Definition::decode(columns, memory).map_err(|error| error.to_string())?);
        if parallel {
            claimer.definitions.keep(id, self.saga_id, &saga);
            if let Some(details) = details {
                details.saga = Some(Arc::clone(&saga));
            }
        }
        Ok(saga)
    }

    /// Whether this is the first claim of the saga's first step.
    pub(super) fn begins(&self) -> bool {
        self.epoch == 1 && self.now.step == 0 && self.now.op == Op::Action
    }

    pub(super) fn gid(&self) -> &str {
        &self.columns.gid
    }

    /// Whether the statement has not returned all that its task needs.
    pub(super) fn is_partial(&self) -> bool {
        self.completion.is_some() || self.needs_details()
    }

    fn needs_details(&self) -> bool {
        self.columns.refers || self.columns.parallel && self.known.is_none()
    }
}

/// What the claim statement does not return of its tasks.
#[derive(Default)]
pub(super) struct Known {
    /// By saga.
    details: HashMap<i64, Details>,
    /// By task.
    reports: HashMap<i64, Report>,
}

impl Known {
    /// Reads what the rows of a claim need, in one statement each.
    ///
    /// # Errors
    /// Any error of the database. The tasks are not at fault, and the next claim may succeed.
    pub(super) async fn read(claimer: &Claimer, claimed: &[Row]) -> Result<Known, sqlx::Error> {
        let marked = claimed.iter().filter_map(|row| Some((row.task_id, row.completion?))).collect();
        let reports = Report::read_all(&claimer.db, &marked).await?;
        Ok(Known { details: read_details(claimer, claimed).await?, reports })
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

/// Reads the details of all sagas in a claim that need them.
async fn read_details(claimer: &Claimer, claimed: &[Row]) -> Result<HashMap<i64, Details>, sqlx::Error> {
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
