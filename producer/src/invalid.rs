/// Why a saga is refused, in the same words as the INSERT itself would use: where, what was found, what is allowed.
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
    pub(crate) fn new(
        place: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { place: place.into(), found: found.into(), allowed: allowed.into() }
    }

    /// What is wrong, for example `gid`, `steps[2]` or `step "payment": action`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What was found there: a scalar as JSON cut to 64 characters, `nothing`, `an object`, `an array`, or a size.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What is allowed there.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}
