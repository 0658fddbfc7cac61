//! How a try of an op ended.

/// How a try of an op ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done.
    Success,
    /// A definite no: nothing was, is or will be done under this key.
    Failure,
    /// Accepted and not finished: ask again after the unchanged interval.
    Ongoing,
    /// It may or may not have happened.
    Unknown,
    /// It never left, or was turned away before it was looked at (429): nothing to compensate.
    Unsent,
}

impl Outcome {
    /// All outcomes, for metrics that start at 0 and for exhaustive tests.
    pub const ALL: [Outcome; 5] =
        [Outcome::Success, Outcome::Failure, Outcome::Ongoing, Outcome::Unknown, Outcome::Unsent];

    /// The word in SQL, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Ongoing => "ongoing",
            Outcome::Unknown => "unknown",
            Outcome::Unsent => "unsent",
        }
    }

    /// The inverse of [`Outcome::as_str`].
    pub fn parse(word: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}
