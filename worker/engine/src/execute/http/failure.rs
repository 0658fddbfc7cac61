//! What an error of the client says of a try.

use std::time::Instant;

use super::wire::Wire;
use super::{TOO_LATE, Unmade, ended};
use crate::execute::address;
use crate::execute::outcome::{Ended, clean};
use crate::flow::participants::Reached;
use pgsaga_plan::Outcome;

/// What an error of the client says of the try.
pub(super) fn failed(error: &reqwest::Error, wire: &Wire, started: Instant) -> Result<Ended, Unmade> {
    if let Some(denied) = address::denied(error) {
        return Err(Unmade::Denied(denied.to_string()));
    }
    if error.is_builder() {
        return Err(Unmade::Unbuildable(format!("the request cannot be built: {}", words(error))));
    }
    let outcome = if wire.take_back() { Outcome::Unsent } else { Outcome::Unknown };
    let silent = error.is_connect() || error.is_timeout();
    let reached = if silent { Reached::Silent } else { Reached::Broken };
    Ok(ended(outcome, reached, Some(words(error)), started))
}

/// An error of the client with its causes, without the URL: it is on the saga, and may be long.
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
