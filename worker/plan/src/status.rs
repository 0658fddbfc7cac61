//! A saga's status, and how a settle changes it.

/// A saga's status, as users and SQL know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SagaStatus {
    /// It goes forward.
    Submitted,
    /// It unwinds: what may have taken effect is compensated.
    Aborting,
    /// It cannot go on without a person.
    Stuck,
    /// It is over, and every step is done.
    Succeeded,
    /// It is over, and no step is left done that could be compensated.
    Failed,
}

impl SagaStatus {
    /// All of them, in the order of a saga's life.
    pub const ALL: [SagaStatus; 5] = [
        SagaStatus::Submitted,
        SagaStatus::Aborting,
        SagaStatus::Stuck,
        SagaStatus::Succeeded,
        SagaStatus::Failed,
    ];

    /// The word in SQL, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            SagaStatus::Submitted => "submitted",
            SagaStatus::Aborting => "aborting",
            SagaStatus::Stuck => "stuck",
            SagaStatus::Succeeded => "succeeded",
            SagaStatus::Failed => "failed",
        }
    }
}

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
