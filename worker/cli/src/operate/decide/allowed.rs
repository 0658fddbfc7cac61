//! What may be decided about a saga as it stands. The functions in the database have the last word.

use pgsaga_plan::{Interrupt, Op, SagaStatus};

use super::{Decision, Request};
use crate::operate::read::saga::{Saga, Task, Tries};

/// A decision that may be taken, without its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) decision: Decision,
    pub(crate) step: Option<String>,
}

impl Offer {
    /// The name on a button.
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
    let offers = Decision::ALL.into_iter().flat_map(|decision| {
        let steps = match decision {
            Decision::Skip => skippable(saga).into_iter().map(|step| Some(step.to_owned())).collect(),
            decision if is_allowed(saga, decision) => vec![None],
            _ => Vec::new(),
        };
        steps.into_iter().map(move |step| Offer { decision, step })
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
            let refused = |position: Option<usize>, op: Option<Op>| {
                let step = saga.steps.get(position?)?;
                Some(step.tries(op.unwrap_or(Op::Action)))
            };
            is_stuck
                && saga
                    .stuck
                    .iter()
                    .all(|stuck| refused(stuck.position, stuck.op).is_some_and(|tries: &Tries| tries.refused))
        }
        Decision::Skip => false,
        Decision::ResolveSucceeded | Decision::ResolveFailed | Decision::Force => true,
        Decision::Abort => saga.is_forward() && head.abort_reason.is_none() && !saga.is_past_pivot(),
    }
}

/// The steps that are stuck, or run and were not decided about yet.
fn skippable(saga: &Saga) -> Vec<&str> {
    let running = saga.tasks.iter().filter_map(|task| {
        let step = saga.steps.get(task.step)?;
        let may_be = match task.interrupt {
            None => true,
            // The outcome of a pivot that was called is awaited.
            Some(Interrupt::Turn) => step.pivot,
            Some(Interrupt::Skip | Interrupt::End) => false,
        };
        may_be.then_some(step.name.as_str())
    });
    saga.stuck.iter().map(|stuck| stuck.step.as_str()).chain(running).collect()
}
