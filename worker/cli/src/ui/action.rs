//! What a person may decide about a saga or a queue, and what follows from it, in words.

use crate::error::Error;
use crate::operate::decide::{Decision, Ending};
use crate::operate::show::read::{Saga, Step, Task, Tries};
use crate::words::counted;
use pgsaga_plan::Op;
use pgsaga_plan::State;

/// Names of steps in one line.
const NAMES_MAX: usize = 20;

/// A decision without its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Retry,
    RetryFresh,
    Skip(String),
    Resolve(Ending),
    Abort,
    Force,
}

/// Whether a decision needs a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comment {
    Needed,
    Welcome,
}

/// What each does, for whoever has to choose.
pub(crate) const EXPLAINED: [(&str, &str); 7] = [
    (
        "Retry",
        "What is stuck is tried again under the same idempotency keys. For a participant that was repaired.",
    ),
    (
        "Retry under fresh keys",
        "The same under new idempotency keys, for a participant that remembers its refusal. Refused where some try was not \
         definitely refused, as the new key could do it twice.",
    ),
    (
        "Skip",
        "The step's action or compensation counts as done without a call. For what you have done by hand.",
    ),
    (
        "Resolve as succeeded",
        "The saga ends, and nothing more is called. For a saga all of whose work you have seen to.",
    ),
    (
        "Resolve as failed",
        "The saga ends, and nothing more is called. For a saga of which you have seen to it that nothing stands.",
    ),
    ("Abort", "The saga turns back: what was done is compensated, in reverse order."),
    ("Force", "The saga ends as failed, and nothing is compensated: what was done stays."),
];

impl Action {
    /// The action that a link or a form names.
    ///
    /// # Errors
    /// What is allowed instead.
    pub(crate) fn read(word: &str, step: Option<&str>) -> Result<Action, String> {
        match (word, step) {
            ("retry", _) => Ok(Action::Retry),
            ("retry-fresh", _) => Ok(Action::RetryFresh),
            ("skip", Some(step)) => Ok(Action::Skip(step.to_owned())),
            ("skip", None) => Err("step: found nothing; allowed: the name of a step".to_owned()),
            ("resolve-succeeded", _) => Ok(Action::Resolve(Ending::Succeeded)),
            ("resolve-failed", _) => Ok(Action::Resolve(Ending::Failed)),
            ("abort", _) => Ok(Action::Abort),
            ("force", _) => Ok(Action::Force),
            _ => Err(format!(
                "action: found {word:?}; allowed: retry, retry-fresh, skip, resolve-succeeded, resolve-failed, abort, force, \
                 pause, resume"
            )),
        }
    }

    /// As links and forms name it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Action::Retry => "retry",
            Action::RetryFresh => "retry-fresh",
            Action::Skip(_) => "skip",
            Action::Resolve(Ending::Succeeded) => "resolve-succeeded",
            Action::Resolve(Ending::Failed) => "resolve-failed",
            Action::Abort => "abort",
            Action::Force => "force",
        }
    }

    /// As buttons name it.
    pub(crate) fn title(&self) -> String {
        match self {
            Action::Retry => "Retry".to_owned(),
            Action::RetryFresh => "Retry under fresh keys".to_owned(),
            Action::Skip(step) => format!("Skip {step}"),
            Action::Resolve(ending) => format!("Resolve as {}", ending.word()),
            Action::Abort => "Abort".to_owned(),
            Action::Force => "Force".to_owned(),
        }
    }

    pub(crate) fn comment(&self) -> Comment {
        match self {
            Action::Retry | Action::RetryFresh => Comment::Welcome,
            _ => Comment::Needed,
        }
    }

    /// The decision with its comment.
    ///
    /// # Errors
    /// [`Error::Usage`] where a comment is needed and there is none.
    pub(crate) fn decision<'a>(&'a self, comment: Option<&'a str>) -> Result<Decision<'a>, Error> {
        let needed = || {
            comment.ok_or_else(|| {
                Error::Usage("comment: found nothing; allowed: 1 to 1,024 bytes that say why".to_owned())
            })
        };
        Ok(match self {
            Action::Retry => Decision::Retry { comment, fresh_key: false },
            Action::RetryFresh => Decision::Retry { comment, fresh_key: true },
            Action::Skip(step) => Decision::Skip { step, comment: needed()? },
            Action::Resolve(ending) => Decision::Resolve { ending: *ending, comment: needed()? },
            Action::Abort => Decision::Abort { reason: needed()? },
            Action::Force => Decision::Force { comment: needed()? },
        })
    }
}

/// What may be decided about a saga as it stands. The database has the last word.
pub(crate) fn allowed(saga: &Saga) -> Vec<Action> {
    let head = &saga.head;
    if head.finished_at.is_some() || head.ending.is_some() {
        return Vec::new();
    }
    let mut allowed = Vec::new();
    let is_stuck = head.status == "stuck";
    let has_begun = head.run_at.is_none() || head.last_seq.is_some();
    if is_stuck || has_begun && saga.tasks.iter().any(waits) {
        allowed.push(Action::Retry);
    }
    if is_stuck
        && saga.stuck.iter().all(|stuck| tries_of(saga, stuck.position, stuck.op).is_some_and(was_refused))
    {
        allowed.push(Action::RetryFresh);
    }
    allowed.extend(saga.stuck.iter().map(|stuck| Action::Skip(stuck.step.clone())));
    for task in &saga.tasks {
        let Some(step) = saga.steps.get(task.step) else { continue };
        match task.interrupt.as_deref() {
            None => allowed.push(Action::Skip(step.name.clone())),
            Some("unwind") if step.pivot => allowed.push(Action::Skip(step.name.clone())),
            Some(_) => {}
        }
    }
    if saga.is_forward() && head.abort_reason.is_none() && !is_past_pivot(saga) {
        allowed.push(Action::Abort);
    }
    allowed.push(Action::Resolve(Ending::Succeeded));
    allowed.push(Action::Resolve(Ending::Failed));
    allowed.push(Action::Force);
    allowed
}

fn waits(task: &Task) -> bool {
    task.worker.is_none() && task.due_ms > 0
}

fn is_past_pivot(saga: &Saga) -> bool {
    saga.steps.iter().any(|step| step.pivot && step.state == State::Done)
}

fn tries_of(saga: &Saga, position: Option<usize>, op: Option<Op>) -> Option<&Tries> {
    let step = saga.steps.get(position?)?;
    Some(match op? {
        Op::Action => &step.acted,
        Op::Compensate => &step.undid,
    })
}

fn was_refused(tries: &Tries) -> bool {
    !tries.doubtful && !tries.done && matches!(tries.outcome.as_deref(), None | Some("failure" | "unsent"))
}

/// What follows from a decision, a sentence a line. Nothing in it changes by itself from one second to the next, so that the
/// decision can be compared with what was read.
pub(crate) fn consequences(saga: &Saga, action: &Action) -> Vec<String> {
    let mut lines = match action {
        Action::Retry | Action::RetryFresh => retried(saga, *action == Action::RetryFresh),
        Action::Skip(step) => skipped(saga, step),
        Action::Resolve(ending) => ended(saga, ending.word()),
        Action::Force => ended(saga, "failed"),
        Action::Abort => aborted(saga),
    };
    if matches!(action, Action::Retry | Action::RetryFresh | Action::Skip(_) | Action::Abort) {
        if saga.head.paused_at.is_some() {
            lines.push(format!(
                "The queue {} is paused: nothing of it is called before it is resumed.",
                saga.head.queue
            ));
        }
        if saga.head.workers == 0 {
            lines.push("No worker is alive: nothing is called before one is started.".to_owned());
        }
    }
    lines
}

fn retried(saga: &Saga, fresh: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let key = if fresh { "a new idempotency key" } else { "the same idempotency key" };
    for stuck in &saga.stuck {
        let op = stuck.op.map_or("op", what);
        let nth = stuck.attempt.map(|attempt| format!(", as try {attempt}")).unwrap_or_default();
        lines.push(format!(
            "The {op} of {} is called again{nth}, under {key}{}.",
            stuck.step,
            at(saga, stuck.position, stuck.op)
        ));
    }
    if !saga.stuck.is_empty() {
        lines.push(goes_on(saga));
        lines.push("If it is refused again, the saga is stuck again.".to_owned());
        return lines;
    }
    for task in saga.tasks.iter().filter(|task| waits(task)) {
        let called = at(saga, Some(task.step), Some(task.op));
        lines.push(format!(
            "The {} of {} does not wait for its time: it is called as soon as a worker is free{called}.",
            what(task.op),
            name(saga, task.step)
        ));
    }
    lines
}

fn skipped(saga: &Saga, name: &str) -> Vec<String> {
    let index = saga.steps.iter().position(|step| step.name == name);
    let stuck = saga.stuck.iter().find(|stuck| stuck.step == name).and_then(|stuck| stuck.op);
    let task = saga.tasks.iter().find(|task| Some(task.step) == index);
    let op = stuck.or(task.map(|task| task.op)).unwrap_or(Op::Action);
    let mut lines = vec![format!("The {} of {name} counts as done. It is not called any more.", what(op))];
    lines.push(match op {
        Op::Action => format!("What {name} had to do is missing, unless you have done it."),
        Op::Compensate => format!("What {name} did stays, unless you have undone it."),
    });
    if task.is_some_and(|task| task.worker.is_some()) {
        lines.push("Its call in flight ends first, and its answer changes nothing.".to_owned());
    }
    let others: Vec<&str> =
        saga.stuck.iter().filter(|stuck| stuck.step != name).map(|stuck| stuck.step.as_str()).collect();
    if !others.is_empty() {
        lines.push(format!("The saga stays stuck, at {}.", names(&others)));
    } else if saga.head.status == "stuck" {
        lines.push(goes_on(saga));
    } else {
        lines.push("The saga goes on behind it.".to_owned());
    }
    lines
}

fn ended(saga: &Saga, status: &str) -> Vec<String> {
    let in_flight = saga.tasks.iter().filter(|task| task.worker.is_some()).count();
    let when = match in_flight {
        0 => "at once".to_owned(),
        1 => "as soon as the call in flight has ended".to_owned(),
        _ => format!("as soon as the {} in flight have ended", counted(in_flight as i64, "call", "calls")),
    };
    let mut lines = vec![format!("The saga ends as {status}, {when}. Nothing more is called for it, ever.")];
    let mut list = |what: &str, stands: &dyn Fn(&Step) -> bool| {
        let those: Vec<&str> =
            saga.steps.iter().filter(|step| stands(step)).map(|step| step.name.as_str()).collect();
        if !those.is_empty() {
            lines.push(format!("{what}: {}.", names(&those)));
        }
    };
    list("Done, and stays as it is", &|step| {
        matches!(step.state, State::Done | State::Undoing | State::StuckUndoing)
    });
    list("May have happened, and stays as it is", &|step| {
        matches!(step.state, State::MaybeDone | State::Acting | State::StuckActing)
    });
    list("Already undone", &|step| step.state == State::Undone);
    list("Never done", &|step| matches!(step.state, State::Waiting | State::NoEffect));
    lines
}

fn aborted(saga: &Saga) -> Vec<String> {
    let mut lines = vec!["No new action starts; calls in flight end first.".to_owned()];
    let may_stand = |step: &&Step| {
        matches!(step.state, State::Done | State::MaybeDone | State::Acting | State::StuckActing)
    };
    let of = |has: bool| -> Vec<&str> {
        let those = saga.steps.iter().rev().filter(may_stand).filter(|step| step.compensate.is_some() == has);
        those.map(|step| step.name.as_str()).collect()
    };
    match of(true).as_slice() {
        [] => lines.push("Nothing is there to be compensated.".to_owned()),
        those => lines.push(format!(
            "Compensated, as far as it may have taken effect, the last first: {}.",
            names(those)
        )),
    }
    if !of(false).is_empty() {
        lines.push(format!("Without a compensation, and stays as it is: {}.", names(&of(false))));
    }
    if let Some(pivot) =
        saga.steps.iter().find(|step| step.pivot && matches!(step.state, State::Acting | State::StuckActing))
    {
        lines.push(format!(
            "If its pivot {} was called, its outcome decides: if it succeeds, the saga goes on instead.",
            pivot.name
        ));
    }
    lines.push("Then the saga has failed, with your comment as its reason.".to_owned());
    lines
}

/// The status of a saga of which nothing is stuck any more.
fn goes_on(saga: &Saga) -> String {
    let acts = saga.stuck.iter().any(|stuck| stuck.op == Some(Op::Action))
        || saga.tasks.iter().any(|task| task.op == Op::Action);
    let (status, way) = if acts { ("submitted", "forwards") } else { ("aborting", "backwards") };
    format!("The saga goes on {way}: its status becomes {status}.")
}

fn name(saga: &Saga, index: usize) -> &str {
    saga.steps.get(index).map_or("?", |step| step.name.as_str())
}

/// An op, in a sentence.
fn what(op: Op) -> &'static str {
    match op {
        Op::Action => "action",
        Op::Compensate => "compensation",
    }
}

/// Where an op is called.
fn at(saga: &Saga, position: Option<usize>, op: Option<Op>) -> String {
    let url = position.and_then(|index| saga.steps.get(index)).and_then(|step| match op? {
        Op::Action => Some(step.action.as_str()),
        Op::Compensate => step.compensate.as_deref(),
    });
    url.filter(|url| !url.is_empty()).map(|url| format!(", at {url}")).unwrap_or_default()
}

fn names(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
