use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::invalid::Invalid;

/// Failing is put off until the saga is checked, so that building stays one chain.
#[derive(Debug, Clone, Default)]
pub(crate) enum Payload {
    #[default]
    Absent,
    Json(Box<RawValue>),
    Failed(String),
}

impl Payload {
    pub(crate) fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        to_raw_value(value).map_or_else(|error| Self::Failed(error.to_string()), Self::Json)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Refuses a value that did not become JSON.
    pub(crate) fn check(&self, place: impl FnOnce() -> String) -> Result<(), Invalid> {
        match self {
            Self::Failed(error) => {
                let found = format!("a value that does not become JSON ({error})");
                Err(Invalid::new(place(), found, "any JSON"))
            }
            Self::Absent | Self::Json(_) => Ok(()),
        }
    }

    /// The JSON, if there is some.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Json(json) => Some(json.get()),
            Self::Absent | Self::Failed(_) => None,
        }
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => json.serialize(serializer),
            Self::Absent => serializer.serialize_none(),
            Self::Failed(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}
