//! Running workers, and what they say of themselves.

use std::time::Duration;

use pgsaga_test::fleet::Fleet;
use tokio::time::Instant;

use super::usage;
use crate::error::Error;

/// Upper bound on the time until workers are ready.
const READY_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Workers {
    fleet: Fleet,
    pids: Vec<u32>,
    metrics: Vec<String>,
}

impl Workers {
    /// Starts workers and waits until they are ready.
    pub(crate) async fn start(url: &str, workers: usize, flags: &[String]) -> Result<Workers, Error> {
        let mut started = Workers { fleet: Fleet::new(url)?, pids: Vec::new(), metrics: Vec::new() };
        match started.start_all(workers, flags).await {
            Ok(()) => Ok(started),
            Err(error) => {
                started.stop().await;
                Err(error)
            }
        }
    }

    async fn start_all(&mut self, workers: usize, flags: &[String]) -> Result<(), Error> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        for _ in 0..workers {
            let worker = self.fleet.start_worker(&flags)?;
            self.pids.push(worker.pid);
            let address = worker.listens_at().await?;
            self.metrics.push(format!("http://{address}/metrics"));
        }
        let deadline = Instant::now() + READY_MAX;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            self.check()?;
            if self.read().await?.iter().all(|metrics| metrics.value("pgsaga_ready") > 0.0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let late = format!("not ready within {} s", READY_MAX.as_secs());
                return Err(Error::other("start the workers", late));
            }
        }
    }

    pub(crate) fn check(&mut self) -> Result<(), Error> {
        Ok(self.fleet.check()?)
    }

    pub(crate) async fn read(&self) -> Result<Vec<Metrics>, Error> {
        let mut all = Vec::new();
        for url in &self.metrics {
            let read = async { reqwest::get(url).await?.text().await };
            all.push(Metrics(read.await.map_err(|error| Error::other(format!("read {url}"), error))?));
        }
        Ok(all)
    }

    /// Tasks of a claim and of a settle, on average since an earlier reading.
    pub(crate) async fn groups(&self, before: &[Metrics]) -> Result<Groups, Error> {
        let now = self.read().await?;
        let sum =
            |metrics: &[Metrics], name: &str| metrics.iter().map(|metrics| metrics.value(name)).sum::<f64>();
        let mean = |name: &str| {
            let grown = |suffix| {
                let name = format!("{name}_{suffix}");
                sum(&now, &name) - sum(before, &name)
            };
            let (sum, count) = (grown("sum"), grown("count"));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        Ok(Groups { claim: mean("pgsaga_claim_tasks"), settle: mean("pgsaga_settle_group_tasks") })
    }

    /// Seconds of CPU that all workers have used.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        self.pids.iter().map(|pid| usage::cpu_seconds(*pid)).sum()
    }

    /// The most memory in bytes that one worker has had.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| usage::peak_memory_bytes(*pid)).max()
    }

    /// The most memory in bytes that one worker has now.
    pub(crate) fn memory_now_bytes(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| usage::memory_now_bytes(*pid)).max()
    }

    pub(crate) async fn stop(self) {
        self.fleet.stop().await;
    }
}

/// Average sizes of a worker's groups, in tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) claim: f64,
    pub(crate) settle: f64,
}

pub(crate) struct Metrics(String);

impl Metrics {
    /// A metric without labels; 0 where it is not there yet.
    fn value(&self, name: &str) -> f64 {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .find_map(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    }
}
