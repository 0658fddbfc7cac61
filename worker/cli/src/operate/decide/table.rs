//! The table of decisions: their words, and what they do.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Retry,
    RetryFresh,
    CompleteSuccess,
    CompleteFailure,
    Skip,
    ResolveSucceeded,
    ResolveFailed,
    Abort,
    Force,
}

/// One row of the table of decisions.
pub(crate) struct Facts {
    /// The word in links, forms and `pgsaga.decide`.
    pub(crate) word: &'static str,
    /// The name on buttons.
    pub(crate) title: &'static str,
    /// The name in lines that say what was decided.
    pub(crate) about: &'static str,
    /// What the decision does and when it helps, for a person who has to choose.
    pub(crate) explained: &'static str,
    /// The command with GID and STEP, and what it does, for a person who looks at a stuck saga.
    pub(crate) helps: Option<(&'static str, &'static str)>,
    pub(crate) needs_comment: bool,
    /// Whether the decision is about one step.
    pub(crate) is_of_step: bool,
    /// What to do when nobody knows whether the decision was taken.
    pub(crate) repeating: &'static str,
}

/// What most decisions have in common.
const COMMON: Facts = Facts {
    word: "",
    title: "",
    about: "",
    explained: "",
    helps: None,
    needs_comment: true,
    is_of_step: false,
    repeating: "look with `pgsaga show` before you repeat it",
};

const RETRY: Facts = Facts {
    word: "retry",
    title: "Retry",
    about: "retry",
    explained: "What is stuck is tried again under the same idempotency keys. For a participant that was repaired.",
    helps: Some(("retry GID", "tries what is stuck again")),
    needs_comment: false,
    ..COMMON
};

const RETRY_FRESH: Facts = Facts {
    word: "retry-fresh",
    title: "Retry under fresh keys",
    about: "retry with a fresh key",
    explained: "The same under new idempotency keys, for a participant that remembers its refusal. Refused where some \
        try was not definitely refused, as the new key could do it twice.",
    needs_comment: false,
    ..COMMON
};

const COMPLETE_SUCCESS: Facts = Facts {
    word: "complete-success",
    title: "Report success of",
    about: "report success of",
    explained: "What a step waits for has happened: it is done, and the saga goes on.",
    helps: Some(("complete GID STEP success|failure --comment TEXT", "reports what it waits for")),
    needs_comment: false,
    is_of_step: true,
    repeating: "repeating it is safe",
};

const COMPLETE_FAILURE: Facts = Facts {
    word: "complete-failure",
    title: "Report failure of",
    about: "report failure of",
    explained: "What a step waits for was refused, and will not happen: the saga rolls back, or a compensation is stuck.",
    is_of_step: true,
    repeating: "repeating it is safe",
    ..COMMON
};

const SKIP: Facts = Facts {
    word: "skip",
    title: "Skip",
    about: "skip",
    explained: "The step's action or compensation counts as done without a call. For what you have done by hand.",
    helps: Some(("skip GID STEP --comment TEXT", "counts it as done")),
    is_of_step: true,
    ..COMMON
};

const RESOLVE_SUCCEEDED: Facts = Facts {
    word: "resolve-succeeded",
    title: "Resolve as succeeded",
    about: "resolve as succeeded",
    explained: "The saga ends, and nothing more is called. For a saga all of whose work you have seen to.",
    helps: Some(("resolve GID succeeded|failed --comment TEXT", "ends the saga as you have seen to it")),
    ..COMMON
};

const RESOLVE_FAILED: Facts = Facts {
    word: "resolve-failed",
    title: "Resolve as failed",
    about: "resolve as failed",
    explained: "The saga ends, and nothing more is called. For a saga of which you have seen to it that nothing stands.",
    ..COMMON
};

const ABORT: Facts = Facts {
    word: "abort",
    title: "Abort",
    about: "abort",
    explained: "The saga rolls back: what was done is compensated, in reverse order.",
    helps: Some(("abort GID --reason TEXT", "rolls the saga back")),
    repeating: "repeating it is safe",
    ..COMMON
};

const FORCE: Facts = Facts {
    word: "force",
    title: "Force",
    about: "force",
    explained: "The saga ends as failed, and nothing is compensated: what was done stays.",
    helps: Some(("force GID --comment TEXT", "ends it as failed without compensating")),
    ..COMMON
};

impl Decision {
    pub(crate) const ALL: [Decision; 9] = [
        Decision::Retry,
        Decision::RetryFresh,
        Decision::CompleteSuccess,
        Decision::CompleteFailure,
        Decision::Skip,
        Decision::ResolveSucceeded,
        Decision::ResolveFailed,
        Decision::Abort,
        Decision::Force,
    ];

    pub(crate) fn facts(self) -> Facts {
        match self {
            Decision::Retry => RETRY,
            Decision::RetryFresh => RETRY_FRESH,
            Decision::CompleteSuccess => COMPLETE_SUCCESS,
            Decision::CompleteFailure => COMPLETE_FAILURE,
            Decision::Skip => SKIP,
            Decision::ResolveSucceeded => RESOLVE_SUCCEEDED,
            Decision::ResolveFailed => RESOLVE_FAILED,
            Decision::Abort => ABORT,
            Decision::Force => FORCE,
        }
    }

    /// The decision of a link's or a form's word.
    pub(crate) fn parse(word: &str) -> Option<Decision> {
        Decision::ALL.into_iter().find(|decision| decision.facts().word == word)
    }
}
