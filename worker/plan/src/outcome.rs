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

/// What an attempt tells about the effect of its op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The op took effect.
    Done,
    /// This attempt had no effect and never will.
    None,
    /// The participant works on the op. Its next response says how that ended.
    Pending,
    /// Nobody knows, and no later refusal changes that.
    Maybe,
}

/// What an outcome means for the attempts after it. The view `pgsaga.outcome` says the same; a test
/// compares both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The word in SQL, metrics and logs.
    pub word: &'static str,
    /// The attempt says how the op stands, in place of what earlier attempts said.
    pub overrides: bool,
    /// The attempt counts against the retry limit.
    pub is_counted: bool,
    /// What is known of the op's effect.
    pub effect: Effect,
}

impl Outcome {
    /// All outcomes, for metrics that start at 0 and for exhaustive tests.
    pub const ALL: [Outcome; 5] =
        [Outcome::Success, Outcome::Failure, Outcome::Ongoing, Outcome::Unknown, Outcome::Unsent];

    /// The table of outcomes.
    pub fn facts(self) -> Facts {
        let facts = |word, overrides, is_counted, effect| Facts { word, overrides, is_counted, effect };
        match self {
            Outcome::Success => facts("success", true, true, Effect::Done),
            Outcome::Failure => facts("failure", true, true, Effect::None),
            Outcome::Ongoing => facts("ongoing", true, false, Effect::Pending),
            Outcome::Unknown => facts("unknown", true, true, Effect::Maybe),
            Outcome::Unsent => facts("unsent", false, true, Effect::None),
        }
    }

    /// The word in SQL, metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.facts().word
    }
}
