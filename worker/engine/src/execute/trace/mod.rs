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
use std::fmt::Write as _;

use pgsaga_sql::contract::Target;
use reqwest::header::{HeaderName, HeaderValue};

use crate::execute::call::Call;
#[cfg(not(feature = "otlp"))]
use off::CallSpan;
#[cfg(feature = "otlp")]
use otlp::CallSpan;

/// Environment variables of OpenTelemetry that name a collector. The first applies to traces only.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACEPARENT_BYTES: usize = 55;

/// Begins the span of a call where calls are traced. Adds the trace context to the call's headers:
/// that of the span, else the saga's own, else that of a new sampled trace.
pub(crate) fn begin(traces: Option<&Traces>, call: &mut Call<'_>, target: &Target) -> Option<CallSpan> {
    let span = traces.map(|traces| traces.begin(call, target));
    if span.is_none() && !call.headers.contains_key(TRACEPARENT) {
        let (trace, span): (u128, u64) = rand::random();
        let mut text = String::with_capacity(TRACEPARENT_BYTES);
        // Writing to a string cannot fail, and hexadecimal digits are a header's value.
        let _ = write!(text, "00-{trace:032x}-{span:016x}-01");
        call.headers.extend(HeaderValue::try_from(text).map(|value| (TRACEPARENT, value)));
    }
    span
}

/// Whether one of the variables is set.
fn are_wanted() -> bool {
    ENDPOINTS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}
