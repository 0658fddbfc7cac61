//! A worker in the test's own process, with the test's functions as handlers.

use std::time::Duration;

use pgsaga_worker::{Builder, Error, Worker};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::eventually;
use crate::scene::PATIENCE;

/// A worker in this process. It is not drained when it is dropped.
#[derive(Debug)]
pub struct LocalWorker {
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), Error>>,
}

impl LocalWorker {
    /// A worker to be built, with the lease of two seconds that tests use.
    pub fn builder(database_url: &str) -> Builder {
        Worker::builder(database_url).lease(Duration::from_secs(2))
    }

    /// Starts a worker and waits until it is ready.
    ///
    /// # Panics
    /// When it cannot be built or is not ready in time.
    pub async fn start(builder: Builder) -> LocalWorker {
        let worker = builder.build().unwrap();
        let status = worker.status();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        eventually(PATIENCE, "the worker in this process is ready", async || {
            status.iter().all(|worker| worker.not_ready().is_none()).then_some(())
        })
        .await;
        LocalWorker { stop: Some(stop), running }
    }

    /// Asks the worker to drain.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for the worker's end.
    ///
    /// # Panics
    /// When it ended with an error.
    pub async fn ended(mut self) {
        self.stop();
        self.running.await.unwrap().unwrap();
    }
}
