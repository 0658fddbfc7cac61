//! What a claim says about the lanes that it scanned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Claimer;
use crate::telemetry::metrics::QueueMetrics;
use crate::wake::watermark::Seen;

/// What a worker knows of a lane that a claim scanned.
pub(super) struct Scanned {
    pub(super) queue: String,
    pub(super) priority: i16,
    pub(super) counted: Arc<QueueMetrics>,
}

/// State of the lanes that a claim scanned.
#[derive(Default)]
pub(super) struct LaneReport {
    pub(super) scanned: HashMap<i32, Scanned>,
    /// Lanes with an unclaimed task that is due.
    pub(super) due: Vec<i32>,
    /// Seconds until the next task is due.
    pub(super) next_due: Option<f64>,
    /// Seconds since the oldest unclaimed task was due.
    pub(super) oldest: f64,
    /// Time until a claim should look behind the watermark of a lane.
    look_back: Option<Duration>,
}

impl LaneReport {
    /// Returns the time until the next claim is worthwhile.
    pub(super) fn next_due(&self) -> Option<Duration> {
        // A time that `Duration` cannot represent counts as never.
        let until = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        self.next_due.and_then(until).into_iter().chain(self.look_back).min()
    }

    pub(super) fn learn(
        &mut self,
        claimer: &Claimer,
        header: &PgRow,
        row: &PgRow,
    ) -> Result<(), sqlx::Error> {
        // If no lane is served, there is a single row without a lane.
        let Some(lane) = row.try_get::<Option<i32>, _>("lane")? else { return Ok(()) };
        let seen = Seen {
            now: header.try_get("now")?,
            running: header.try_get("running")?,
            xmax: header.try_get("xmax")?,
            from: row.try_get("watermark")?,
            lowest: row.try_get("lowest")?,
        };
        let look_back = claimer.watermarks.learn(lane, &seen);
        self.look_back = self.look_back.into_iter().chain(look_back).min();
        let queue: String = row.try_get("queue")?;
        let counted = claimer.metrics.queue(&queue);
        self.scanned.insert(lane, Scanned { queue, priority: row.try_get("priority")?, counted });
        let next_due: Option<f64> = row.try_get("next_due")?;
        let oldest: Option<f64> = row.try_get("oldest")?;
        if oldest.is_some_and(|oldest| oldest >= 0.0) {
            self.due.push(lane);
        }
        self.next_due = self.next_due.into_iter().chain(next_due).reduce(f64::min);
        self.oldest = self.oldest.max(oldest.unwrap_or(0.0));
        Ok(())
    }
}

#[cfg(test)]
impl LaneReport {
    /// What a claim would say of these lanes.
    pub(super) fn with(lanes: impl Iterator<Item = i32>, due: &[i32]) -> LaneReport {
        use crate::telemetry::metrics::{Metrics, Series};

        let counted = Metrics::new(&Series::default()).queue("q");
        let scanned =
            |lane| (lane, Scanned { queue: String::new(), priority: 1, counted: Arc::clone(&counted) });
        LaneReport { scanned: lanes.map(scanned).collect(), due: due.to_vec(), ..LaneReport::default() }
    }
}
