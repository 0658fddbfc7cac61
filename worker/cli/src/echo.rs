//! `pgsaga echo`: a participant for experiments.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::operate::filter::address;
use crate::output::out;

/// Answers every call by its path: /ok with 200, /refuse with 409, /ongoing with 425, /accept with
/// 202 and Saga-Wait-Seconds: 3600, /error with 500, /hang never, /status/N with that status, and
/// every other path with 200. Prints each call.
#[derive(Debug, Args)]
pub(crate) struct Echo {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT", value_parser = address, env = "PGSAGA_ECHO_LISTEN")]
    listen: SocketAddr,
}

impl Echo {
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let listen = |source| Error::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        out(format_args!(
            "listening on http://{address}: /ok 200, /refuse 409, /ongoing 425, /accept 202, /error 500, /hang never, /status/N"
        ))?;
        let router = Router::new()
            .route("/", axum::routing::any(answer))
            .route("/{*path}", axum::routing::any(answer));
        let server =
            axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
        server.await.map_err(listen)
    }
}

async fn answer(
    path: Option<Path<String>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("-");
    let attempt = headers.get("saga-attempt").and_then(|value| value.to_str().ok()).unwrap_or("-");
    // If nobody reads the output, the participant still answers.
    let _ = out(format_args!(
        "POST /{path}?{} key={key} attempt={attempt} body={}",
        query.unwrap_or_default(),
        String::from_utf8_lossy(&body)
    ));
    let last = path.split('/').next_back();
    let (status, body) = match last {
        Some("refuse") => (409, r#"{"message": "echo was told to refuse"}"#),
        Some("ongoing") => (425, ""),
        Some("accept") => (202, ""),
        Some("error") => (500, "echo was told to err"),
        Some("hang") => std::future::pending().await,
        Some(number) if path.starts_with("status/") => (number.parse().unwrap_or(200), ""),
        _ => (200, r#"{"message": "done"}"#),
    };
    let wait = (last == Some("accept")).then_some([("saga-wait-seconds", "3600")]);
    (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), AppendHeaders(wait.into_iter().flatten()), body)
}
