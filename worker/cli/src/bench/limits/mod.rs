//! The upper limits of this machine, measured in the same run. A figure means something on another
//! machine only beside these limits.

mod statements;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgsaga_worker::execute::client::{Connections, Recipe};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::load::{Load, Pace, Plan, Shape};
use super::rig::{Groups, Rig, pass};
use super::screen::Screen;
use super::stub::Stub;
use super::times::Times;
use crate::error::Error;

/// Upper bound on the time of each measurement.
const PHASE_MAX: Duration = Duration::from_secs(4);
/// Upper bound on the time before a measurement starts.
const WARM_UP_MAX: Duration = Duration::from_secs(1);
/// Number of sagas for each second of the statements' measurement.
const SAGAS_PER_SECOND: f64 = 15_000.0;
/// Concurrencies at which HTTP is measured, besides that of the worker.
const CONCURRENCIES: [usize; 2] = [64, 192];
/// Connections for the measurement of the stub's own limit.
const RAW_CONNECTIONS: usize = 64;

/// The limit of each part, with the whole machine to itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) http_calls_per_second: f64,
    /// The stub, called by a client that only counts bytes.
    pub(crate) stub_calls_per_second: f64,
    pub(crate) sql_sagas_per_second: f64,
    pub(crate) produce_sagas_per_second: f64,
}

impl Limits {
    /// Sagas per second if all parts share the machine: the time of a saga is the sum of its times
    /// in each part.
    pub(crate) fn composed(&self, calls: usize) -> f64 {
        1.0 / (1.0 / self.drained(calls) + 1.0 / self.produce_sagas_per_second)
    }

    /// Like [`Limits::composed`], without INSERTs.
    pub(crate) fn drained(&self, calls: usize) -> f64 {
        1.0 / (calls as f64 / self.http_calls_per_second + 1.0 / self.sql_sagas_per_second)
    }
}

pub(crate) struct Subject<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) concurrency: usize,
    /// Group sizes of this run's workers.
    pub(crate) groups: Groups,
    pub(crate) duration: Duration,
}

pub(crate) async fn measure(rig: &Rig, screen: &mut Screen, subject: Subject<'_>) -> Result<Limits, Error> {
    let Subject { plan, concurrency, groups, duration } = subject;
    let phase = duration.min(PHASE_MAX);
    let mut http: f64 = 0.0;
    for concurrency in CONCURRENCIES.into_iter().chain([concurrency]) {
        http = http.max(http_calls(screen, plan, phase, concurrency).await?);
    }
    Ok(Limits {
        http_calls_per_second: http,
        stub_calls_per_second: raw_calls(screen, plan, phase).await?,
        sql_sagas_per_second: statements(rig, screen, &plan.shape, groups, duration).await?,
        produce_sagas_per_second: produce(rig, screen, plan, phase).await?,
    })
}

/// Sagas per second of the worker's claims and settles alone, without a worker and without calls.
pub(crate) async fn statements(
    rig: &Rig,
    screen: &mut Screen,
    shape: &Shape,
    groups: Groups,
    duration: Duration,
) -> Result<f64, Error> {
    let sagas = (duration.min(PHASE_MAX).as_secs_f64() * SAGAS_PER_SECOND) as i64;
    statements::measure(rig, screen, shape, groups, sagas).await
}

/// Calls per second of the worker's own client, with requests like the worker's.
async fn http_calls(
    screen: &mut Screen,
    plan: &Plan,
    phase: Duration,
    concurrency: usize,
) -> Result<f64, Error> {
    let stub = Arc::new(Stub::start(Times::new(1)).await?);
    let connections = Connections { idle_max: concurrency, idle: phase, age: Duration::MAX };
    let client = Recipe::new(connections).build().map_err(pgsaga_worker::Error::HttpClient)?;
    let request = request(&stub, plan)?;
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let (client, stop) = (client.clone(), stop.clone());
        let request = request.try_clone().ok_or_else(|| failed("a request without a body"))?;
        callers.spawn(async move {
            while !stop.is_cancelled() {
                let Some(request) = request.try_clone() else { break };
                client.execute(request).await?.bytes().await?;
            }
            Ok::<_, reqwest::Error>(())
        });
    }
    let what = format!("HTTP alone, {concurrency} calls at once");
    let rate = count_for(screen, &what, phase, || stub.calls()).await?;
    stop.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.map_err(failed)?.map_err(failed)?;
    }
    Ok(rate)
}

/// A request as the worker builds it for an action.
fn request(stub: &Stub, plan: &Plan) -> Result<reqwest::Request, Error> {
    let gid = Times::gid(0);
    let url = format!("{}?gid={gid}&trans_type=saga&branch_id=step-2&op=action", stub.url("ok", 2));
    let url = reqwest::Url::parse(&url).map_err(failed)?;
    let mut request = reqwest::Request::new(reqwest::Method::POST, url);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [
        ("idempotency-key", "bench-0000000000/step-2/action"),
        ("saga-attempt", "1"),
        ("saga-timeout-ms", "3000"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    *request.timeout_mut() = Some(Duration::from_secs(3));
    let payload = match plan.shape.payload_bytes {
        0 => "null".to_owned(),
        bytes => format!("\"{}\"", "x".repeat(bytes)),
    };
    *request.body_mut() = Some(payload.into());
    Ok(request)
}

/// Calls per second of the stub if its clients cost nothing: each client writes the same bytes and
/// counts the bytes that come back.
async fn raw_calls(screen: &mut Screen, plan: &Plan, phase: Duration) -> Result<f64, Error> {
    let stub = Stub::start(Times::new(1)).await?;
    let payload = "x".repeat(plan.shape.payload_bytes);
    let request = Arc::new(format!(
        "POST /ok/2?gid={}&trans_type=saga&branch_id=step-2&op=action HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{payload}",
        Times::gid(0),
        stub.address(),
        payload.len()
    ));
    let broken = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..RAW_CONNECTIONS {
        let (request, address, broken) = (Arc::clone(&request), stub.address(), Arc::clone(&broken));
        clients.spawn(async move {
            let talk = async {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut answer = [0; 1024];
                loop {
                    stream.write_all(request.as_bytes()).await?;
                    // An answer this short arrives in one piece.
                    if stream.read(&mut answer).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                    }
                }
            };
            let ended: Result<(), io::Error> = talk.await;
            broken.fetch_add(u64::from(ended.is_err()), Ordering::Relaxed);
        });
    }
    let rate = count_for(screen, "the stub alone", phase, || stub.calls()).await?;
    match broken.load(Ordering::Relaxed) {
        0 => Ok(rate),
        broken => Err(failed(format!("{broken} connections to the stub broke"))),
    }
}

/// Sagas per second that the producers insert while no worker runs.
async fn produce(rig: &Rig, screen: &mut Screen, plan: &Plan, phase: Duration) -> Result<f64, Error> {
    rig.in_database(async |database| {
        let stub = Arc::new(Stub::start(Times::new(1)).await?);
        let plan = Plan { pace: Pace::Open(u64::MAX), ..plan.clone() };
        let mut load = Load::start(&database.url, plan, stub).await?;
        let rate = count_for(screen, "INSERT alone", phase, || load.inserted()).await?;
        load.stop().await?;
        Ok(rate)
    })
    .await
}

/// Growth of a count per second, after a warm-up.
pub(crate) async fn count_for(
    screen: &mut Screen,
    what: &str,
    duration: Duration,
    count: impl Fn() -> u64,
) -> Result<f64, Error> {
    tokio::time::sleep(duration.min(WARM_UP_MAX)).await;
    let (before, started) = (count(), Instant::now());
    pass(screen, what, duration, || Ok(count() - before)).await?;
    Ok((count() - before) as f64 / started.elapsed().as_secs_f64())
}

fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::other("measure the machine's limits", why)
}
