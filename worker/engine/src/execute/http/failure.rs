//! Outcome of an attempt that ended with an error of the HTTP client.

use super::TOO_LATE;
use super::wire::Wire;
use crate::error::causes;
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
    let is_unsent = wire.take_back().is_ok() || is_unprocessed(error);
    let outcome = if is_unsent { Outcome::Unsent } else { Outcome::Unknown };
    let is_silent = error.is_connect() || error.is_timeout();
    let reached = if is_silent { Reach::Silent } else { Reach::Broken };
    Ok(call.ended(outcome, reached, Some(words(error))))
}

/// Whether the participant said that it did not process the request: it refused the stream, or
/// closed the connection in order and had not begun the stream (RFC 9113 §6.8 and §8.7). A GOAWAY
/// with an error code also ends streams that were begun, and the client does not tell which.
pub(super) fn is_unprocessed(error: &reqwest::Error) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(|cause| {
        cause.is_remote()
            && (cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM)
                || cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR))
    })
}

/// Describes an error by its causes. Omits the URL, which is stored with the saga and may be long.
pub(super) fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return TOO_LATE.to_owned();
    }
    match causes(error).last() {
        Some(deepest) if error.is_connect() => clean(&format!("could not connect: {deepest}")),
        Some(deepest) => clean(&format!("the connection broke: {deepest}")),
        None => clean(&error.to_string()),
    }
}
