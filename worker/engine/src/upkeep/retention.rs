//! Deletes sagas that finished long ago, with `--retention`. One worker deletes for all, in small
//! batches. In each history partition, sagas are deleted before their history. A concurrent reader
//! therefore never sees a finished saga without its history, only history without a saga.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Postgres;
use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use tokio_util::sync::CancellationToken;

use crate::db::{Class, Db, PoolKind};
use crate::liveness::membership::Membership;
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;

use super::refused::{Refused, Said};

/// Upper bound on the pause between two passes. The pause is shorter for a retention below one
/// hour.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Interval at which a worker checks whether retention is its duty.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Upper bound on the share of time that statements take, as a divisor: one part in 20 while this
/// worker is busy, one in 4 while it is idle. Quiet nights catch up on busy days.
const PART_BUSY: u32 = 20;
const PART_IDLE: u32 = 4;
/// Upper bounds on the sagas and history rows that one statement scans. Batches are smaller if rows
/// are large.
const SAGAS_MAX: i32 = 1000;
const ROWS_MAX: i32 = 2000;
/// Target duration of a batch. After a longer batch, the size is halved. After a batch of less than
/// a quarter of this time, the size is doubled.
const BATCH_TIME_MAX: Duration = Duration::from_millis(100);
/// Sagas of a history partition, as in `make_history_partitions`.
const WIDTH: i64 = 1_000_000;
/// Upper bound on the interval at which passes start from the beginning again; the retention, if
/// that is shorter. A transaction that was open for a long time may have inserted a saga before the
/// start.
const BEGIN_ANEW_EVERY_MAX: Duration = Duration::from_secs(3600);

/// The loop that deletes finished sagas.
pub(crate) struct Retention {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) stop: CancellationToken,
    /// Sagas that finished longer ago are deleted.
    pub(crate) age: Duration,
}

/// How far the passes of one worker have come.
struct Purge {
    retention: Retention,
    age_us: i64,
    sagas: Batch,
    rows: Batch,
    begin: Begin,
    said: Said,
}

impl Retention {
    /// Deletes sagas that finished longer ago than the age, and their history, until the worker is
    /// told to stop.
    pub(crate) async fn run(self) {
        let age = self.age;
        tracing::info!(age_s = age.as_secs(), "sagas that finished longer ago are deleted");
        let mut purge = Purge {
            age_us: age.as_micros().try_into().unwrap_or(i64::MAX),
            sagas: Batch { size: SAGAS_MAX, size_max: SAGAS_MAX },
            rows: Batch { size: ROWS_MAX, size_max: ROWS_MAX },
            begin: Begin { saga: 0, history: 0, since: Instant::now() },
            said: Said::default(),
            retention: self,
        };
        let mut pause = LOOK_EVERY;
        loop {
            purge.retention.metrics.ticks.retention.increment(1);
            tokio::select! {
                () = purge.retention.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (age / 60).min(PAUSE_MAX);
            match purge.pass().await {
                Ok(()) => {}
                Err(BrokenOff::OthersDuty) => {
                    Refused::default().measure(&purge.retention.metrics);
                    pause = LOOK_EVERY;
                }
                Err(BrokenOff::Database(error)) => {
                    purge.retention.db.failed("retention", &error);
                }
            }
        }
    }
}

/// Size of the next batch, adapted to the last duration.
struct Batch {
    size: i32,
    size_max: i32,
}

/// The first saga that stays, and the first saga whose history stays. Earlier rows left dead index
/// entries. A pass from the beginning would read them again until they are vacuumed.
struct Begin {
    saga: i64,
    history: i64,
    since: Instant,
}

#[derive(Default)]
struct Pass {
    sagas: i64,
    rows: i64,
    partitions: i64,
    /// The last saga that was scanned.
    last_saga: Option<i64>,
    /// The first saga that stays, and the first saga whose history may stay.
    kept_saga: Option<i64>,
    kept_history: Option<i64>,
    refused: Refused,
}

/// State after the last scanned saga of a partition.
enum Behind {
    Nothing,
    /// This saga and later ones were inserted too recently.
    Young(i64),
}

enum BrokenOff {
    /// Retention is the duty of another worker, or the schema has no known version.
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

/// The first saga id behind a partition. Bounded, because the last partition ends with the largest
/// id.
fn behind(part: i64) -> i64 {
    part.saturating_add(1).saturating_mul(WIDTH)
}

impl Purge {
    /// Scans from the oldest saga to the first one that is too young to have finished long ago.
    async fn pass(&mut self) -> Result<(), BrokenOff> {
        if self.begin.since.elapsed() > self.retention.age.min(BEGIN_ANEW_EVERY_MAX) {
            self.begin = Begin { saga: 0, history: 0, since: Instant::now() };
        }
        let started = Instant::now();
        let mut pass = Pass::default();
        let walked = self.walk(&mut pass).await;
        // Later sagas get higher ids than the scanned ones.
        // control: purge-begins
        if let Some(begin) = pass.kept_saga.or(pass.last_saga.map(|last| last + 1)) {
            self.begin.saga = begin;
            // A saga that stays may have no history yet.
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
        if walked.is_ok() {
            pass.refused.measure(&self.retention.metrics);
            self.said.say(pass.refused);
        }
        walked
    }

    async fn walk(&mut self, pass: &mut Pass) -> Result<(), BrokenOff> {
        for row in self.run(sqlx::query(query::HISTORY_PARTITIONS)).await?.0 {
            let part = row.try_get("part")?;
            let last = match self.purge_sagas(part, pass).await? {
                Behind::Nothing => behind(part).saturating_sub(1),
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

    /// Deletes the old sagas of one partition.
    async fn purge_sagas(&mut self, part: i64, pass: &mut Pass) -> Result<Behind, BrokenOff> {
        let below = behind(part);
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
            self.retention.metrics.purged_sagas.increment(purged.unsigned_abs().into());
            pass.kept_saga = pass.kept_saga.or(row.try_get("kept_id")?);
            pass.refused.sagas += i64::from(row.try_get::<i32, _>("refused")?);
            if let Some(gid) = row.try_get::<Option<String>, _>("refused_gid")? {
                pass.refused.name(|| format!("saga {gid}"), row.try_get("refused_why")?);
            }
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
            // For example, a user's object depends on the partition. The other partitions can be
            // dropped.
            Err(BrokenOff::Database(error)) if matches!(Class::of(&error), Class::Data | Class::Other) => {
                self.retention.db.count(&error);
                pass.refused.partitions += 1;
                pass.refused.name(|| format!("partition history_{part}"), error.to_string());
                return Ok(false);
            }
            Err(broken_off) => return Err(broken_off),
        };
        let dropped = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("dropped")?;
        if dropped {
            pass.partitions += 1;
            self.retention.metrics.dropped_partitions.increment(1);
        }
        Ok(dropped)
    }

    /// Deletes the history of one partition, up to the saga `last`.
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
            self.retention.metrics.purged_history_rows.increment(purged.unsigned_abs().into());
            // `walked` is null if the partition is soon dropped. Remaining rows may then be
            // anywhere in it.
            let kept = if walked.is_some() { row.try_get("kept_id")? } else { Some(part * WIDTH) };
            pass.kept_history = pass.kept_history.or(kept);
            pass.refused.histories += i64::from(row.try_get::<i32, _>("refused")?);
            if let Some(saga_id) = row.try_get::<Option<i64>, _>("refused_id")? {
                pass.refused.name(|| format!("history of saga id {saga_id}"), row.try_get("refused_why")?);
            }
            if walked.is_none_or(|walked| walked < size) {
                return Ok(());
            }
            (after, after_seq) = (row.try_get("walked_id")?, row.try_get("walked_seq")?);
        }
    }

    /// Runs a statement, and then pauses to limit the load on the database.
    async fn run(
        &self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<(Vec<PgRow>, Duration), BrokenOff> {
        // control: purge-duty
        if !self.retention.membership.is_duty_worker()
            || !self.retention.membership.fits()
            || self.retention.stop.is_cancelled()
        {
            return Err(BrokenOff::OthersDuty);
        }
        let began = Instant::now();
        let rows = self.retention.db.run(PoolKind::Control, statement).await?;
        let took = began.elapsed();
        let part = if *self.retention.wakeups.idle.borrow() { PART_IDLE } else { PART_BUSY };
        tokio::select! {
            () = self.retention.stop.cancelled() => {}
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
