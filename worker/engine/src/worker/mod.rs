//! A worker of one process: one worker for each database that it serves.

mod builder;
mod served;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::error::Error;
use crate::execute::trace::Traces;
use crate::telemetry::{listener, metrics};
pub use builder::{Builder, Database};
use served::DatabaseWorker;
pub use status::{WorkerStatus, not_ready};

/// A worker: it claims the tasks of sagas, calls their participants, and settles the outcomes.
///
/// ```no_run
/// use pgsaga_worker::{Call, HandlerError, Participant, Worker};
///
/// async fn reserve(call: Call<u32>) -> Result<(), HandlerError> {
///     println!("{} of them for {}", call.payload, call.gid());
///     Ok(())
/// }
///
/// # async fn run() -> Result<(), pgsaga_worker::Error> {
/// Worker::builder("postgres://app@localhost/shop")
///     .participant(Participant::new("stock").action("reserve", reserve))
///     .run_until(async { drop(tokio::signal::ctrl_c().await) })
///     .await
/// # }
/// ```
pub struct Worker {
    /// By the database's name, with the span of the events of each.
    workers: BTreeMap<String, (DatabaseWorker, Span)>,
    listener: Option<(TcpListener, PrometheusHandle)>,
    traces: Option<Traces>,
    stop: CancellationToken,
}

impl Builder {
    /// Builds the worker and runs it: [`Builder::build`], then [`Worker::run_until`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.build()?.run_until(shutdown).await
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("databases", &self.workers.keys()).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker of this database, with the default settings.
    pub fn builder(database: impl Into<Database>) -> Builder {
        Builder::new(database.into())
    }

    /// Handles that tell how the worker is, one for each database.
    pub fn status(&self) -> Vec<WorkerStatus> {
        self.workers.values().map(|(worker, _)| worker.status()).collect()
    }

    /// Is cancelled when the worker begins to stop, whatever the reason.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Works until `shutdown` completes, then drains: no new call starts, calls in flight may end
    /// within the grace, everything is settled, and what was not started is released. Waits for
    /// databases that are not there yet.
    ///
    /// If the returned future is dropped, the worker ends without a drain. After its lease other
    /// workers rescue what it held, and the attempts count as unknown.
    ///
    /// # Errors
    /// [`Error::Schema`] where a database was not migrated for this release, [`Error::LoopEnded`]
    /// where a loop ended by itself. With several databases, an error of one drains all.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let (stop, several) = (self.stop.clone(), self.workers.len() > 1);
        let (served, workers) = (CancellationToken::new(), self.status());
        let mut side = JoinSet::new();
        if let Some((listener, recorder)) = self.listener {
            let look: listener::Look = Arc::new(move || {
                workers.iter().for_each(WorkerStatus::observe);
                not_ready(&workers)
            });
            side.spawn(metrics::upkeep(recorder.clone()));
            side.spawn(listener::run(listener, look, recorder, served.clone()));
        }
        let mut running = JoinSet::new();
        for (database, (worker, span)) in self.workers {
            running.spawn(async move { (database, worker.run().await) }.instrument(span));
        }
        let mut shutdown = std::pin::pin!(shutdown);
        let mut result = Ok(());
        loop {
            let ended = tokio::select! {
                () = &mut shutdown, if !stop.is_cancelled() => {
                    stop.cancel();
                    continue;
                }
                ended = running.join_next() => ended,
            };
            let error = match ended {
                None => break,
                Some(Ok((_, Ok(())))) => continue,
                Some(Ok((database, Err(error)))) => {
                    if several {
                        tracing::error!(database, %error, "a database cannot be served: the others are drained");
                    }
                    error
                }
                Some(Err(error)) => Error::LoopEnded(error.to_string()),
            };
            // One process is one unit: its supervisor restarts all of it.
            stop.cancel();
            if result.is_ok() {
                result = Err(error);
            }
        }
        served.cancel();
        side.shutdown().await;
        if let Some(traces) = self.traces {
            traces.close().await;
        }
        result
    }
}
