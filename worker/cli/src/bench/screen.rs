//! The progress that a person sees during a bench. It goes to standard error, because standard
//! output is for the result.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::words::{count, span};

/// Interval between lines if a spinner cannot be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Screen {
    spinner: ProgressBar,
    last_line: Instant,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        let style = ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        Screen { spinner: ProgressBar::new_spinner().with_style(style), last_line: Instant::now() }
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.last_line = Instant::now();
        if self.spinner.is_hidden() {
            eprintln!("{line}");
        } else {
            self.spinner.println(line);
        }
    }

    /// Shows the progress of a phase, and its number of sagas or calls.
    pub(crate) fn show(&mut self, phase: &str, passed: Duration, of: Option<Duration>, seen: u64) {
        let of = of.map_or_else(String::new, |of| format!(" of {}", span(of)));
        let seconds = Duration::from_secs(passed.as_secs());
        let line = format!("{phase}: {}{of}, {}", span(seconds), count(seen.cast_signed()));
        self.spinner.set_message(line.clone());
        self.spinner.tick();
        if self.spinner.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.say(&line);
        }
    }

    pub(crate) fn finish(&self) {
        self.spinner.finish_and_clear();
    }
}
