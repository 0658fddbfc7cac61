//! The progress that a person sees during the demo. It goes to standard error, because standard
//! output is for the result.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::operate::read::row;
use crate::words::count;

/// Interval between lines if bars cannot be drawn.
const LINE_EVERY: Duration = Duration::from_secs(2);

row! {
    /// Number of sagas by their state.
    #[derive(Debug, Clone, Copy)]
    Progress { submitted: i64, succeeded: i64, failed: i64, stuck: i64, }
}

impl Progress {
    /// Number of sagas that will not change any more.
    pub(crate) fn ended(&self) -> u64 {
        (self.succeeded + self.failed + self.stuck).max(0).cast_unsigned()
    }
}

#[derive(Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    submitted: ProgressBar,
    ended: ProgressBar,
    transfers: u64,
    last_line: Instant,
}

impl Screen {
    pub(crate) fn new(transfers: u64) -> Screen {
        let style = |template: &str| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸─")
        };
        let bars = MultiProgress::new();
        let submitted = bars.add(ProgressBar::new(transfers));
        submitted.set_style(style("  submitted {wide_bar:.blue} {human_pos:>7} of {human_len}  {msg:30}"));
        let ended = bars.add(ProgressBar::new(transfers));
        ended.set_style(style("  ended     {wide_bar:.green} {human_pos:>7} of {human_len}  {msg:30}"));
        Screen { bars, submitted, ended, transfers, last_line: Instant::now() }
    }

    pub(crate) fn say(&self, line: &str) {
        if self.bars.is_hidden() || self.bars.println(line).is_err() {
            eprintln!("{line}");
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let Progress { submitted, succeeded, failed, .. } = *progress;
        self.submitted.set_position(submitted.max(0).cast_unsigned());
        self.ended.set_position(progress.ended());
        self.ended.set_message(format!("{} succeeded, {} failed", count(succeeded), count(failed)));
        if self.bars.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let ended = progress.ended();
            eprintln!(
                "{submitted} of {} submitted, {ended} ended: {succeeded} succeeded, {failed} failed",
                self.transfers
            );
        }
    }

    /// Leaves the bars as they are, and continues below them.
    pub(crate) fn finish(&self) {
        self.submitted.abandon();
        self.ended.abandon();
    }
}
