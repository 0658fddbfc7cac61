//! `/metrics`, `/healthz` and `/readyz` on one port.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::worker::Worker;

#[derive(Clone)]
struct Served {
    worker: Arc<Worker>,
    recorder: PrometheusHandle,
}

/// Serves until `done`.
///
/// # Errors
/// When the listener breaks.
pub async fn run(
    listener: TcpListener,
    worker: Arc<Worker>,
    recorder: PrometheusHandle,
    done: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        // The process runs: it says nothing about Postgres, or an outage there would restart the whole fleet.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Served { worker, recorder });
    axum::serve(listener, router).with_graceful_shutdown(async move { done.cancelled().await }).await
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    served.worker.metrics.ready.set(f64::from(u8::from(served.worker.is_ready().is_ok())));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], served.recorder.render())
}

async fn ready(State(served): State<Served>) -> impl IntoResponse {
    match served.worker.is_ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
