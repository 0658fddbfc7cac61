//! `/metrics`, `/healthz` and `/readyz` on one port, for everybody who can reach it: who holds connections open, or sends
//! slowly or without end, takes no more than a bounded part of the worker's memory and descriptors, and keeps nobody out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::worker::{Worker, not_ready};

/// Connections at once; one more ends the oldest, so that those who come to ask find room.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take to arrive, and a connection may be idle: longer than Prometheus usually waits between
/// two scrapes.
const HEAD_READ_MAX: Duration = Duration::from_secs(75);
/// How long answers may take to end after `done`.
const ENDING_MAX: Duration = Duration::from_secs(10);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone)]
struct Served {
    workers: Arc<[Arc<Worker>]>,
    recorder: PrometheusHandle,
}

/// Serves until `done`.
pub async fn run(
    listener: TcpListener,
    workers: Vec<Arc<Worker>>,
    recorder: PrometheusHandle,
    done: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        // The process runs: it says nothing about Postgres, or an outage there would restart the whole fleet.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Served { workers: workers.into(), recorder });
    accept(listener, router, done).await;
}

/// Serves a router until `done`, each request with the address it came from; then what runs may end.
pub async fn accept(mut listener: TcpListener, router: Router, done: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_READ_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut connections = Connections::default();
    loop {
        // A failed accept, for want of descriptors say, is tried again a second later.
        let (stream, peer) = tokio::select! {
            () = done.cancelled() => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let ending = done.clone();
        connections.add(async move {
            tokio::pin!(connection);
            // What a client does wrong is told to it, and concerns nobody else.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    connections.ended().await;
}

/// Those that are open. Dropped, all end.
#[derive(Default)]
struct Connections {
    running: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.running.try_join_next().is_some() {}
        self.oldest_first.retain(|connection| !connection.is_finished());
        if self.oldest_first.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.running.spawn(connection));
    }

    /// Waits for their ends, but not for ever.
    async fn ended(mut self) {
        let all = async { while self.running.join_next().await.is_some() {} };
        // Who is still at it is cut off.
        let _ = tokio::time::timeout(ENDING_MAX, all).await;
    }
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    for worker in &*served.workers {
        worker.db.observe();
        worker.metrics.ready.set(f64::from(u8::from(worker.is_ready().is_ok())));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], served.recorder.render())
}

async fn ready(State(served): State<Served>) -> impl IntoResponse {
    let reasons = not_ready(&served.workers);
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let lines = reasons.iter().map(|reason| format!("not ready: {reason}\n")).collect();
        (StatusCode::SERVICE_UNAVAILABLE, lines)
    }
}
