//! OpenTelemetry traces: one span a call, in the trace of whoever inserted the saga (`traceparent` among its headers; W3C Trace
//! Context). Only a build with the feature `otlp` has them; where they go is for OpenTelemetry's own variables to say.

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use off::{CallSpan, Traces};
#[cfg(feature = "otlp")]
pub use otlp::{CallSpan, Traces};

use std::env;

/// OpenTelemetry's variables that name a collector; the first is for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether somebody wants traces.
fn are_wanted() -> bool {
    ENDPOINTS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}
