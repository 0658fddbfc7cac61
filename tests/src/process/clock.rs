//! Processes whose wall clock is wrong, by libfaketime.

use std::process::Command;

use crate::tool;

/// How libfaketime is loaded.
#[derive(Debug)]
pub struct Clock {
    preload: String,
}

impl Clock {
    /// Asks `faketime` for its library.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn find() -> Clock {
        let output =
            Command::new(tool("faketime")).args(["-m", "-f", "+1h", "printenv", "LD_PRELOAD"]).output();
        Clock { preload: String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned() }
    }

    /// The environment of a process whose clock is off by `offset`, such as `+10m`. Durations are
    /// measured with the monotonic clock, which no administrator sets.
    pub fn off_by<'a>(&'a self, offset: &'a str) -> [(&'static str, &'a str); 3] {
        [("LD_PRELOAD", &self.preload), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    }
}
