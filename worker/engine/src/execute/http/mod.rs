//! Calls a participant over HTTP and judges the response. Other kinds of call would share this
//! seam: a `Task` in, a `Called` out.

mod decode;
mod failure;
mod query;
mod request;
mod wire;

use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::time::timeout_at;

pub use self::decode::json;
use crate::error::Error;
use crate::execute::address::{self, Addresses};
use crate::execute::client;
use crate::execute::outcome::{CallResult, clean, judge, judge_unread};
use crate::execute::registry::Registry;
use crate::execute::task::Task;
use crate::execute::trace::Traces;
use crate::flow::participants::Reach;
use failure::{failed, words};
use pgsaga_plan::Op;
use pgsaga_plan::Outcome;
use request::Prepared;

/// Upper bound on the request timeout, far above what an INSERT accepts. Without the bound, a row
/// that was edited by hand could overflow the clock.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Message of a call that exceeded the request timeout.
const TOO_LATE: &str = "no answer within the request timeout";
/// Message of a call that got no connection in time.
const NO_CONNECTION: &str = "no connection within half of the request timeout: nothing was sent";

/// Configuration of [`HttpExecutor`].
#[derive(Debug, Default)]
pub struct Options {
    /// Upper bound on idle connections kept per participant.
    pub connections_idle_max: usize,
    /// Upper bound on the bytes read of a response body.
    pub answer_bytes_max: usize,
    /// Addresses that plain URLs may reach.
    pub addresses: Addresses,
    /// Denies calls to all plain URLs.
    pub deny_plain_urls: bool,
    /// Configuration of the named participants.
    pub named: Registry,
    /// Certificate authorities that are trusted in addition to those of the system.
    pub authorities: Vec<reqwest::Certificate>,
}

/// The HTTP clients of a worker.
#[derive(Debug)]
pub struct HttpExecutor {
    client: reqwest::Client,
    addresses: Addresses,
    deny_plain_urls: bool,
    named: Registry,
    answer_bytes_max: usize,
    traces: Option<Traces>,
}

/// Result of [`HttpExecutor::call`] for one task.
#[derive(Debug)]
pub(crate) enum Called {
    /// An attempt with its outcome.
    Ended(CallResult),
    /// No attempt: no worker can build this request. Contains the reason.
    Unbuildable(String),
    /// No attempt: this worker may not call the participant, or does not know its address. Another
    /// worker may. Contains the reason and the flag that would allow the call.
    Denied(String),
}

#[derive(Debug)]
enum NotSent {
    Unbuildable(String),
    Denied(String),
}

impl From<String> for NotSent {
    fn from(why: String) -> NotSent {
        NotSent::Unbuildable(why)
    }
}

impl From<NotSent> for Called {
    fn from(unmade: NotSent) -> Called {
        match unmade {
            NotSent::Unbuildable(why) => Called::Unbuildable(clean(&why)),
            NotSent::Denied(why) => Called::Denied(clean(&why)),
        }
    }
}

impl HttpExecutor {
    /// Builds the client for plain URLs, which connects only to allowed addresses. Named
    /// participants bring their own clients.
    ///
    /// # Errors
    /// [`Error::HttpClient`] if TLS cannot be set up.
    pub fn new(options: Options) -> Result<HttpExecutor, Error> {
        let Options {
            connections_idle_max,
            answer_bytes_max,
            addresses,
            deny_plain_urls,
            named,
            authorities,
        } = options;
        // control: addresses-resolved
        let client = client::builder(connections_idle_max)
            .dns_resolver(address::Resolver(addresses.clone()))
            .tls_certs_merge(authorities)
            .build()
            .map_err(Error::HttpClient)?;
        Ok(HttpExecutor { client, addresses, deny_plain_urls, named, answer_bytes_max, traces: None })
    }

    /// Adds a tracing span to each call.
    #[must_use]
    pub fn traced(self, traces: Option<Traces>) -> HttpExecutor {
        HttpExecutor { traces, ..self }
    }

    /// Calls the task's participant. Every failure is an outcome, or no attempt.
    pub(crate) async fn call(&self, task: &Task) -> Called {
        let started = Instant::now();
        let mut prepared = match self.prepare(task) {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return Called::Ended(ended(Outcome::Success, Reach::Nobody, None, started)),
            Err(unmade) => return unmade.into(),
        };
        let span = self.traces.as_ref().map(|traces| traces.begin(task, &mut prepared.request));
        match self.send(task, prepared, started).await {
            Ok(ended) => {
                if let Some(span) = span {
                    span.end(&ended);
                }
                Called::Ended(ended)
            }
            Err(unmade) => unmade.into(),
        }
    }

    /// Sends the request. Name resolution, connection and TLS handshake may take half of the
    /// request timeout. A request without a connection by then was not sent. A request that was
    /// sent has at least the other half for its response.
    async fn send(
        &self,
        task: &Task,
        prepared: Prepared<'_>,
        started: Instant,
    ) -> Result<CallResult, NotSent> {
        let Prepared { client, request, wire } = prepared;
        let wanted = task.now.op == Op::Action && task.saga.uses_answer(task.now.step);
        // Our own timers, because the client's timeout costs five allocations per call. The second
        // timer is rarely created.
        let timeout = task.step().map_or(Duration::ZERO, |step| step.request_timeout).min(TIMEOUT_MAX);
        let (connected, ends) = (started + timeout / 2, started + timeout);
        let mut response = std::pin::pin!(client.execute(request));
        let result = match timeout_at(connected.into(), &mut response).await {
            Err(_) if !wire.take_back() => timeout_at(ends.into(), response).await,
            result => result,
        };
        match result {
            Ok(Ok(response)) => Ok(self.answered(response, wanted, started, ends).await),
            Ok(Err(error)) => failed(&error, &wire, started),
            // control: no-connection-is-unsent
            Err(_) if wire.take_back() => {
                Ok(ended(Outcome::Unsent, Reach::Silent, Some(NO_CONNECTION.to_owned()), started))
            }
            Err(_) => Ok(ended(Outcome::Unknown, Reach::Silent, Some(TOO_LATE.to_owned()), started)),
        }
    }

    async fn answered(
        &self,
        mut response: reqwest::Response,
        wanted: bool,
        started: Instant,
        ends: Instant,
    ) -> CallResult {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let bytes_max = self.answer_bytes_max;
        let read_max = decode::read_bytes_max(response.headers(), bytes_max);
        let (body, whole) = match body(&mut response, read_max, ends).await {
            Ok(read) => read,
            Err(broken) => {
                let broken = ended(Outcome::Unknown, Reach::Answered, Some(broken), started);
                return CallResult { status_code: Some(status), ..broken };
            }
        };
        let (outcome, message, answer) = match decode::text(response.headers(), &body, whole, bytes_max).await
        {
            Ok((text, whole)) => {
                let (outcome, message) = judge(status, &text);
                let is_kept = wanted && whole && outcome == Outcome::Success;
                (outcome, message, is_kept.then(|| json(&text, bytes_max)).flatten())
            }
            Err(why) => {
                let (outcome, message) = judge_unread(status, &why);
                (outcome, Some(message), None)
            }
        };
        CallResult {
            status_code: Some(status),
            retry_after,
            answer,
            ..ended(outcome, Reach::Answered, message, started)
        }
    }
}

/// Reads at most `bytes_max` bytes of the body, and returns whether the body is complete.
async fn body(
    response: &mut reqwest::Response,
    bytes_max: usize,
    ends: Instant,
) -> Result<(BytesMut, bool), String> {
    let mut body = BytesMut::new();
    loop {
        match timeout_at(ends.into(), response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = bytes_max - body.len();
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

fn ended(outcome: Outcome, reached: Reach, message: Option<String>, started: Instant) -> CallResult {
    let duration = started.elapsed();
    CallResult { outcome, status_code: None, message, retry_after: None, duration, reached, answer: None }
}

/// Parses `Retry-After`: seconds or a date (RFC 9110 §10.2.3). A date is compared with the
/// response's own `Date`.
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
