//! Stubs for a build without traces.

use pgsaga_sql::contract::Target;

use crate::error::Error;
use crate::execute::call::{Call, Called};

/// Has no values in this build.
#[derive(Debug, Clone)]
pub enum Traces {}

/// Has no values, like [`Traces`].
#[derive(Debug)]
pub(crate) enum CallSpan {}

impl Traces {
    /// Returns `None`. Logs a warning if traces are configured.
    ///
    /// # Errors
    /// None in this build.
    pub fn from_env() -> Result<Option<Traces>, Error> {
        if super::are_wanted() {
            tracing::warn!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this build has no traces: it needs the feature otlp"
            );
        }
        Ok(None)
    }

    /// Never called in this build.
    pub(crate) fn begin(&self, _call: &mut Call<'_>, _target: &Target) -> CallSpan {
        match *self {}
    }

    /// Exports the remaining spans and stops.
    pub async fn close(self) {
        match self {}
    }
}

impl CallSpan {
    /// Ends the span with what became of the call.
    pub(crate) fn end(self, _called: &Called) {
        match self {}
    }
}
