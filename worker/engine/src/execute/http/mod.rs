//! Calls a participant over HTTP and judges the response, by the rules of DTM.

mod decode;
mod dtm;
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
use crate::execute::call::{Call, CallResult, Called, clean};
use crate::execute::client;
use crate::execute::registry::Service;
use crate::flow::participants::Reach;
use dtm::{dtm_result, message};
use failure::{failed, words};
use pgsaga_plan::Outcome;
use request::Prepared;

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
    /// Certificate authorities that are trusted in addition to those of the system.
    pub authorities: Vec<reqwest::Certificate>,
}

/// Makes calls over HTTP.
#[derive(Debug)]
pub struct HttpExecutor {
    client: reqwest::Client,
    addresses: Addresses,
    deny_plain_urls: bool,
    answer_bytes_max: usize,
}

impl HttpExecutor {
    /// Builds the client for plain URLs, which connects only to allowed addresses. Named
    /// participants bring their own clients.
    ///
    /// # Errors
    /// [`Error::HttpClient`] if TLS cannot be set up.
    pub fn new(options: Options) -> Result<HttpExecutor, Error> {
        let Options { connections_idle_max, answer_bytes_max, addresses, deny_plain_urls, authorities } =
            options;
        // control: addresses-resolved
        let client = client::builder(connections_idle_max)
            .dns_resolver(address::Resolver(addresses.clone()))
            .tls_certs_merge(authorities)
            .build()
            .map_err(Error::HttpClient)?;
        Ok(HttpExecutor { client, addresses, deny_plain_urls, answer_bytes_max })
    }

    /// Calls a plain URL, or the path of a named participant. Name resolution, connection and TLS
    /// handshake may take half of the request timeout. A request without a connection by then was
    /// not sent. A request that was sent has at least the other half for its response.
    pub(crate) async fn call(&self, call: &mut Call<'_>, url: &str, service: Option<&Service>) -> Called {
        let Prepared { client, request, wire } = self.prepare(call, url, service)?;
        // Our own timers, because the client's timeout costs five allocations per call. The second
        // timer is rarely created.
        let (connected, ends) = (call.started + call.timeout / 2, call.started + call.timeout);
        let mut response = std::pin::pin!(client.execute(request));
        let result = match timeout_at(connected.into(), &mut response).await {
            Err(_) if !wire.take_back() => timeout_at(ends.into(), response).await,
            result => result,
        };
        match result {
            Ok(Ok(response)) => Ok(self.answered(call, response, ends).await),
            Ok(Err(error)) => failed(call, &error, &wire),
            // control: no-connection-is-unsent
            Err(_) if wire.take_back() => {
                Ok(call.ended(Outcome::Unsent, Reach::Silent, Some(NO_CONNECTION.to_owned())))
            }
            Err(_) => Ok(call.ended(Outcome::Unknown, Reach::Silent, Some(TOO_LATE.to_owned()))),
        }
    }

    async fn answered(&self, call: &Call<'_>, mut response: reqwest::Response, ends: Instant) -> CallResult {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let bytes_max = self.answer_bytes_max;
        let read_max = decode::read_bytes_max(response.headers(), bytes_max);
        let (body, whole) = match body(&mut response, read_max, ends).await {
            Ok(read) => read,
            Err(broken) => {
                let broken = call.ended(Outcome::Unknown, Reach::Answered, Some(broken));
                return CallResult { status_code: Some(status), ..broken };
            }
        };
        let (outcome, message, answer) = match decode::text(response.headers(), &body, whole, bytes_max).await
        {
            Ok((text, whole)) => {
                let (outcome, message) = judge(status, &text);
                let is_kept = call.wants_answer && whole && outcome == Outcome::Success;
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
            ..call.ended(outcome, Reach::Answered, message)
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

/// Judges a response by its status and its body: UTF-8 without a byte order mark, cut to a limit.
pub fn judge(status_code: u16, body: &[u8]) -> (Outcome, Option<String>) {
    let outcome = match status_code {
        200 | 201 | 204 => dtm_result(body),
        409 => Outcome::Failure,
        // control: still-working
        202 | 425 => Outcome::Ongoing,
        429 => Outcome::Unsent,
        _ => Outcome::Unknown,
    };
    let message = (outcome != Outcome::Success).then(|| message(status_code, body));
    (outcome, message)
}

/// Judges a response whose body could not be decoded for the reason `why`. A success status is then
/// unknown, because the body may contain a refusal.
pub fn judge_unread(status_code: u16, why: &str) -> (Outcome, String) {
    match judge(status_code, b"") {
        // control: unread-success
        (Outcome::Success, _) => (Outcome::Unknown, clean(why)),
        (outcome, _) => (outcome, clean(&format!("HTTP status {status_code}; {why}"))),
    }
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
