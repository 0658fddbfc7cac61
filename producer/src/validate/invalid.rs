/// Why a saga is refused, in the words of the INSERT: the place, what was found, what is allowed.
///
/// `step "payment": action: found nothing; allowed: "" or a URL like https://host:port/path?query…`
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: found {found}; allowed: {allowed}")]
pub struct Invalid {
    place: String,
    found: String,
    allowed: String,
}

impl Invalid {
    pub(crate) fn new(place: impl ToString, found: impl ToString, allowed: impl ToString) -> Self {
        Self { place: place.to_string(), found: found.to_string(), allowed: allowed.to_string() }
    }

    /// Place of the error, such as `gid`, `steps[2]` or `step "payment": action`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What was found: a scalar as JSON cut to 64 characters, `nothing`, `an object`, `an array`,
    /// or a size.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What is allowed at this place.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}
