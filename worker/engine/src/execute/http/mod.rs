//! Calls a participant over HTTP and judges the response, by the rules of DTM.

mod decode;
mod dtm;
mod failure;
mod query;
mod request;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use pgsaga_sql::contract::WAIT;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::time::{sleep_until, timeout_at};

use crate::error::Error;
use crate::execute::address::Addresses;
use crate::execute::call::{Call, CallResult, Called, NotSent, clean, json};
use crate::execute::client::{Clients, Connections, Link, Recipe};
use crate::execute::registry::HttpService;
use crate::flow::participants::Reach;
use dtm::{dtm_result, message};
use failure::{failed, is_unprocessed, words};
use pgsaga_plan::Outcome;
use wire::{Payload, Wire};

/// Message of a call that exceeded the request timeout.
const TOO_LATE: &str = "no answer within the request timeout";
/// Message of a call that got no connection in time.
const NO_CONNECTION: &str = "no connection within half of the request timeout: nothing was sent";

/// The header of a 202 that says within how many seconds the participant reports the end.
const SAGA_WAIT_SECONDS: &str = "saga-wait-seconds";

/// Upper bound on how often a call is sent again because the participant did not take it.
const SENT_AGAIN_MAX: u32 = 5;
/// First pause before a call is sent again. Each further pause is twice as long.
const SENT_AGAIN_PAUSE: Duration = Duration::from_millis(10);

/// Configuration of [`HttpExecutor`].
#[derive(Debug)]
pub struct Options {
    /// How connections are kept.
    pub connections: Connections,
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
    clients: Clients,
    addresses: Addresses,
    deny_plain_urls: bool,
}

/// What became of a request.
enum Sent {
    /// The head of a response, and the end of the call's time.
    Response(reqwest::Response, Instant),
    Failed(reqwest::Error, Wire),
    /// No response in time.
    TooLate,
    NoConnection,
    /// The connection carries other calls, and took no more in time.
    NoStream,
    /// The connection was replaced before it took the request.
    Replaced,
}

impl HttpExecutor {
    /// Builds the clients for plain URLs, which connect only to allowed addresses. Named
    /// participants bring their own clients.
    ///
    /// # Errors
    /// [`Error::HttpClient`] if TLS cannot be set up.
    pub fn new(options: Options) -> Result<HttpExecutor, Error> {
        let Options { connections, addresses, deny_plain_urls, authorities } = options;
        let clients = Clients::new(Recipe {
            authorities,
            addresses: Some(addresses.clone()),
            ..Recipe::new(connections)
        })?;
        Ok(HttpExecutor { clients, addresses, deny_plain_urls })
    }

    /// Calls a plain URL, or the path of a named participant. Name resolution, connection and TLS
    /// handshake may take half of the request timeout. A request without a connection by then was
    /// not sent. The time for the response begins when the request is sent.
    ///
    /// What the participant says it did not process is sent again within the call (RFC 9113 §8.7).
    pub(crate) async fn call(&self, call: &Call<'_>, url: &str, service: Option<&HttpService>) -> Called {
        let clients = service.map_or(&self.clients, HttpService::clients);
        let participant = call.task.permit.participant();
        let mut again = 0;
        loop {
            let request = self.request(call, url, service)?;
            let link = clients.link(participant);
            let connected = Instant::now() + call.timeout / 2;
            let sent = send(call, request, &link, connected).await;
            let may_again = again < SENT_AGAIN_MAX;
            let called = match sent {
                Sent::Replaced if may_again => None,
                // control: unprocessed-again
                Sent::Failed(error, _) if may_again && is_unprocessed(&error) => None,
                Sent::Response(response, ends) => {
                    link.answered(response.version());
                    let result = answered(call, response, ends).await;
                    if Instant::now() >= ends {
                        clients.ill(participant, &link);
                    }
                    Some(Ok(result))
                }
                Sent::Failed(error, wire) => Some(failed(call, &error, &wire)),
                Sent::TooLate => {
                    clients.ill(participant, &link);
                    Some(Ok(call.ended(Outcome::Unknown, Reach::Silent, Some(TOO_LATE.to_owned()))))
                }
                Sent::NoConnection | Sent::Replaced => {
                    // control: no-connection-is-unsent
                    Some(Ok(call.ended(Outcome::Unsent, Reach::Silent, Some(NO_CONNECTION.to_owned()))))
                }
                // control: no-stream-is-no-try
                Sent::NoStream => Some(Err(NotSent::Busy(link.carried_max()))),
            };
            if let Some(called) = called {
                return called.map(|result| CallResult { sent_again: again, ..result });
            }
            tokio::time::sleep(SENT_AGAIN_PAUSE * 2u32.pow(again)).await;
            again += 1;
        }
    }
}

/// Reads the response of a call.
async fn answered(call: &Call<'_>, mut response: reqwest::Response, ends: Instant) -> CallResult {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), || call.clock.now());
    let wait = if status == 202 { reports_within(response.headers()) } else { Ok(None) };
    let bytes_max = call.answer_bytes_max;
    let read_max = decode::read_bytes_max(response.headers(), bytes_max);
    let (body, whole) = match body(&mut response, read_max, ends).await {
        Ok(read) => read,
        Err(broken) => {
            let broken = call.ended(Outcome::Unknown, Reach::Answered, Some(broken));
            return CallResult { status_code: Some(status), ..broken };
        }
    };
    let (outcome, message, answer) = match decode::text(response.headers(), &body, whole, bytes_max).await {
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
    let (reports_within, message) = match wait {
        Ok(wait) => (wait, message),
        Err(why) => (None, message.map(|message| clean(&format!("{why}; {message}")))),
    };
    CallResult {
        status_code: Some(status),
        retry_after,
        reports_within,
        answer,
        ..call.ended(outcome, Reach::Answered, message)
    }
}

/// Reads `Saga-Wait-Seconds`.
///
/// # Errors
/// The value found, and what is allowed. The response counts as one without the header.
fn reports_within(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(SAGA_WAIT_SECONDS) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| WAIT.range().contains(seconds));
    let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    wait.map(Some).ok_or_else(|| format!("Saga-Wait-Seconds: found {value:?}; allowed: {WAIT}"))
}

/// Sends a request once.
async fn send(call: &Call<'_>, mut request: reqwest::Request, link: &Arc<Link>, connected: Instant) -> Sent {
    let began = Instant::now();
    let slots = link.connecting(request.url());
    let is_shared = slots.is_some();
    let connecting = match slots {
        None => None,
        Some(slots) => tokio::select! {
            biased;
            () = link.replaced() => return Sent::Replaced,
            slot = timeout_at(connected.into(), slots.acquire_owned()) => match slot {
                Ok(slot) => slot.ok(),
                Err(_) => return not_sent(link, is_shared, began),
            },
        },
    };
    let (until_sent, _until_answered) =
        if link.is_proven() { (connecting, None) } else { (None, connecting) };
    let (payload, wire) = Payload::new(call.body.clone(), Arc::clone(link), is_shared, until_sent);
    *request.body_mut() = Some(reqwest::Body::wrap(payload));
    // Our own timers, because the client's timeout costs five allocations per call. The second
    // timer is rarely created.
    let mut response = std::pin::pin!(link.client().execute(request));
    let first = tokio::select! {
        biased;
        result = &mut response => Some(result),
        () = link.replaced(), if is_shared => None,
        () = sleep_until(connected.into()) => None,
    };
    let result = match first {
        Some(result) => result,
        None => match wire.take_back() {
            Ok(()) if link.is_replaced() => return Sent::Replaced,
            Ok(()) => return not_sent(link, is_shared, began),
            Err(sent) => match timeout_at((sent + call.timeout).into(), response).await {
                Ok(result) => result,
                Err(_) => return Sent::TooLate,
            },
        },
    };
    match result {
        Ok(response) => Sent::Response(response, wire.sent_at().unwrap_or(call.started) + call.timeout),
        Err(error) => Sent::Failed(error, wire),
    }
}

/// Why a request got no connection in time.
fn not_sent(link: &Link, is_shared: bool, began: Instant) -> Sent {
    if is_shared && link.is_carrying(began) { Sent::NoStream } else { Sent::NoConnection }
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
/// response's own `Date`, or with the database's clock if the response has none.
fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let from = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    // control: retry-after-clock
    let from = from.unwrap_or_else(now);
    Some(until.duration_since(from).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;
