//! Claimed rows, and how they become tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::postgres::PgRow;
use sqlx::{Column as _, Row as _};
use tokio::sync::OwnedSemaphorePermit;

use crate::db::Lane;
use crate::definition::{Definition, FreshKeys, SagaColumns};
use crate::metrics::OfQueue;
use crate::outcome::Outcome;
use crate::plan::{Interrupt, Op, Try};
use crate::references::Answers;
use crate::task::Task;
use crate::worker::Worker;

macro_rules! columns {
    ($($column:ident)*) => {
        /// Where the columns of a claim are: looked up by name once a claim, not once a row.
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
    id saga_id epoch step op attempt counted unknown_before last_outcome lost lost_alone bytes interrupt lane waited_us
    deadline_us gid steps headers retry_interval_us retry_limit compensate_retry_limit request_timeout_us timeout_us
    fresh_keys parallel refers requested age_us
}

/// A claimed row, before its definition is decoded.
pub(super) struct Row {
    pub(super) task_id: i64,
    saga_id: i64,
    pub(super) epoch: i32,
    pub(super) lane: i32,
    now: Try,
    lost: i16,
    lost_alone: i16,
    bytes: usize,
    interrupt: Option<Interrupt>,
    requested: bool,
    pub(super) waited_us: i64,
    age: Duration,
    deadline_us: Option<i64>,
    fresh_keys: FreshKeys,
    columns: SagaColumns,
    /// Held from here on: whoever else holds it may be done before this row is decoded.
    known: Option<Arc<Definition>>,
}

impl Row {
    pub(super) fn read(worker: &Worker, at: &Columns, row: &PgRow, task_id: i64) -> Result<Row, sqlx::Error> {
        let word = |at: usize| row.try_get::<Option<&str>, _>(at);
        let wrong = |what: &'static str| sqlx::Error::Decode(what.into());
        let now = Try {
            step: usize::try_from(row.try_get::<i16, _>(at.step)? - 1).unwrap_or(usize::MAX),
            op: word(at.op)?
                .and_then(Op::parse)
                .ok_or_else(|| wrong("op is neither action nor compensate"))?,
            attempt: row.try_get::<i32, _>(at.attempt)?.try_into().unwrap_or(1),
            counted: row.try_get::<i32, _>(at.counted)?.try_into().unwrap_or(0),
            unknown_before: row.try_get(at.unknown_before)?,
            last: word(at.last_outcome)?.and_then(Outcome::parse),
        };
        let interrupt = match word(at.interrupt)? {
            None => None,
            Some(interrupt) => {
                Some(Interrupt::parse(interrupt).ok_or_else(|| wrong("an unknown interrupt"))?)
            }
        };
        let saga_id = row.try_get(at.saga_id)?;
        let parallel = row.try_get(at.parallel)?;
        Ok(Row {
            task_id,
            saga_id,
            known: if parallel { worker.definitions.get(saga_id) } else { None },
            epoch: row.try_get(at.epoch)?,
            lane: row.try_get(at.lane)?,
            now,
            lost: row.try_get(at.lost)?,
            lost_alone: row.try_get(at.lost_alone)?,
            bytes: row.try_get::<i32, _>(at.bytes)?.try_into().unwrap_or(0),
            interrupt,
            requested: row.try_get(at.requested)?,
            waited_us: row.try_get(at.waited_us)?,
            age: Duration::from_micros(row.try_get::<i64, _>(at.age_us)?.try_into().unwrap_or(0)),
            deadline_us: row.try_get(at.deadline_us)?,
            fresh_keys: FreshKeys::read(row.try_get(at.fresh_keys)?)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            columns: SagaColumns {
                gid: row.try_get(at.gid)?,
                steps: row.try_get::<Option<String>, _>(at.steps)?.unwrap_or_default(),
                headers: row.try_get(at.headers)?,
                retry_limit: row.try_get(at.retry_limit)?,
                compensate_retry_limit: row.try_get(at.compensate_retry_limit)?,
                retry_interval_us: row.try_get(at.retry_interval_us)?,
                request_timeout_us: row.try_get(at.request_timeout_us)?,
                timeout_us: row.try_get(at.timeout_us)?,
                parallel,
                refers: row.try_get(at.refers)?,
                result_mapping: None,
            },
        })
    }

    pub(super) fn decode(
        mut self,
        worker: &Worker,
        id: i64,
        queue: &str,
        counted: &Arc<OfQueue>,
        details: &mut HashMap<i64, Details>,
        place: OwnedSemaphorePermit,
    ) -> Result<Box<Task>, String> {
        let mut answers = Answers::default();
        let details = if self.needs_details() {
            Some(details.get_mut(&self.saga_id).ok_or("what it needs of its saga cannot be read")?)
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
                let weight = worker.load.add(self.bytes);
                let saga =
                    Arc::new(Definition::decode(self.columns, weight).map_err(|error| error.to_string())?);
                if parallel {
                    worker.definitions.keep(self.saga_id, &saga);
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
        let ticket = worker.participants.hold(step.participant(self.now.op));
        Ok(Box::new(Task {
            id: self.task_id,
            epoch: self.epoch,
            saga_id: self.saga_id,
            worker: id,
            now: self.now,
            lost: self.lost,
            lost_alone: self.lost_alone,
            interrupt: self.interrupt,
            requested: self.requested,
            deadline: self
                .deadline_us
                .map(|us| Instant::now() + Duration::from_micros(us.try_into().unwrap_or(0))),
            unbuildable: None,
            ticket,
            saga,
            answers,
            fresh_keys: self.fresh_keys,
            queue: worker.queues.hold(queue),
            counted: Arc::clone(counted),
            age: self.age,
            claimed: Instant::now(),
            place,
        }))
    }

    /// Whether it is the first claim of the saga's first step.
    pub(super) fn begins(&self) -> bool {
        self.epoch == 1 && self.now.step == 0 && self.now.op == Op::Action && self.now.attempt == 1
    }

    pub(super) fn needs_details(&self) -> bool {
        self.columns.refers || self.columns.parallel && self.known.is_none()
    }
}

/// What a claim leaves out.
pub(super) struct Details {
    steps: Option<String>,
    result_mapping: Option<String>,
    answers: Answers,
    /// Decoded by the first of its tasks in this claim.
    saga: Option<Arc<Definition>>,
}

impl Details {
    fn read(worker: &Worker, row: &PgRow) -> Result<Details, sqlx::Error> {
        let answers = match row.try_get::<Option<&str>, _>("answers")? {
            Some(text) => Answers::read(text, worker.load.add(text.len()))
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            None => Answers::default(),
        };
        let (steps, result_mapping) = (row.try_get("steps")?, row.try_get("result_mapping")?);
        Ok(Details { steps, result_mapping, answers, saga: None })
    }
}

/// Reads once for all sagas of a claim that need more than their row.
///
/// # Errors
/// What the database says: nothing is wrong with the tasks, and the next claim may read what they need.
pub(super) async fn read_details(
    worker: &Worker,
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
    for row in worker.db.run(Lane::Work, sqlx::query(query::DETAILS).bind(&sagas)).await? {
        let saga: i64 = row.try_get("id")?;
        match Details::read(worker, &row) {
            Ok(read) => drop(details.insert(saga, read)),
            // It alone is handed back as undecodable.
            Err(error) => tracing::error!(saga, %error, "the answers of a saga's steps cannot be read"),
        }
    }
    Ok(details)
}
