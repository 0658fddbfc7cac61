//! What must hold in every state.

/// What the search checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// A task that comes back fits the saga.
    Legal,
    /// An unfinished saga has a task or is stuck.
    Alive,
    /// No task belongs to a finished saga.
    NoTaskAfterEnd,
    /// An action has a task only if every step it waits for has succeeded.
    ForwardOrder,
    /// A compensation has a task only if everything that depends on its step is undone or never
    /// took effect.
    BackwardOrder,
    /// What is ready has a task: no join is lost.
    NothingMissed,
    /// An op has one task at most.
    NoDoubleStart,
    /// A saga that succeeded has succeeded in every step.
    AllSucceeded,
    /// A saga that failed left nothing standing that may have happened and can be undone.
    NothingLeftStanding,
    /// Only what may have happened is compensated.
    NoNeedlessUndo,
    /// An op that succeeded is never queued again.
    NeverAgain,
    /// Tries of an op are numbered 1, 2, 3 … without gap.
    Numbered,
    /// A task remembers what its earlier tries came to.
    Remembered,
    /// A saga unwinds once.
    OneUnwind,
    /// No action runs once a compensation exists.
    NoActionAfterUndo,
    /// After the pivot's success nothing is compensated, and nothing unwinds.
    PivotStands,
    /// While it is open whether the pivot happened, nothing unwinds and nothing is undone.
    PivotAwaited,
    /// Folding the history gives the saga's progress.
    Folds,
    /// A stuck step has a task to retry, and a reason that its history bears out.
    StuckNamed,
    /// A saga that unwinds has one reason, which its history bears out.
    ReasonNamed,
    /// What may have happened at a participant is in the history.
    Recorded,
    /// What the history says was said by a participant, about this try.
    Answered,
    /// Only the participant's own definite answer overrides that it accepted an op: a call that was
    /// not made overrides nothing.
    OnlyAnswersOverride,
    /// After an abort or the deadline no action starts, but a pivot that was called; and the saga
    /// does not succeed, unless its pivot did.
    AbortHeard,
    /// A limit gives an op that many counted retries.
    Limited,
    /// A refusal after an unknown try was said twice before it counts.
    Confirmed,
    /// A task that may not be called is over.
    Progresses,
    /// No completion that was taken is lost.
    CompletionHeard,
    /// An op with a completion is never asked again.
    CompletionFinal,
    /// A wait ends by its completion, its end, an abort, or a person, however often it is claimed.
    WaitKept,
    /// A try that calls nobody, or only asks, leaves nothing unknown.
    NothingUnknown,
    /// What the application does is never called.
    DoneOutside,
    /// Once the decision of a message, a tcc or an xa is taken, nothing unwinds.
    DecisionStands,
}

impl Invariant {
    pub(super) const ALL: [Invariant; 33] = [
        Invariant::Legal,
        Invariant::Alive,
        Invariant::NoTaskAfterEnd,
        Invariant::ForwardOrder,
        Invariant::BackwardOrder,
        Invariant::NothingMissed,
        Invariant::NoDoubleStart,
        Invariant::AllSucceeded,
        Invariant::NothingLeftStanding,
        Invariant::NoNeedlessUndo,
        Invariant::NeverAgain,
        Invariant::Numbered,
        Invariant::Remembered,
        Invariant::OneUnwind,
        Invariant::NoActionAfterUndo,
        Invariant::PivotStands,
        Invariant::PivotAwaited,
        Invariant::Folds,
        Invariant::StuckNamed,
        Invariant::ReasonNamed,
        Invariant::Recorded,
        Invariant::Answered,
        Invariant::OnlyAnswersOverride,
        Invariant::AbortHeard,
        Invariant::Limited,
        Invariant::Confirmed,
        Invariant::Progresses,
        Invariant::CompletionHeard,
        Invariant::CompletionFinal,
        Invariant::WaitKept,
        Invariant::NothingUnknown,
        Invariant::DoneOutside,
        Invariant::DecisionStands,
    ];
}

/// An invariant that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) invariant: Invariant,
    pub(super) what: String,
}

/// `Err` unless `holds`; the words are made only for what is broken.
pub(super) fn ensure(invariant: Invariant, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, what: what() }) }
}
