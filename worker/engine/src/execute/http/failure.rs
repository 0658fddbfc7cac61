//! Outcome of an attempt that ended with an error of the HTTP client.

use super::TOO_LATE;
use super::wire::Wire;
use crate::execute::address;
use crate::execute::call::{Call, Called, NotSent, clean};
use crate::flow::participants::Reach;
use pgsaga_plan::Outcome;

/// Converts an error of the client to the result of the attempt.
pub(super) fn failed(call: &Call<'_>, error: &reqwest::Error, wire: &Wire) -> Called {
    if let Some(denied) = address::denied(error) {
        return Err(NotSent::Denied(denied.to_string()));
    }
    if error.is_builder() {
        return Err(NotSent::Unbuildable(format!("the request cannot be built: {}", words(error))));
    }
    let outcome = if wire.take_back() { Outcome::Unsent } else { Outcome::Unknown };
    let silent = error.is_connect() || error.is_timeout();
    let reached = if silent { Reach::Silent } else { Reach::Broken };
    Ok(call.ended(outcome, reached, Some(words(error))))
}

/// Describes an error by its causes. Omits the URL, which is stored with the saga and may be long.
pub(super) fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return TOO_LATE.to_owned();
    }
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    match causes.last() {
        Some(deepest) if error.is_connect() => clean(&format!("could not connect: {deepest}")),
        Some(deepest) => clean(&format!("the connection broke: {deepest}")),
        None => clean(&error.to_string()),
    }
}
