//! What may be decided about a saga as it stands, and what follows from it, in words. The functions
//! in the database have the last word.

use pgsaga_plan::{Completion, Interrupt, Op, Outcome, State};
use pgsaga_sql::contract::SagaStatus;

use super::{Decision, Request};
use crate::operate::read::saga::{Saga, Step, Stuck, Task};
use crate::words::{counted, some_names};

/// Upper bound on the names of steps in one line.
const NAMES_MAX: usize = 20;

/// A decision that may be taken, without its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) decision: Decision,
    pub(crate) step: Option<String>,
}

impl Offer {
    pub(crate) fn title(&self) -> String {
        let title = self.decision.facts().title;
        self.step.as_ref().map_or_else(|| title.to_owned(), |step| format!("{title} {step}"))
    }

    pub(crate) fn request<'a>(&'a self, comment: Option<&'a str>) -> Request<'a> {
        Request { decision: self.decision, step: self.step.as_deref(), comment }
    }
}

/// What may be decided, in the order of the table.
pub(crate) fn allowed(saga: &Saga) -> Vec<Offer> {
    if saga.head.finished_at.is_some() || saga.head.ending.is_some() {
        return Vec::new();
    }
    let steps = |names: Vec<&str>| names.into_iter().map(|step| Some(step.to_owned())).collect::<Vec<_>>();
    let offers = Decision::ALL.into_iter().flat_map(|decision| {
        let of = match decision {
            Decision::Skip => steps(skippable(saga)),
            Decision::CompleteSuccess | Decision::CompleteFailure => steps(completable(saga)),
            decision if is_allowed(saga, decision) => vec![None],
            _ => Vec::new(),
        };
        of.into_iter().map(move |step| Offer { decision, step })
    });
    offers.collect()
}

fn is_allowed(saga: &Saga, decision: Decision) -> bool {
    let head = &saga.head;
    let is_stuck = head.status == SagaStatus::Stuck;
    match decision {
        Decision::Retry => {
            let has_begun = head.run_at.is_none() || head.last_seq.is_some();
            is_stuck || has_begun && saga.tasks.iter().any(Task::waits)
        }
        Decision::RetryFresh => {
            let is_refused = |stuck: &Stuck| {
                let step = stuck.position.and_then(|position| saga.steps.get(position));
                step.is_some_and(|step| step.tries(stuck.op.unwrap_or(Op::Action)).refused)
            };
            is_stuck && saga.stuck.iter().all(is_refused)
        }
        Decision::Skip | Decision::CompleteSuccess | Decision::CompleteFailure => false,
        Decision::ResolveSucceeded | Decision::ResolveFailed | Decision::Force => true,
        Decision::Abort => saga.is_forward() && head.abort_reason.is_none() && !saga.is_past_pivot(),
    }
}

/// The steps that wait for a completion, and those that are stuck because none came.
fn completable(saga: &Saga) -> Vec<&str> {
    let waits = saga.tasks.iter().filter(|task| task.waits_for_completion());
    let waiting = waits.filter_map(|task| saga.steps.get(task.step)).map(|step| step.name.as_str());
    let is_of_wait = |stuck: &&Stuck| {
        let step = stuck.position.and_then(|position| saga.steps.get(position));
        // A refusal was reported already.
        let is_reported = step.is_some_and(|step| step.acted.outcome == Some(Outcome::Failure));
        stuck.op == Some(Op::Action) && step.is_some_and(Step::waits) && !is_reported
    };
    saga.stuck.iter().filter(is_of_wait).map(|stuck| stuck.step.as_str()).chain(waiting).collect()
}

/// The steps that are stuck, or run and were not decided about yet.
fn skippable(saga: &Saga) -> Vec<&str> {
    let running = saga.tasks.iter().filter_map(|task| {
        let step = saga.steps.get(task.step)?;
        let may_be = match task.interrupt {
            None => true,
            // The outcome of a pivot that was called is awaited.
            Some(Interrupt::Unwind) => step.pivot,
            Some(Interrupt::Skip | Interrupt::End) => false,
        };
        may_be.then_some(step.name.as_str())
    });
    saga.stuck.iter().map(|stuck| stuck.step.as_str()).chain(running).collect()
}

/// What follows from a decision, a sentence a line. No line changes with the time alone, so that
/// the lines can be compared with those that a person has read.
pub(crate) fn consequences(saga: &Saga, offer: &Offer) -> Vec<String> {
    let mut lines = match offer.decision {
        Decision::Retry => retried(saga, "the same idempotency key"),
        Decision::RetryFresh => retried(saga, "a new idempotency key"),
        Decision::CompleteSuccess => reported(saga, offer, Completion::Success),
        Decision::CompleteFailure => reported(saga, offer, Completion::Failure),
        Decision::Skip => skipped(saga, offer.step.as_deref().unwrap_or_default()),
        Decision::ResolveSucceeded => return ended(saga, SagaStatus::Succeeded),
        Decision::ResolveFailed | Decision::Force => return ended(saga, SagaStatus::Failed),
        Decision::Abort => aborted(saga),
    };
    if saga.head.paused_at.is_some() {
        let queue = &saga.head.queue;
        lines.push(format!("The queue {queue} is paused: nothing of it is called before it is resumed."));
    }
    if saga.head.workers == 0 {
        lines.push("No worker is alive: nothing is called before one is started.".to_owned());
    }
    lines
}

fn retried(saga: &Saga, key: &str) -> Vec<String> {
    let mut lines = Vec::new();
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
    for task in saga.tasks.iter().filter(|task| task.waits()) {
        let called = at(saga, Some(task.step), Some(task.op));
        lines.push(format!(
            "The {} of {} does not wait for its time: it is called as soon as a worker is free{called}.",
            what(task.op),
            task.name
        ));
    }
    lines
}

/// The op at which a step stands.
fn standing(saga: &Saga, name: &str) -> Op {
    let index = saga.steps.iter().position(|step| step.name == name);
    let stuck = saga.stuck.iter().find(|stuck| stuck.step == name).and_then(|stuck| stuck.op);
    let task = saga.tasks.iter().find(|task| Some(task.step) == index);
    stuck.or(task.map(|task| task.op)).unwrap_or(Op::Action)
}

fn reported(saga: &Saga, offer: &Offer, completion: Completion) -> Vec<String> {
    let name = offer.step.as_deref().unwrap_or_default();
    let op = standing(saga, name);
    let mut lines = vec![match completion {
        Completion::Success => format!("The {} of {name} is done. It waits no longer.", what(op)),
        Completion::Failure => {
            format!("The {} of {name} is refused: nothing was done, and nothing will be.", what(op))
        }
    }];
    lines.push(match (completion, op) {
        (Completion::Success, _) => "The saga goes on behind it.".to_owned(),
        (Completion::Failure, Op::Compensate) => "The saga is stuck then.".to_owned(),
        (Completion::Failure, Op::Action) if saga.is_past_pivot() => "The saga is stuck then.".to_owned(),
        (Completion::Failure, Op::Action) => {
            "The saga rolls back, and has failed then, with your comment as its reason.".to_owned()
        }
    });
    lines.push("The first report counts: it cannot be taken back.".to_owned());
    lines
}

fn skipped(saga: &Saga, name: &str) -> Vec<String> {
    let index = saga.steps.iter().position(|step| step.name == name);
    let task = saga.tasks.iter().find(|task| Some(task.step) == index);
    let op = standing(saga, name);
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
        lines.push(format!("The saga stays stuck, at {}.", some_names(&others, NAMES_MAX)));
    } else if saga.head.status == SagaStatus::Stuck {
        lines.push(goes_on(saga));
    } else {
        lines.push("The saga goes on behind it.".to_owned());
    }
    lines
}

fn ended(saga: &Saga, status: SagaStatus) -> Vec<String> {
    let in_flight = saga.tasks.iter().filter(|task| task.worker.is_some()).count();
    let when = match in_flight {
        0 => "at once".to_owned(),
        1 => "as soon as the call in flight has ended".to_owned(),
        _ => format!("as soon as the {} in flight have ended", counted(in_flight as i64, "call", "calls")),
    };
    let mut lines =
        vec![format!("The saga ends as {}, {when}. Nothing more is called for it, ever.", status.as_str())];
    let mut list = |what: &str, stands: &dyn Fn(&Step) -> bool| {
        let those: Vec<&str> =
            saga.steps.iter().filter(|step| stands(step)).map(|step| step.name.as_str()).collect();
        if !those.is_empty() {
            lines.push(format!("{what}: {}.", some_names(&those, NAMES_MAX)));
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
            some_names(those, NAMES_MAX)
        )),
    }
    if !of(false).is_empty() {
        lines.push(format!(
            "Without a compensation, and stays as it is: {}.",
            some_names(&of(false), NAMES_MAX)
        ));
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
    let (status, way) =
        if acts { (SagaStatus::Submitted, "forwards") } else { (SagaStatus::Aborting, "backwards") };
    format!("The saga goes on {way}: its status becomes {}.", status.as_str())
}

fn what(op: Op) -> &'static str {
    match op {
        Op::Action => "action",
        Op::Compensate => "compensation",
    }
}

fn at(saga: &Saga, position: Option<usize>, op: Option<Op>) -> String {
    let url = position.and_then(|index| saga.steps.get(index)).and_then(|step| match op? {
        Op::Action => Some(step.action.as_str()),
        Op::Compensate => step.compensate.as_deref(),
    });
    url.filter(|url| !url.is_empty()).map(|url| format!(", at {url}")).unwrap_or_default()
}
