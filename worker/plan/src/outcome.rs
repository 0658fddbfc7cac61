/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The op took effect.
    Success,
    /// A definite refusal: under this key nothing was done, and nothing ever will be.
    Failure,
    /// The participant accepted the call and has not finished: ask again.
    Ongoing,
    /// The op may or may not have taken effect.
    Unknown,
    /// The call never left, or was turned away unread (429): there is nothing to compensate.
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
}
