use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};
use pgsaga_test::call_log::Asked;

/// One call as it arrived, and what became of it. Query parameters and headers that are missing are
/// empty.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// `POST`, if the worker keeps the contract.
    pub method: Method,
    /// The endpoint.
    pub path: String,
    /// Query parameter: the saga.
    pub gid: String,
    /// Query parameter: `saga`, `tcc`, …
    pub trans_type: String,
    /// Query parameter: the step's name.
    pub branch_id: String,
    /// Query parameter: `action`, `compensate`, …
    pub op: String,
    /// The header `Idempotency-Key`.
    pub key: String,
    /// The header `Saga-Attempt`; 0 where it is missing.
    pub attempt: u32,
    /// The header `Saga-Timeout-Ms`; 0 where it is missing.
    pub timeout: Duration,
    /// All headers.
    pub headers: HeaderMap,
    /// The body's very bytes.
    pub body: Bytes,
    /// When it had arrived whole.
    pub started: Instant,
    /// When it was answered, or the caller hung up; `None` while it runs.
    pub ended: Option<Instant>,
    /// Whether the participant did the work, whatever it then said.
    pub worked: bool,
    /// The status it answered; `None` without an answer.
    pub status: Option<u16>,
}

impl Call {
    pub(super) fn new(
        method: Method,
        path: &str,
        query: &HashMap<String, String>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Self {
        let parameter = |name| query.get(name).cloned().unwrap_or_default();
        Self {
            method,
            path: path.to_owned(),
            gid: parameter("gid"),
            trans_type: parameter("trans_type"),
            branch_id: parameter("branch_id"),
            op: parameter("op"),
            key: text(&headers, "idempotency-key"),
            attempt: number(&headers, "saga-attempt"),
            timeout: Duration::from_millis(number(&headers, "saga-timeout-ms").into()),
            headers,
            body,
            started: Instant::now(),
            ended: None,
            worked: false,
            status: None,
        }
    }

    /// The same for a ledger.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            key: self.key.clone(),
            gid: self.gid.clone(),
            step: self.branch_id.clone(),
            op: self.op.clone(),
            attempt: self.attempt,
        }
    }

    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> String {
        text(&self.headers, name)
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn number(headers: &HeaderMap, name: &str) -> u32 {
    text(headers, name).parse().unwrap_or_default()
}
