//! The workers of a run: places that are always taken, some of them with a clock an hour off.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use pgsaga_tests::clock::Clock;
use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{Worker, eventually};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

/// What each place's clock is off by.
const CLOCKS: [Option<&str>; 4] = [None, Some("+1h"), Some("-1h"), None];
const SUCCESSES: &str = "pgsaga_attempts_total{op=\"action\",outcome=\"success\"}";
/// From SIGTERM to the end: the grace, and what statements may take while Postgres is away.
const LEAVING_MAX: Duration = Duration::from_secs(60);

/// The workers.
pub(crate) struct Fleet {
    database_url: String,
    faketime: Clock,
    places: Vec<Seat>,
    leaving: Vec<(Worker, Instant)>,
    wrongs: Vec<String>,
}

struct Seat {
    worker: Worker,
    clock: Option<&'static str>,
    thaws: Option<Instant>,
}

impl Fleet {
    /// Starts them all and waits until they are ready.
    pub(crate) async fn start(database_url: &str) -> Fleet {
        let faketime = Clock::find();
        forget_clocks();
        let mut fleet = Fleet {
            database_url: database_url.to_owned(),
            faketime,
            places: Vec::new(),
            leaving: Vec::new(),
            wrongs: Vec::new(),
        };
        for clock in CLOCKS {
            let worker = fleet.spawn(clock);
            worker.ready().await;
            assert_is_off(&worker, clock);
            fleet.places.push(Seat { worker, clock, thaws: None });
        }
        fleet
    }

    fn spawn(&self, clock: Option<&'static str>) -> Worker {
        let flags = ["--lease-seconds", "2", "--grace-seconds", "3", "--concurrency", "128"];
        match clock {
            Some(clock) => Worker::spawn_with_env(&self.database_url, &flags, &self.faketime.off_by(clock)),
            None => Worker::spawn(&self.database_url, &flags),
        }
    }

    /// SIGKILL, and a new one in its place.
    pub(crate) fn kill(&mut self, random: &mut StdRng) {
        let place = random.random_range(0..self.places.len());
        let new = self.spawn(self.places[place].clock);
        let seat = &mut self.places[place];
        seat.thaws = None;
        let mut old = std::mem::replace(&mut seat.worker, new);
        old.kill9();
        self.look_at(&old);
    }

    /// SIGSTOP until its lease has long passed.
    pub(crate) fn freeze(&mut self, random: &mut StdRng) {
        let place = random.random_range(0..self.places.len());
        let seat = &mut self.places[place];
        seat.worker.stop_signal();
        seat.thaws = Some(Instant::now() + Duration::from_millis(random.random_range(2_500..5_000)));
    }

    /// SIGTERM for one after the other, each with a replacement.
    pub(crate) fn roll(&mut self) {
        for place in 0..self.places.len() {
            let new = self.spawn(self.places[place].clock);
            let seat = &mut self.places[place];
            let mut old = std::mem::replace(&mut seat.worker, new);
            if seat.thaws.take().is_some() {
                old.continue_signal();
            }
            old.terminate();
            self.leaving.push((old, Instant::now()));
        }
    }

    /// What has become due: thaws, and the ends of those that were told to leave.
    pub(crate) async fn tick(&mut self) {
        for seat in &mut self.places {
            if seat.thaws.is_some_and(|thaws| thaws <= Instant::now()) {
                seat.thaws = None;
                seat.worker.continue_signal();
            }
            if !seat.worker.is_running() {
                self.wrongs.push(format!(
                    "worker {} ended by itself: {:?}",
                    seat.worker.pid(),
                    seat.worker.log().last()
                ));
            }
        }
        let mut staying = Vec::new();
        for (mut worker, since) in std::mem::take(&mut self.leaving) {
            if worker.is_running() && since.elapsed() < LEAVING_MAX {
                staying.push((worker, since));
                continue;
            }
            if worker.is_running() {
                self.wrongs.push(format!("worker {} did not leave within {LEAVING_MAX:?}", worker.pid()));
                worker.kill9();
            }
            let exit = worker.wait_exit(PATIENCE).await;
            // A worker that was asked to leave before `main` ran is the kernel's to end.
            if !exit.success() && !worker.log().is_empty() {
                self.wrongs.push(format!("worker {} left with {exit}", worker.pid()));
            }
            self.look_at(&worker);
        }
        self.leaving = staying;
    }

    /// Nobody is frozen any more.
    pub(crate) fn thaw(&mut self) {
        for seat in &mut self.places {
            seat.thaws = None;
            seat.worker.continue_signal();
        }
    }

    /// Those that were told to leave have left, the others are ready.
    pub(crate) async fn settle_down(&mut self) {
        let started = Instant::now();
        while !self.leaving.is_empty() && started.elapsed() < LEAVING_MAX + PATIENCE {
            self.tick().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for seat in &self.places {
            seat.worker.ready().await;
        }
    }

    /// The successful calls of each worker that lives, by its pid.
    pub(crate) async fn successes(&self) -> HashMap<u32, f64> {
        let mut successes = HashMap::new();
        for seat in &self.places {
            let of_worker = eventually(PATIENCE, "a worker tells its calls", async || {
                seat.worker.metric(SUCCESSES).await
            });
            successes.insert(seat.worker.pid(), of_worker.await);
        }
        successes
    }

    /// What no fault excuses.
    pub(crate) fn wrongs(&mut self) -> Vec<String> {
        for place in 0..self.places.len() {
            let log = self.places[place].worker.log();
            self.wrongs.extend(errors(log));
        }
        std::mem::take(&mut self.wrongs)
    }

    fn look_at(&mut self, worker: &Worker) {
        self.wrongs.extend(errors(worker.log()));
    }
}

/// That a participant's refusal needs a person is an error for whoever reads the log, and none of
/// ours.
fn errors(log: Vec<String>) -> impl Iterator<Item = String> {
    log.into_iter().filter(|line| {
        line.contains("panicked")
            || line.contains("\"level\":\"ERROR\"") && !line.contains("\"message\":\"a saga is stuck\"")
    })
}

/// What libfaketime keeps of processes that were killed with their tests: a worker with the number
/// of one would have no clock of its own.
fn forget_clocks() {
    let Ok(kept) = fs::read_dir("/dev/shm") else { return };
    for file in kept.map_while(Result::ok) {
        let name = file.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix("faketime_shm_").or(name.strip_prefix("sem.faketime_sem_"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may have been faster.
            drop(fs::remove_file(file.path()));
        }
    }
}

/// The fault is real: its own log tells another hour.
fn assert_is_off(worker: &Worker, clock: Option<&str>) {
    let expected = match clock {
        None => 0,
        Some("+1h") => 60,
        Some(_) => -60,
    };
    let line = worker.log().remove(0);
    let event: Value = serde_json::from_str(&line).unwrap();
    let told: DateTime<Utc> = event["timestamp"].as_str().unwrap().parse().unwrap();
    let off = (told - Utc::now()).num_minutes();
    assert!((off - expected).abs() <= 2, "its clock is off by {off} instead of {expected} minutes");
}
