//! Headers and labels: objects of strings.

use pgsaga_sql::contract::{
    ENTRIES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_CHARS_MAX, is_header_name, is_header_value,
    is_reserved_header,
};
use serde_json::value::RawValue;

use super::invalid::Invalid;
use super::json::{self, found, quoted};

const STRINGS: &str = "an object of strings";
const ENTRIES: &str = "up to 64";
const HEADER_NAME: &str = "1 to 128 of the characters A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~";
const HEADER_VALUE: &str = "a string of up to 4,096 visible ASCII characters, spaces and tabs";
const LABEL_KEY: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ : / -";
const LABEL_VALUE: &str = "a string of up to 256 characters";

pub(super) fn headers(place: &str, value: &RawValue) -> Result<(), Invalid> {
    for (key, value) in entries(place, value)? {
        let place = format!("{place} {}", quoted(&key));
        if !is_header_name(&key) {
            return Err(Invalid::new(place, "a bad name", HEADER_NAME));
        }
        if is_reserved_header(&key) {
            return Err(Invalid::new(place, "a header that pgsaga or the transport sets", "any other"));
        }
        if !json::string(value).is_some_and(|text| is_header_value(&text)) {
            return Err(Invalid::new(place, found(Some(value)), HEADER_VALUE));
        }
    }
    Ok(())
}

pub(super) fn labels(value: &RawValue) -> Result<(), Invalid> {
    for (key, value) in entries("labels", value)? {
        let place = format!("labels {}", quoted(&key));
        if !(1..=LABEL_KEY_BYTES_MAX).contains(&key.len())
            || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
        {
            return Err(Invalid::new(place, "a bad key", LABEL_KEY));
        }
        if json::string(value).is_none_or(|text| text.chars().count() > LABEL_VALUE_CHARS_MAX) {
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
