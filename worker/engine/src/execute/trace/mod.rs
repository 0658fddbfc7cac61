//! OpenTelemetry traces: one span per call, in the trace of the saga's producer (header
//! `traceparent`, W3C Trace Context). Only a build with the feature `otlp` has traces.
//! OpenTelemetry's environment variables select the collector.

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use off::Traces;
#[cfg(feature = "otlp")]
pub use otlp::Traces;

use std::env;

/// Environment variables of OpenTelemetry that name a collector. The first applies to traces only.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether one of the variables is set.
fn are_wanted() -> bool {
    ENDPOINTS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}
