//! Calls a participant over HTTP and judges the answer. The seam for other kinds of call: a `Task` in, an [`Ended`] out.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::timeout_at;

use crate::error::Error;
use crate::outcome::{Ended, Outcome, clean, judge};
use crate::participants::Reached;
use crate::plan::Op;
use crate::task::Task;
use crate::trace::Traces;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SAGA_ATTEMPT: HeaderName = HeaderName::from_static("saga-attempt");
const SAGA_TIMEOUT_MS: HeaderName = HeaderName::from_static("saga-timeout-ms");
const SAGA_ACTION_KEY: HeaderName = HeaderName::from_static("saga-action-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Far beyond what an INSERT may ask for: the clock must not run over in a row that was changed by hand.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// What is said of a call that took longer than its step allows.
const TOO_LATE: &str = "no answer within the request timeout";

/// What is added to a URL, without the gid and the step's name.
const QUERY_BYTES: usize = "?gid=&trans_type=saga&branch_id=&op=compensate".len();
/// Room for the values of our headers, without gids and step names.
const VALUES_BYTES: usize = 128;
/// Room for the headers that are set here, by the client's builder and by its connections.
const HEADERS: usize = 9;

/// Answers nested deeper are not kept: a payload that holds one would be deeper than a payload may be.
const ANSWER_DEPTH_MAX: usize = 64;

/// The HTTP client of a worker.
#[derive(Debug, Clone)]
pub struct Caller {
    client: reqwest::Client,
    answer_bytes_max: usize,
    traces: Option<Traces>,
}

impl Caller {
    /// A client that does exactly what it is told: no redirects, no proxies, no retries of its own. It reads at most
    /// `answer_bytes_max` of an answer.
    ///
    /// # Errors
    /// [`Error::HttpClient`] when TLS cannot be set up.
    pub fn new(connections_idle_max: usize, answer_bytes_max: usize) -> Result<Caller, Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(connections_idle_max)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("pgsaga/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::HttpClient)?;
        Ok(Caller { client, answer_bytes_max, traces: None })
    }

    /// The same, with a span for each call.
    #[must_use]
    pub fn traced(self, traces: Option<Traces>) -> Caller {
        Caller { traces, ..self }
    }

    /// The client itself, for who measures it alone.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Makes the call of `task`. Never fails: whatever happens is an outcome.
    pub async fn call(&self, task: &Task) -> Ended {
        let started = Instant::now();
        let mut request = match self.request(task) {
            Ok(Some(request)) => request,
            Ok(None) => return ended(Outcome::Success, Reached::Nobody, None, started),
            Err(message) => return ended(Outcome::Failure, Reached::Nobody, Some(message), started),
        };
        let span = self.traces.as_ref().map(|traces| traces.begin(task, &mut request));
        let ended = self.send(task, request, started).await;
        if let Some(span) = span {
            span.end(&ended);
        }
        ended
    }

    async fn send(&self, task: &Task, request: reqwest::Request, started: Instant) -> Ended {
        let wanted = task.now.op == Op::Action && task.saga.uses_answer(task.now.step);
        // Our own timer: the client's costs five allocations a call.
        let timeout = task.step().map_or(Duration::ZERO, |step| step.request_timeout);
        let ends = started + timeout.min(TIMEOUT_MAX);
        match timeout_at(ends.into(), self.client.execute(request)).await {
            Ok(Ok(response)) => self.answered(response, wanted, started, ends).await,
            Ok(Err(error)) => {
                let outcome = if error.is_connect() {
                    Outcome::Unsent
                } else if error.is_builder() {
                    Outcome::Failure
                } else {
                    Outcome::Unknown
                };
                let silent = error.is_connect() || error.is_timeout();
                let reached = if silent { Reached::Silent } else { Reached::Broken };
                ended(outcome, reached, Some(words(&error)), started)
            }
            Err(_) => ended(Outcome::Unknown, Reached::Silent, Some(TOO_LATE.to_owned()), started),
        }
    }

    async fn answered(
        &self,
        mut response: reqwest::Response,
        wanted: bool,
        started: Instant,
        ends: Instant,
    ) -> Ended {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let (body, whole) = match self.body(&mut response, ends).await {
            Ok(read) => read,
            Err(broken) => {
                let broken = ended(Outcome::Unknown, Reached::Answered, Some(broken), started);
                return Ended { status_code: Some(status), ..broken };
            }
        };
        let (outcome, message) = judge(status, &body);
        let answer = (wanted && whole && outcome == Outcome::Success)
            .then(|| json(&body, self.answer_bytes_max))
            .flatten();
        Ended {
            status_code: Some(status),
            retry_after,
            answer,
            ..ended(outcome, Reached::Answered, message, started)
        }
    }

    /// The body up to what may be kept of it, and whether that is all; else what it broke off with.
    async fn body(
        &self,
        response: &mut reqwest::Response,
        ends: Instant,
    ) -> Result<(BytesMut, bool), String> {
        let mut body = BytesMut::new();
        loop {
            match timeout_at(ends.into(), response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = self.answer_bytes_max - body.len();
                    body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                    if chunk.len() > room {
                        return Ok((body, false)); // the rest is not read; the connection is closed with it
                    }
                }
                Ok(Ok(None)) => return Ok((body, true)),
                Ok(Err(error)) => return Err(words(&error)),
                Err(_) => return Err(TOO_LATE.to_owned()),
            }
        }
    }

    /// `None` where there is nothing to call.
    fn request(&self, task: &Task) -> Result<Option<reqwest::Request>, String> {
        let Some(step) = task.step() else { return Err("no such step".to_owned()) };
        let op = task.now.op;
        let Some(url) = step.url(op) else { return Ok(None) };
        let gid = &task.saga.gid;
        // The character sets of gids and step names need no escaping in a query or a header (RACES 16).
        let mut full = String::with_capacity(url.len() + gid.len() + step.name.len() + QUERY_BYTES);
        let joint = if url.contains('?') { "&" } else { "?" };
        full.extend([
            url,
            joint,
            "gid=",
            gid,
            "&trans_type=saga&branch_id=",
            &step.name,
            "&op=",
            op.as_str(),
        ]);
        let url = reqwest::Url::parse(&full).map_err(|error| format!("the URL cannot be called: {error}"))?;
        let mut request = reqwest::Request::new(reqwest::Method::POST, url);
        let headers = request.headers_mut();
        headers.reserve(HEADERS + step.headers.len());
        headers.extend(step.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Slices of one text: an allocation for all, and none where the client copies its headers.
        let mut text = String::with_capacity(2 * (gid.len() + step.name.len()) + VALUES_BYTES);
        let mut ends = Vec::with_capacity(HEADERS);
        push_key(&mut text, task, op);
        ends.push((IDEMPOTENCY_KEY, text.len()));
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", task.now.attempt);
        ends.push((SAGA_ATTEMPT, text.len()));
        let _ = write!(text, "{}", step.request_timeout.as_millis() as u64);
        ends.push((SAGA_TIMEOUT_MS, text.len()));
        if op == Op::Compensate {
            push_key(&mut text, task, Op::Action);
            ends.push((SAGA_ACTION_KEY, text.len()));
        }
        if self.traces.is_none() && !headers.contains_key(TRACEPARENT) {
            push_traceparent(&mut text);
            ends.push((TRACEPARENT, text.len()));
        }
        let text = Bytes::from(text);
        let mut from = 0;
        for (name, to) in ends {
            let value = HeaderValue::from_maybe_shared(text.slice(from..to))
                .map_err(|error| format!("the request cannot be built: {error}"))?;
            headers.insert(name, value);
            from = to;
        }
        *request.body_mut() = Some(task.saga.body(task.now.step, op, &task.answers)?.into());
        Ok(Some(request))
    }
}

/// Adds the idempotency key of an op: the same on every try, unless a person gave it a fresh one.
fn push_key(text: &mut String, task: &Task, op: Op) {
    text.extend([&task.saga.gid, "/", task.step_name(), "/", op.as_str()]);
    text.push_str(&task.fresh_keys.suffix(task.now.step, op));
}

/// Adds a new trace, version 00, sampled (W3C Trace Context).
fn push_traceparent(text: &mut String) {
    let (trace, span): (u128, u64) = rand::random();
    // Writing to a string cannot fail.
    let _ = write!(text, "00-{trace:032x}-{span:016x}-01");
}

/// The answer as JSON text that jsonb can hold and print within `bytes_max`; `None` for anything else. (`1e131071` has nine
/// bytes, and jsonb prints 131,072.)
pub fn json(body: &[u8], bytes_max: usize) -> Option<String> {
    let text = std::str::from_utf8(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok()?.trim();
    let measure = pgsaga_producer::measure_json(text)?;
    (measure.bytes <= bytes_max && measure.depth <= ANSWER_DEPTH_MAX).then(|| text.to_owned())
}

fn ended(outcome: Outcome, reached: Reached, message: Option<String>, started: Instant) -> Ended {
    let duration = started.elapsed();
    Ended { outcome, status_code: None, message, retry_after: None, duration, reached, answer: None }
}

/// An error of the client with its causes, without the URL: it is on the saga, and may be long.
fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return TOO_LATE.to_owned();
    }
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    match causes.last() {
        Some(deepest) if error.is_connect() => clean(&format!("could not connect: {deepest}")),
        Some(deepest) => clean(&format!("the connection broke: {deepest}")),
        None => clean(&error.to_string()),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3), the date measured against the answer's own `Date`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let from = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    #[expect(
        clippy::disallowed_methods,
        reason = "a date without the answer's own Date can only be read by our clock"
    )]
    let from = from.unwrap_or_else(SystemTime::now);
    Some(until.duration_since(from).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;
