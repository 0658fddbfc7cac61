//! What a handler gets.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pgsaga_plan::Op;
use reqwest::header::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::execute::call::clean;
use crate::execute::task::definition::{Definition, FreshKeys};
use crate::liveness::handlers::RunningHandler;

/// Upper bound on the bytes of a report.
const PROGRESS_BYTES_MAX: usize = 200;

/// A call of a handler: the step's payload, and what an HTTP participant reads from headers.
#[derive(Debug)]
pub struct Call<P> {
    /// The payload of the step, or its `compensate_payload`.
    pub payload: P,
    pub(super) about: Arc<About>,
}

/// All of a call but its payload.
#[derive(Debug)]
pub(super) struct About {
    pub(super) saga: Arc<Definition>,
    pub(super) step: usize,
    pub(super) op: Op,
    pub(super) fresh_keys: FreshKeys,
    pub(super) attempt: u32,
    pub(super) deadline: Option<Instant>,
    pub(super) headers: HeaderMap,
    pub(super) running: Arc<RunningHandler>,
}

impl<P> Call<P> {
    /// The idempotency key of the op: all its attempts have the same one, unless a person's `retry`
    /// asked for a fresh one. What was done under a key is not done again.
    pub fn key(&self) -> String {
        self.key_of(self.about.op)
    }

    /// In a compensation, the key under which the step's action was called.
    pub fn action_key(&self) -> String {
        self.key_of(Op::Action)
    }

    fn key_of(&self, op: Op) -> String {
        let mut key = String::new();
        self.about.saga.push_key(&mut key, self.about.step, op, &self.about.fresh_keys);
        key
    }

    /// The gid of the saga that calls.
    pub fn gid(&self) -> &str {
        &self.about.saga.gid
    }

    /// The name of the step that calls.
    pub fn step(&self) -> &str {
        self.about.saga.step_name(self.about.step)
    }

    /// Whether the op is a compensation.
    pub fn is_compensation(&self) -> bool {
        self.about.op == Op::Compensate
    }

    /// The number of this attempt of the op, from 1.
    pub fn attempt(&self) -> u32 {
        self.about.attempt
    }

    /// When the saga's `timeout_to_fail` ends, by this process's clock; `None` for a saga without a
    /// deadline, and for one that no longer rolls back.
    pub fn deadline(&self) -> Option<Instant> {
        self.about.deadline
    }

    /// A header of the saga or the step, such as `traceparent`; `None` where there is none, or
    /// where it is no visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.about.headers.get(name)?.to_str().ok()
    }

    /// Tells people how far the handler has come: `pgsaga show` has the last report while the
    /// handler runs, within a few seconds. At most 200 bytes are kept, and nothing of it decides
    /// anything.
    pub fn report_progress(&self, progress: impl fmt::Display) {
        let mut progress = clean(&progress.to_string());
        progress.truncate(progress.floor_char_boundary(PROGRESS_BYTES_MAX));
        self.about.running.report(progress);
    }

    /// Is cancelled when this attempt should end soon: after `request_timeout`, at the saga's
    /// deadline, when the saga is aborted, when the worker has lost its lease, or when it drains.
    /// An attempt ends when its handler returns, and no other attempt of the op begins before.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.about.running.cancelled
    }
}
