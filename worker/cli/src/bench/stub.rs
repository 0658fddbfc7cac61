//! The participant of the bench: it answers as fast as possible and records when it was called.
//!
//! It has a thread of its own, so that it does not wait for other work of this process.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::times::Times;
use crate::error::Error;

/// A running stub, which ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Stub {
    address: SocketAddr,
    seen: Arc<Seen>,
    _running: DropGuard,
}

#[derive(Debug)]
struct Seen {
    times: Times,
    calls: AtomicU64,
    ended: AtomicU64,
}

impl Stub {
    /// Listens on a port of its own choice.
    pub(crate) async fn start(times: Times) -> Result<Stub, Error> {
        let failed = || Error::io("start the stub participant");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let listener = listener.into_std().map_err(failed())?;
        let seen = Arc::new(Seen { times, calls: AtomicU64::new(0), ended: AtomicU64::new(0) });
        let (stop, serves) = (CancellationToken::new(), Arc::clone(&seen));
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed())?;
        thread::Builder::new()
            .name("stub".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        () = serve(listener, serves) => {}
                    }
                });
            })
            .map_err(failed())?;
        Ok(Stub { address, seen, _running: stop.drop_guard() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a step, whose name selects the answer: `ok` is a success, `end` the success that
    /// ends its saga, `refuse` a definite no.
    pub(crate) fn url(&self, answer: &str, step: usize) -> String {
        format!("http://localhost:{}/{answer}/{step}", self.address.port())
    }

    /// Times of the commits and of the first calls.
    pub(crate) fn times(&self) -> &Times {
        &self.seen.times
    }

    pub(crate) fn calls(&self) -> u64 {
        self.seen.calls.load(Ordering::Relaxed)
    }

    /// Number of sagas whose last call was answered.
    pub(crate) fn ended(&self) -> u64 {
        self.seen.ended.load(Ordering::Relaxed)
    }
}

async fn serve(listener: std::net::TcpListener, seen: Arc<Seen>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        // A failed accept, such as without free descriptors, is a failed call, which the bench
        // counts.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&seen)));
        }
    }
}

async fn converse(stream: TcpStream, seen: Arc<Seen>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, Arc::clone(&seen)));
    // A broken connection is the client's concern.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    mut request: Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    seen.calls.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path();
    let (kind, step) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    if step == "1"
        && let Some(saga) = request.uri().query().and_then(Times::saga_of)
    {
        seen.times.called(saga);
    }
    let (ends, refuses) = (kind == "end", kind == "refuse");
    // A participant reads the whole request. A body that breaks off is the client's concern.
    let _ = request.body_mut().collect().await;
    if ends {
        seen.ended.fetch_add(1, Ordering::Relaxed);
    }
    let mut response = Response::new(Empty::new());
    if refuses {
        *response.status_mut() = StatusCode::CONFLICT;
    }
    Ok(response)
}
