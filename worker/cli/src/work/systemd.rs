//! The states that a worker reports to systemd if systemd asks for them (`Type=notify`,
//! `WatchdogSec=`; sd_notify(3)).
//!
//! A process is alive if its timers fire and its heartbeat loop makes progress. Each statement of
//! that loop has a timeout, so the loop also makes progress during an outage of Postgres, and an
//! outage restarts no worker. A process is ready if `/readyz` says so. If a process serves several
//! databases, every loop must make progress, and every worker must be ready.

use std::env;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use pgsaga_worker::{WorkerStatus, not_ready};

/// Interval at which the workers' states are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Lower bound on that interval, however short the watchdog's time is.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// Interval at which a start that waits for Postgres asks systemd for more time. Systemd waits as
/// long as the process lives.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTENSION: Duration = Duration::from_secs(30);
/// Upper bound on the time of a drain after the grace period, with a margin (see `run`).
const AFTER_GRACE_MAX: Duration = Duration::from_secs(15);
/// Upper bound on the statements of one iteration of the heartbeat loop. An iteration that takes as
/// long as this many timeouts will not end.
const STATEMENTS_MAX: u32 = 6;

/// Upper bound on the time to send the last message.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Assignments of sd_notify(3), such as `READY=1`.
type Words = Vec<String>;

#[derive(Debug)]
pub(crate) struct Systemd {
    words: Sender<Words>,
    said: oneshot::Receiver<()>,
    /// Time without a message after which systemd kills the worker.
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Reads the environment; `None` if systemd asked for nothing. `WATCHDOG_PID` names the process
    /// that the watchdog is for.
    pub(crate) fn from_env() -> io::Result<Option<Systemd>> {
        if env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
            return Ok(None);
        }
        let (words, to_say) = channel();
        let (saying, said) = oneshot::channel::<()>();
        // The socket blocks while systemd does not read, so it has a thread of its own, which
        // delays nothing, not even the exit.
        thread::Builder::new().name("systemd".to_owned()).spawn(move || {
            let _ends = saying;
            say(&to_say);
        })?;
        let watchdog = sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero());
        Ok(Some(Systemd { words, said, watchdog }))
    }

    /// Reports states until `done`, and returns after the last message.
    pub(crate) async fn run(
        self,
        workers: Vec<WorkerStatus>,
        stop: CancellationToken,
        done: CancellationToken,
    ) {
        let Some(first) = workers.first() else { return };
        let look_every =
            self.watchdog.map_or(LOOK_EVERY, |watchdog| LOOK_EVERY.min(watchdog / 4).max(LOOK_PAUSE_MIN));
        let mut told = Told::new(first, self.watchdog);
        let mut look = tokio::time::interval(look_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // A drain may end before the next reading. It is reported nevertheless.
            let last = tokio::select! {
                biased;
                () = done.cancelled() => true,
                () = stop.cancelled(), if !told.stopping => false,
                _ = look.tick() => false,
            };
            let words = told.next(&Seen {
                now: Instant::now(),
                not_ready: not_ready(&workers).join("; "),
                stopping: stop.is_cancelled(),
                silence: workers.iter().filter_map(WorkerStatus::silence).max(),
            });
            if (!words.is_empty() && self.words.send(words).is_err()) || last {
                break;
            }
        }
        drop(self.words);
        let _ = tokio::time::timeout(LAST_WORDS_MAX, self.said).await;
    }
}

fn say(to_say: &Receiver<Words>) {
    let mut failed = false;
    for words in to_say {
        let words: Vec<_> = words.iter().map(|word| NotifyState::Custom(word)).collect();
        if let Err(error) = sd_notify::notify(&words)
            && !std::mem::replace(&mut failed, true)
        {
            tracing::warn!(%error, "systemd cannot be told how this worker is: NOTIFY_SOCKET does not take it");
        }
    }
}

/// The states of the process's workers at one reading.
struct Seen {
    now: Instant,
    /// Why workers are not ready; empty if all are.
    not_ready: String,
    stopping: bool,
    /// Time for which a heartbeat loop has made no progress; `None` if no loop runs.
    silence: Option<Duration>,
}

/// What systemd was told, which decides what it is told next. Does no I/O.
struct Told {
    watchdog: Option<Duration>,
    silence_max: Duration,
    drain_max: Duration,
    status: String,
    ready: bool,
    stopping: bool,
    pinged: Option<Instant>,
    extended: Option<Instant>,
}

impl Told {
    fn new(worker: &WorkerStatus, watchdog: Option<Duration>) -> Told {
        Told {
            watchdog,
            silence_max: (worker.statement_timeout() + worker.lease()) * STATEMENTS_MAX,
            drain_max: worker.grace() + AFTER_GRACE_MAX,
            status: String::new(),
            ready: false,
            stopping: false,
            pinged: None,
            extended: None,
        }
    }

    fn next(&mut self, seen: &Seen) -> Words {
        let mut words = Vec::new();
        if seen.stopping && !self.stopping {
            self.stopping = true;
            // Independent of TimeoutStopSec=, so that a longer grace period is not cut short.
            words.extend([NotifyState::Stopping, extension(self.drain_max)]);
        }
        // control: systemd-ready
        if seen.not_ready.is_empty() && !self.ready {
            self.ready = true;
            words.push(NotifyState::Ready);
        }
        let status = if seen.not_ready.is_empty() { "ready" } else { &seen.not_ready };
        if self.status != status {
            status.clone_into(&mut self.status);
            words.push(NotifyState::Status(status));
        }
        let due = |last: Option<Instant>, pause: Duration| last.is_none_or(|last| seen.now - last >= pause);
        if !self.ready && !self.stopping && due(self.extended, EXTEND_EVERY) {
            self.extended = Some(seen.now);
            words.push(extension(EXTENSION));
        }
        // control: watchdog-silence
        if let Some(watchdog) = self.watchdog
            && seen.silence.is_none_or(|silence| silence < self.silence_max)
            && due(self.pinged, watchdog / 2)
        {
            self.pinged = Some(seen.now);
            words.push(NotifyState::Watchdog);
        }
        words.iter().map(ToString::to_string).collect()
    }
}

fn extension(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHDOG: Duration = Duration::from_secs(30);
    const SILENCE_MAX: Duration = Duration::from_secs(270);

    fn told() -> Told {
        Told {
            watchdog: Some(WATCHDOG),
            silence_max: SILENCE_MAX,
            drain_max: Duration::from_secs(45),
            status: String::new(),
            ready: false,
            stopping: false,
            pinged: None,
            extended: None,
        }
    }

    fn seen(now: Instant, not_ready: &str, silence: Option<Duration>) -> Seen {
        Seen { now, not_ready: not_ready.to_owned(), stopping: not_ready == "stopping", silence }
    }

    #[test]
    fn each_change_is_told_once() {
        let (mut told, start) = (told(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        told.watchdog = None;
        let waits = "waiting for Postgres";
        let mut said = Vec::new();
        for (seconds, not_ready) in [
            (0, waits),
            (1, waits),
            (5, waits),
            (6, ""),
            (7, ""),
            (20, "no heartbeat"),
            (40, ""),
            (50, "stopping"),
            (51, "stopping"),
        ] {
            said.push(told.next(&seen(after(seconds), not_ready, None)).join(" "));
        }
        assert_eq!(
            said,
            [
                "STATUS=waiting for Postgres EXTEND_TIMEOUT_USEC=30000000",
                "",
                "EXTEND_TIMEOUT_USEC=30000000",
                "READY=1 STATUS=ready",
                "",
                "STATUS=no heartbeat",
                "STATUS=ready",
                "STOPPING=1 EXTEND_TIMEOUT_USEC=45000000 STATUS=stopping",
                ""
            ]
        );
    }

    #[test]
    fn the_watchdog_hears_of_a_loop_that_turns_and_not_of_one_that_stands_still() {
        let (mut told, start) = (told(), Instant::now());
        let mut pings = |seconds: u64, silence: Option<Duration>| {
            let seen = seen(start + Duration::from_secs(seconds), "no heartbeat", silence);
            told.next(&seen).contains(&"WATCHDOG=1".to_owned())
        };
        assert!(pings(0, None), "before the loop runs");
        assert!(!pings(14, None), "no more than twice as often as it must be");
        assert!(pings(15, Some(Duration::ZERO)));
        assert!(pings(30, Some(SILENCE_MAX - Duration::from_secs(1))), "Postgres may be slow");
        assert!(!pings(60, Some(SILENCE_MAX)), "it stands still");
        assert!(pings(61, Some(Duration::ZERO)), "it was only slow");
    }
}
