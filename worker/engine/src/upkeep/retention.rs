//! Deletes what finished long ago, where `--retention` asks for it: one worker for all, in small batches. Of each history
//! partition the sagas go first, their history after them: whoever looks meanwhile sees history without a saga, which belongs to
//! nothing, and never a finished saga without its history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Postgres;
use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use crate::db::{Class, Lane};
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;

/// The pause between two passes; shorter where sagas are kept for less than an hour.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often it looks whether it is this worker's duty.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Statements take at most one part in so many of the time while this worker has something to do, and while it has nothing: what
/// a busy day leaves, a quiet night makes up for.
const PART_BUSY: u32 = 20;
const PART_IDLE: u32 = 4;
/// Sagas, and rows of history, that one statement looks at; fewer where they are large.
const SAGAS_MAX: i32 = 1000;
const ROWS_MAX: i32 = 2000;
/// A batch that took longer is followed by one of half its size, one that took less than a quarter by one of twice its size.
const BATCH_TIME_MAX: Duration = Duration::from_millis(100);
/// Sagas of a history partition, as the migrations have it.
const WIDTH: i64 = 1_000_000;
/// Where passes begin is forgotten so often, or as often as sagas get old: a transaction that was open for long may have inserted
/// a saga before it.
const BEGIN_ANEW_EVERY_MAX: Duration = Duration::from_secs(3600);

/// Deletes sagas that finished longer ago than `age`, and their history, until the worker is told to stop.
pub async fn run(worker: Arc<Worker>, age: Duration) {
    tracing::info!(age_s = age.as_secs(), "sagas that finished longer ago are deleted");
    let mut retention = Retention {
        age,
        age_us: age.as_micros().try_into().unwrap_or(i64::MAX),
        sagas: Batch { size: SAGAS_MAX, size_max: SAGAS_MAX },
        rows: Batch { size: ROWS_MAX, size_max: ROWS_MAX },
        begin: Begin { saga: 0, history: 0, since: Instant::now() },
        worker: &worker,
    };
    let mut pause = LOOK_EVERY;
    loop {
        worker.metrics.tick(Loop::Retention);
        tokio::select! {
            () = worker.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (age / 60).min(PAUSE_MAX);
        match retention.pass().await {
            Ok(()) => {}
            Err(BrokenOff::OthersDuty) => pause = LOOK_EVERY,
            Err(BrokenOff::Database(error)) => drop(worker.database_failed("retention", &error)),
        }
    }
}

struct Retention<'a> {
    worker: &'a Worker,
    age: Duration,
    age_us: i64,
    sagas: Batch,
    rows: Batch,
    begin: Begin,
}

/// How much one statement looks at.
struct Batch {
    size: i32,
    size_max: i32,
}

/// The first saga that stays, and the first whose history stays. What was before them left dead index entries, which a pass
/// from the beginning would read again and again until vacuum has removed them.
struct Begin {
    saga: i64,
    history: i64,
    since: Instant,
}

/// What one pass has done.
#[derive(Default)]
struct Pass {
    sagas: i64,
    rows: i64,
    partitions: i64,
    /// The last saga that was looked at.
    last_saga: Option<i64>,
    /// The first that stays, and the first whose history may stay.
    kept_saga: Option<i64>,
    kept_history: Option<i64>,
}

/// What comes after the last saga of a partition that was looked at, and is not deleted.
enum Behind {
    Nothing,
    /// That saga, and others that were inserted too short ago.
    Young(i64),
}

enum BrokenOff {
    /// Another worker's, or nobody's of this release.
    OthersDuty,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for BrokenOff {
    fn from(error: sqlx::Error) -> BrokenOff {
        BrokenOff::Database(error)
    }
}

impl Batch {
    fn took(&mut self, time: Duration) {
        if time > BATCH_TIME_MAX {
            self.halve();
        } else if time < BATCH_TIME_MAX / 4 {
            self.size = (self.size * 2).min(self.size_max);
        }
    }

    fn halve(&mut self) {
        self.size = (self.size / 2).max(1);
    }
}

impl Retention<'_> {
    /// From the oldest saga to those that are too young to have finished long ago.
    async fn pass(&mut self) -> Result<(), BrokenOff> {
        if self.begin.since.elapsed() > self.age.min(BEGIN_ANEW_EVERY_MAX) {
            self.begin = Begin { saga: 0, history: 0, since: Instant::now() };
        }
        let started = Instant::now();
        let mut pass = Pass::default();
        let walked = self.walk(&mut pass).await;
        // Sagas to come have higher ids than those that were seen.
        if let Some(begin) = pass.kept_saga.or(pass.last_saga.map(|last| last + 1)) {
            self.begin.saga = begin;
            // One that stays may have no history yet.
            if walked.is_ok() {
                self.begin.history = pass.kept_history.map_or(begin, |kept| kept.min(begin));
            }
        }
        if pass.sagas + pass.rows + pass.partitions > 0 {
            tracing::info!(
                sagas = pass.sagas,
                history_rows = pass.rows,
                partitions = pass.partitions,
                took_ms = started.elapsed().as_millis() as u64,
                "finished sagas are deleted"
            );
        }
        walked
    }

    async fn walk(&mut self, pass: &mut Pass) -> Result<(), BrokenOff> {
        for row in self.run(sqlx::query(query::HISTORY_PARTITIONS)).await?.0 {
            let part = row.try_get("part")?;
            let last = match self.purge_sagas(part, pass).await? {
                Behind::Nothing => (part + 1) * WIDTH - 1,
                Behind::Young(last) => {
                    self.purge_history(part, last, pass).await?;
                    break;
                }
            };
            if !self.drop_partition(part, pass).await? {
                self.purge_history(part, last, pass).await?;
            }
        }
        Ok(())
    }

    /// The sagas of one partition.
    async fn purge_sagas(&mut self, part: i64, pass: &mut Pass) -> Result<Behind, BrokenOff> {
        let below = (part + 1) * WIDTH;
        let mut after = self.begin.saga.max(part * WIDTH) - 1;
        loop {
            let size = self.sagas.size;
            let statement =
                query::PurgeSagas { age_us: self.age_us, after_id: after, before_id: below, sagas_max: size };
            let (rows, took) = self.run(statement.query()).await.inspect_err(|_| self.sagas.halve())?;
            self.sagas.took(took);
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let (purged, walked): (i32, i32) = (row.try_get("purged")?, row.try_get("walked")?);
            pass.sagas += i64::from(purged);
            self.worker.metrics.purged_sagas.increment(purged.unsigned_abs().into());
            pass.kept_saga = pass.kept_saga.or(row.try_get("kept_id")?);
            if let Some(last) = row.try_get("last_id")? {
                pass.last_saga = Some(last);
                after = last;
            }
            if row.try_get("young")? {
                return Ok(Behind::Young(after));
            }
            if walked < size {
                return Ok(Behind::Nothing);
            }
        }
    }

    async fn drop_partition(&mut self, part: i64, pass: &mut Pass) -> Result<bool, BrokenOff> {
        let rows = match self.run(sqlx::query(query::DROP_HISTORY_PARTITION).bind(part)).await {
            Ok((rows, _)) => rows,
            // Something of somebody depends on it, say: the others can go.
            Err(BrokenOff::Database(error)) if Class::of(&error) == Class::Other => {
                self.worker.database_failed("retention", &error);
                return Ok(false);
            }
            Err(broken_off) => return Err(broken_off),
        };
        let dropped = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("dropped")?;
        if dropped {
            pass.partitions += 1;
            self.worker.metrics.dropped_partitions.increment(1);
        }
        Ok(dropped)
    }

    /// The history of one partition, up to this saga.
    async fn purge_history(&mut self, part: i64, last: i64, pass: &mut Pass) -> Result<(), BrokenOff> {
        let (mut after, mut after_seq) = (self.begin.history.max(part * WIDTH) - 1, i64::MAX);
        loop {
            let size = self.rows.size;
            let statement = query::PurgeHistory {
                age_us: self.age_us,
                partition: part,
                after_saga_id: after,
                after_seq,
                last_saga_id: last,
                rows_max: size,
            };
            let (rows, took) = self.run(statement.query()).await.inspect_err(|_| self.rows.halve())?;
            self.rows.took(took);
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let (purged, walked): (i32, Option<i32>) = (row.try_get("purged")?, row.try_get("walked")?);
            pass.rows += i64::from(purged);
            self.worker.metrics.purged_history_rows.increment(purged.unsigned_abs().into());
            // Where it is soon dropped some of it may lie anywhere.
            let kept = if walked.is_some() { row.try_get("kept_id")? } else { Some(part * WIDTH) };
            pass.kept_history = pass.kept_history.or(kept);
            if walked.is_none_or(|walked| walked < size) {
                return Ok(());
            }
            (after, after_seq) = (row.try_get("walked_id")?, row.try_get("walked_seq")?);
        }
    }

    /// Runs a statement, and rests so long that others are not held up.
    async fn run(
        &self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<(Vec<PgRow>, Duration), BrokenOff> {
        if !self.worker.is_first() || !self.worker.schema.fits() || self.worker.stop.is_cancelled() {
            return Err(BrokenOff::OthersDuty);
        }
        let began = Instant::now();
        let rows = self.worker.db.run(Lane::Control, statement).await?;
        let took = began.elapsed();
        let part = if *self.worker.idle.borrow() { PART_IDLE } else { PART_BUSY };
        tokio::select! {
            () = self.worker.stop.cancelled() => {}
            () = tokio::time::sleep(took * (part - 1)) => {}
        }
        Ok((rows, took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_takes_too_long_or_fails_is_followed_by_a_smaller_one() {
        let mut batch = Batch { size: 1000, size_max: 1000 };
        let mut sizes = Vec::new();
        for took_ms in [10, 101, 99, 25, 24, 24] {
            batch.took(Duration::from_millis(took_ms));
            sizes.push(batch.size);
        }
        assert_eq!(sizes, [1000, 500, 500, 500, 1000, 1000]);
        for _ in 0..20 {
            batch.halve();
        }
        assert_eq!(batch.size, 1);
    }
}
