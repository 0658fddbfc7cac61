//! Builds the request of a call: the URL with the keys that workers add, the headers, the
//! signature and the body.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use pgsaga_participant::webhook;
use pgsaga_plan::Op;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Host;

use super::{HttpExecutor, query};
use crate::execute::call::{Call, NotSent};
use crate::execute::registry::HttpService;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SAGA_ATTEMPT: HeaderName = HeaderName::from_static("saga-attempt");
const SAGA_TIMEOUT_MS: HeaderName = HeaderName::from_static("saga-timeout-ms");
const SAGA_ACTION_KEY: HeaderName = HeaderName::from_static("saga-action-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static(webhook::ID);
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static(webhook::TIMESTAMP);
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static(webhook::SIGNATURE);

/// Headers for which there is room besides those of the call.
const HEADERS_ADDED: usize = 10;
/// Bytes added to a URL, without the gid and the step's name.
const QUERY_BYTES: usize = "?gid=&trans_type=saga&branch_id=&op=compensate".len();
/// Bytes reserved for the values of our headers, without gids and step names.
const VALUES_BYTES: usize = 128;
/// Upper bound on the headers whose values are slices of one buffer.
const VALUES_MAX: usize = 7;

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
    /// Builds the request for a plain URL, or for the path of a named participant, without its
    /// body.
    pub(super) fn request(
        &self,
        call: &Call<'_>,
        url: &str,
        service: Option<&HttpService>,
    ) -> Result<reqwest::Request, NotSent> {
        // control: reserved-query
        if query::has_reserved_key(url) {
            return Err("the URL's query has gid, trans_type, branch_id or op, which workers add"
                .to_owned()
                .into());
        }
        let full = full_url(service.map_or("", HttpService::base), url, call);
        let url = reqwest::Url::parse(&full).map_err(|error| format!("the URL cannot be called: {error}"))?;
        // control: addresses-in-urls
        if service.is_none() {
            self.check(&url)?;
        }
        let mut request = reqwest::Request::new(reqwest::Method::POST, url);
        let mut headers = HeaderMap::with_capacity(call.headers.len() + HEADERS_ADDED);
        headers.extend(call.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Responses are small. A participant may compress them anyway, so they are decoded.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut values = values(call);
        if let Some(secrets) = service.map(HttpService::secrets).filter(|secrets| !secrets.is_empty()) {
            sign(&mut values, call, secrets);
        }
        values.insert_into(&mut headers)?;
        *request.headers_mut() = headers;
        Ok(request)
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

/// The headers that workers set, the idempotency key first.
fn values(call: &Call<'_>) -> Values {
    let bytes = 2 * (call.task.saga.gid.len() + call.step.name.len()) + VALUES_BYTES;
    let mut values = Values { text: String::with_capacity(bytes), ends: Vec::with_capacity(VALUES_MAX) };
    call.push_key(&mut values.text, call.op());
    values.end(IDEMPOTENCY_KEY);
    // Writing to a string cannot fail.
    let _ = write!(values.text, "{}", call.task.now.attempt);
    values.end(SAGA_ATTEMPT);
    let _ = write!(values.text, "{}", call.step.request_timeout.as_millis() as u64);
    values.end(SAGA_TIMEOUT_MS);
    if call.op() == Op::Compensate {
        call.push_key(&mut values.text, Op::Action);
        values.end(SAGA_ACTION_KEY);
    }
    values
}

/// The step's URL with the keys that workers add. Gids and step names need no escaping in a query
/// or a header, because of their character sets (docs/races.md, R16).
fn full_url(base: &str, url: &str, call: &Call<'_>) -> String {
    let (gid, step, op) = (&call.task.saga.gid, &call.step.name, call.op().as_str());
    let joint = if url.contains('?') { "&" } else { "?" };
    let mut full = String::with_capacity(base.len() + url.len() + gid.len() + step.len() + QUERY_BYTES);
    full.extend([base, url, joint, "gid=", gid, "&trans_type=saga&branch_id=", step, "&op=", op]);
    full
}

/// Adds the signature of the idempotency key, the time and the body.
fn sign(values: &mut Values, call: &Call<'_>, secrets: &[webhook::Secret]) {
    let key_end = values.ends.first().map_or(0, |(_, end)| *end);
    // The signed content separates its parts by dots. A dot in the id would let a part of the body
    // pass as the timestamp. No gid and no step name contains `~`.
    // control: signature-id
    let id = values.text[..key_end].replace('.', "~");
    // control: signature-clock
    let now = call.clock.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let signature = webhook::sign(&id, now, &call.body, secrets);
    values.text.push_str(&id);
    values.end(WEBHOOK_ID);
    let _ = write!(values.text, "{now}");
    values.end(WEBHOOK_TIMESTAMP);
    values.text.push_str(&signature);
    values.end(WEBHOOK_SIGNATURE);
}
