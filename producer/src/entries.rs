//! Headers and labels: objects of strings.

use serde_json::value::RawValue;

use crate::invalid::Invalid;
use crate::json::{self, found, quoted};

const ENTRIES_MAX: usize = 64;
const HEADER_NAME_MAX: usize = 128;
const HEADER_VALUE_MAX: usize = 4_096;
const LABEL_KEY_MAX: usize = 64;
const LABEL_VALUE_MAX: usize = 256;

/// Headers that are ours or the transport's.
const FORBIDDEN_HEADERS: [&str; 21] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "idempotency-key",
    "saga-attempt",
    "saga-timeout-ms",
    "saga-action-key",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

const STRINGS: &str = "an object of strings";
const ENTRIES: &str = "up to 64";
const HEADER_NAME: &str = "1 to 128 of the characters A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~";
const HEADER_VALUE: &str = "a string of up to 4,096 visible ASCII characters, spaces and tabs";
const LABEL_KEY: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ : / -";
const LABEL_VALUE: &str = "a string of up to 256 characters";

/// Whether pgsaga or the transport sets the header of this name. No saga may set it.
pub fn is_reserved_header(name: &str) -> bool {
    FORBIDDEN_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

pub(crate) fn headers(place: &str, value: &RawValue) -> Result<(), Invalid> {
    for (key, value) in entries(place, value)? {
        let place = format!("{place} {}", quoted(&key));
        if !is_token(&key) {
            return Err(Invalid::new(place, "a bad name", HEADER_NAME));
        }
        if is_reserved_header(&key) {
            return Err(Invalid::new(place, "a header that pgsaga or the transport sets", "any other"));
        }
        let fits = |text: &str| {
            text.len() <= HEADER_VALUE_MAX && text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))
        };
        if !json::string(value).is_some_and(|text| fits(&text)) {
            return Err(Invalid::new(place, found(Some(value)), HEADER_VALUE));
        }
    }
    Ok(())
}

/// A header's name as HTTP defines it (RFC 9110 §5.6.2).
fn is_token(name: &str) -> bool {
    (1..=HEADER_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

pub(crate) fn labels(value: &RawValue) -> Result<(), Invalid> {
    for (key, value) in entries("labels", value)? {
        let place = format!("labels {}", quoted(&key));
        if !(1..=LABEL_KEY_MAX).contains(&key.len())
            || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
        {
            return Err(Invalid::new(place, "a bad key", LABEL_KEY));
        }
        if json::string(value).is_none_or(|text| text.chars().count() > LABEL_VALUE_MAX) {
            return Err(Invalid::new(place, found(Some(value)), LABEL_VALUE));
        }
    }
    Ok(())
}

fn entries<'a>(place: &str, value: &'a RawValue) -> Result<Vec<(String, &'a RawValue)>, Invalid> {
    let Some(entries) = json::object(value) else {
        return Err(Invalid::new(place, found(Some(value)), STRINGS));
    };
    if entries.len() > ENTRIES_MAX {
        return Err(Invalid::new(place, format!("{} entries", entries.len()), ENTRIES));
    }
    Ok(entries.into_iter().map(|(key, value)| (key.0, value)).collect())
}
