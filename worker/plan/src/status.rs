/// What a settle does to a saga's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusChange {
    /// The saga unwinds.
    Aborting,
    /// An abort waits for the definite outcome of the pivot.
    Awaiting,
    /// A person must decide.
    Stuck,
    /// Every action succeeded.
    Succeeded,
    /// Every effect was compensated.
    Failed,
    /// The saga ends as a person decided.
    Ending,
}

impl StatusChange {
    /// The word that the settle statements know.
    pub fn as_str(self) -> &'static str {
        match self {
            StatusChange::Aborting => "aborting",
            StatusChange::Awaiting => "awaiting",
            StatusChange::Stuck => "stuck",
            StatusChange::Succeeded => "succeeded",
            StatusChange::Failed => "failed",
            StatusChange::Ending => "ending",
        }
    }
}
