//! Serves `/metrics`, `/healthz` and `/readyz` on one port. Any client that reaches the port is
//! untrusted. A client that keeps connections open, or sends slowly or endlessly, uses a bounded
//! amount of memory and descriptors, and cannot lock out other clients.

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

/// Upper bound on open connections. A further connection closes the oldest, so that every new
/// client finds room.
const CONNECTIONS_MAX: usize = 64;
/// Upper bound on the time for the head of a request, and on the idle time of a connection. It is
/// longer than the usual scrape interval of Prometheus.
const HEAD_READ_MAX: Duration = Duration::from_secs(75);
/// Upper bound on the time for open responses after `done`.
const ENDING_MAX: Duration = Duration::from_secs(10);
/// Upper bound on the bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Looks at the workers of this process: sets their gauges, and returns why they are not ready.
pub type Look = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

#[derive(Clone)]
struct Served {
    look: Look,
    recorder: PrometheusHandle,
}

/// Serves the endpoints until `done` is cancelled.
pub async fn run(listener: TcpListener, look: Look, recorder: PrometheusHandle, done: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        // Depends only on the process. If it depended on Postgres, an outage would restart the
        // whole fleet.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Served { look, recorder });
    accept(listener, router, done).await;
}

/// Serves a router until `done`, and then completes open responses. Each request carries the
/// client's address.
pub async fn accept(mut listener: TcpListener, router: Router, done: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_READ_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut connections = Connections::default();
    loop {
        // `Listener::accept` retries after a second if it fails, for example without free
        // descriptors.
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
            // A client's error concerns only its own connection.
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

/// The open connections. Dropping the value closes all of them.
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

    /// Waits for the open connections, up to a limit.
    async fn ended(mut self) {
        let all = async { while self.running.join_next().await.is_some() {} };
        // Closes the connections that are still open.
        let _ = tokio::time::timeout(ENDING_MAX, all).await;
    }
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    (served.look)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], served.recorder.render())
}

async fn ready(State(served): State<Served>) -> impl IntoResponse {
    let reasons = (served.look)();
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let lines = reasons.iter().map(|reason| format!("not ready: {reason}\n")).collect();
        (StatusCode::SERVICE_UNAVAILABLE, lines)
    }
}
