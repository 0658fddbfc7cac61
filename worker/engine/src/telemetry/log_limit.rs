//! Bounds the lines of one kind in the log. An outage would otherwise write a line for each call.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(1);
/// Upper bound on the lines of one kind in one period.
const LINES_MAX: u32 = 10;

/// The lines of one kind.
#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<Period>);

#[derive(Debug)]
struct Period {
    began: Instant,
    lines: u32,
    left_out: u64,
}

/// A line that may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// The number of lines left out since the last one; `None` for none.
    pub(crate) left_out: Option<u64>,
}

impl Default for LogLimit {
    fn default() -> LogLimit {
        LogLimit(Mutex::new(Period { began: Instant::now(), lines: 0, left_out: 0 }))
    }
}

impl LogLimit {
    /// Returns the next line, or counts it as left out.
    pub(crate) fn next(&self) -> Option<Line> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if period.began.elapsed() >= PERIOD {
            (period.began, period.lines) = (Instant::now(), 0);
        }
        if period.lines == LINES_MAX {
            period.left_out += 1;
            return None;
        }
        period.lines += 1;
        let left_out = std::mem::take(&mut period.left_out);
        Some(Line { left_out: (left_out > 0).then_some(left_out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_lines_a_second_pass_and_the_next_one_counts_the_others() {
        let limit = LogLimit::default();
        let passed = (0..1000).filter_map(|_| limit.next()).collect::<Vec<_>>();
        assert_eq!(passed, vec![Line { left_out: None }; 10]);
        tokio::time::advance(PERIOD).await;
        assert_eq!(limit.next(), Some(Line { left_out: Some(990) }));
        assert_eq!(limit.next(), Some(Line { left_out: None }));
    }
}
