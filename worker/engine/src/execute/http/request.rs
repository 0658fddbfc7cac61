//! Builds the request of a call: the URL with the keys that workers add, the headers, the
//! signature and the body.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use pgsaga_participant::webhook;
use pgsaga_plan::Op;
use pgsaga_sql::contract::NamedUrl;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Host;

use super::wire::{Payload, Wire};
use super::{HttpExecutor, NotSent, query};
use crate::execute::registry::Service;
use crate::execute::task::Task;
use crate::execute::task::definition::Step;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SAGA_ATTEMPT: HeaderName = HeaderName::from_static("saga-attempt");
const SAGA_TIMEOUT_MS: HeaderName = HeaderName::from_static("saga-timeout-ms");
const SAGA_ACTION_KEY: HeaderName = HeaderName::from_static("saga-action-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const WEBHOOK_ID: HeaderName = HeaderName::from_static(webhook::ID);
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static(webhook::TIMESTAMP);
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static(webhook::SIGNATURE);

/// Bytes added to a URL, without the gid and the step's name.
const QUERY_BYTES: usize = "?gid=&trans_type=saga&branch_id=&op=compensate".len();
/// Bytes reserved for the values of our headers, without gids and step names.
const VALUES_BYTES: usize = 128;
/// Headers set here, by the client's builder and by its connections.
const HEADERS: usize = 10;

/// A request that can be sent.
pub(super) struct Prepared<'a> {
    pub(super) client: &'a reqwest::Client,
    pub(super) request: reqwest::Request,
    pub(super) wire: Wire,
}

/// Header values as slices of one buffer: one allocation, and none when the client copies its
/// headers.
struct Values {
    text: String,
    ends: Vec<(HeaderName, usize)>,
}

impl Values {
    fn end(&mut self, name: HeaderName) {
        self.ends.push((name, self.text.len()));
    }

    fn insert_into(self, headers: &mut HeaderMap) -> Result<(), NotSent> {
        let text = Bytes::from(self.text);
        let mut from = 0;
        for (name, to) in self.ends {
            let value = HeaderValue::from_maybe_shared(text.slice(from..to))
                .map_err(|error| format!("the request cannot be built: {error}"))?;
            headers.insert(name, value);
            from = to;
        }
        Ok(())
    }
}

impl HttpExecutor {
    /// Builds the request; `None` if the op has no URL.
    pub(super) fn prepare(&self, task: &Task) -> Result<Option<Prepared<'_>>, NotSent> {
        let Some(step) = task.step() else { return Err("no such step".to_owned().into()) };
        let op = task.now.op;
        let Some(url) = step.url(op) else { return Ok(None) };
        // control: reserved-query
        if query::has_reserved_key(url) {
            return Err("the URL's query has gid, trans_type, branch_id or op, which workers add"
                .to_owned()
                .into());
        }
        let service = self.service(url)?;
        let (base, url) = match &service {
            Some((service, path)) => (service.base(), *path),
            None => ("", url),
        };
        let full = full_url(base, url, &task.saga.gid, &step.name, op);
        let url = reqwest::Url::parse(&full).map_err(|error| format!("the URL cannot be called: {error}"))?;
        // control: addresses-in-urls
        if service.is_none() {
            self.check(&url)?;
        }
        let mut request = reqwest::Request::new(reqwest::Method::POST, url);
        let headers = request.headers_mut();
        headers.reserve(HEADERS + step.headers.len());
        headers.extend(step.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Responses are small. A participant may compress them anyway, so they are decoded.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut values = self.values(task, step, headers);
        let body = task.saga.body(task.now.step, op, &task.answers)?;
        let service = service.map(|(service, _)| service);
        if let Some(secrets) = service.map(Service::secrets).filter(|secrets| !secrets.is_empty()) {
            sign(&mut values, &body, secrets);
        }
        values.insert_into(headers)?;
        let (payload, wire) = Payload::new(body);
        *request.body_mut() = Some(reqwest::Body::wrap(payload));
        Ok(Some(Prepared { client: service.map_or(&self.client, Service::client), request, wire }))
    }

    /// The headers that workers set, the idempotency key first.
    fn values(&self, task: &Task, step: &Step, headers: &HeaderMap) -> Values {
        let op = task.now.op;
        let bytes = 2 * (task.saga.gid.len() + step.name.len()) + VALUES_BYTES;
        let mut values = Values { text: String::with_capacity(bytes), ends: Vec::with_capacity(HEADERS) };
        push_key(&mut values.text, task, op);
        values.end(IDEMPOTENCY_KEY);
        // Writing to a string cannot fail.
        let _ = write!(values.text, "{}", task.now.attempt);
        values.end(SAGA_ATTEMPT);
        let _ = write!(values.text, "{}", step.request_timeout.as_millis() as u64);
        values.end(SAGA_TIMEOUT_MS);
        if op == Op::Compensate {
            push_key(&mut values.text, task, Op::Action);
            values.end(SAGA_ACTION_KEY);
        }
        if self.traces.is_none() && !headers.contains_key(TRACEPARENT) {
            push_traceparent(&mut values.text);
            values.end(TRACEPARENT);
        }
        values
    }

    /// Resolves a named URL to its participant and the rest of the path; `None` for a plain URL.
    fn service<'a>(&self, url: &'a str) -> Result<Option<(&Service, &'a str)>, NotSent> {
        let Some(named) = NamedUrl::parse(url) else { return Ok(None) };
        match self.named.get(named.name()) {
            Some(service) => Ok(Some((service, named.path()))),
            None => Err(NotSent::Denied(format!(
                "not called: this worker has no participant {:?} in the file of --participants",
                named.name()
            ))),
        }
    }

    /// Checks a plain URL as far as possible without DNS. Host names are checked when they are
    /// resolved.
    fn check(&self, url: &reqwest::Url) -> Result<(), NotSent> {
        if self.deny_plain_urls {
            return Err(NotSent::Denied(
                "not called: --deny-plain-urls; a participant in the file of --participants can be called by its name, as participant:name/path"
                    .to_owned(),
            ));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.addresses.check(address).map_err(|denied| NotSent::Denied(denied.to_string()))
    }
}

/// The step's URL with the keys that workers add. Gids and step names need no escaping in a query
/// or a header, because of their character sets (docs/races.md, R16).
fn full_url(base: &str, url: &str, gid: &str, step: &str, op: Op) -> String {
    let joint = if url.contains('?') { "&" } else { "?" };
    let mut full = String::with_capacity(base.len() + url.len() + gid.len() + step.len() + QUERY_BYTES);
    full.extend([base, url, joint, "gid=", gid, "&trans_type=saga&branch_id=", step, "&op=", op.as_str()]);
    full
}

/// Adds the signature of the idempotency key, the time and the body.
fn sign(values: &mut Values, body: &Bytes, secrets: &[webhook::Secret]) {
    let key_end = values.ends.first().map_or(0, |(_, end)| *end);
    // The signed content separates its parts by dots. A dot in the id would let a part of the body
    // pass as the timestamp. No gid and no step name contains `~`.
    // control: signature-id
    let id = values.text[..key_end].replace('.', "~");
    let now = seconds_now();
    let signature = webhook::sign(&id, now, body, secrets);
    values.text.push_str(&id);
    values.end(WEBHOOK_ID);
    let _ = write!(values.text, "{now}");
    values.end(WEBHOOK_TIMESTAMP);
    values.text.push_str(&signature);
    values.end(WEBHOOK_SIGNATURE);
}

/// Returns the timestamp of a signature.
fn seconds_now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the participant compares it with its own wall clock")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Appends the idempotency key of an op. All attempts share it unless an operator assigned a fresh
/// key.
fn push_key(text: &mut String, task: &Task, op: Op) {
    text.extend([&task.saga.gid, "/", task.step_name(), "/", op.as_str()]);
    text.push_str(&task.fresh_keys.suffix(task.now.step, op));
}

/// Appends the header value of a new sampled trace (W3C Trace Context, version 00).
fn push_traceparent(text: &mut String) {
    let (trace, span): (u128, u64) = rand::random();
    // Writing to a string cannot fail.
    let _ = write!(text, "00-{trace:032x}-{span:016x}-01");
}
