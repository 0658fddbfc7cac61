//! A build without traces.

use reqwest::Request;

use crate::error::Error;
use crate::execute::outcome::Ended;
use crate::task::Task;

/// None in this build.
#[derive(Debug, Clone)]
pub enum Traces {}

/// See [`Traces`].
#[derive(Debug)]
pub enum CallSpan {}

impl Traces {
    /// None; who asks for some is told.
    ///
    /// # Errors
    /// Never.
    pub fn from_env() -> Result<Option<Traces>, Error> {
        if super::are_wanted() {
            tracing::warn!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this build has no traces: it needs the feature otlp"
            );
        }
        Ok(None)
    }

    /// A call begins.
    pub fn begin(&self, _task: &Task, _request: &mut Request) -> CallSpan {
        match *self {}
    }

    /// Sends what is left.
    pub async fn close(self) {
        match self {}
    }
}

impl CallSpan {
    /// The call has ended.
    pub fn end(self, _ended: &Ended) {
        match self {}
    }
}
