//! One saga with all that is known of it.

use crate::ledger::{Asked, Keeps};

/// One saga, or one gid that somebody was called with, and all evidence of it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Its name.
    pub gid: String,
    /// What whoever inserted it knows.
    pub told: Option<Fate>,
    /// What the database has of it.
    pub saga: Option<Saga>,
    /// The calls in all ledgers, in the order of arrival.
    pub calls: Vec<Call>,
    /// The rows of barriers that are tables.
    pub rows: Vec<Row>,
}

/// What came of an INSERT, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// COMMIT was acknowledged.
    Committed,
    /// It was rolled back, or refused.
    RolledBack,
    /// No reply came: either.
    Unknown,
}

/// A saga as the database has it.
#[derive(Clone, Debug)]
pub struct Saga {
    /// Its status.
    pub status: String,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Its history, in order.
    pub history: Vec<Event>,
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// The positions, from 0, of all steps before it, those that they wait for included.
    pub waits_for: Vec<usize>,
    /// Its action is a call.
    pub acts: bool,
    /// It has a compensation, which is a call.
    pub compensates: bool,
}

/// A row of the history.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The position of its step, from 0.
    pub step: Option<usize>,
    /// The op that was tried.
    pub op: Option<String>,
    /// The number of the try.
    pub attempt: Option<u32>,
    /// What it came to.
    pub outcome: Option<String>,
    /// What a person decided.
    pub decision: Option<String>,
}

/// A call as its participant wrote it down. Times are microseconds since 1970.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the participant keeps against calls that come twice or late.
    pub keeps: Keeps,
    /// What was asked.
    pub asked: Asked,
    /// When it was there.
    pub arrived: i64,
    /// When the work was done.
    pub worked: Option<i64>,
    /// When the barrier said that there was nothing to do.
    pub skipped: Option<i64>,
    /// What it answered.
    pub status: Option<u16>,
}

/// A row of a barrier's table.
#[derive(Clone, Debug)]
pub struct Row {
    /// `branch_id`.
    pub step: String,
    /// Whose place it is.
    pub op: String,
    /// Which op took it: another than its own marks an op that never came.
    pub reason: String,
}

impl Call {
    /// When its op was certain: done now, or found done.
    pub fn settled(&self) -> Option<i64> {
        self.worked.or(self.skipped)
    }
}

impl Saga {
    /// It has succeeded or failed.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed")
    }

    /// A person ended it as it stood.
    pub fn was_ended_by_hand(&self) -> bool {
        self.decided(None, "force") || self.decided(None, "resolve")
    }

    /// A person had an op of this step count as done.
    pub fn was_skipped(&self, step: usize) -> bool {
        self.decided(Some(step), "skip")
    }

    fn decided(&self, step: Option<usize>, decision: &str) -> bool {
        self.history.iter().any(|event| {
            event.decision.as_deref() == Some(decision) && (step.is_none() || event.step == step)
        })
    }

    /// The tries of an op, in order.
    pub fn tries<'a>(&'a self, step: usize, op: &'a str) -> impl Iterator<Item = &'a Event> {
        self.history.iter().filter(move |event| event.step == Some(step) && event.op.as_deref() == Some(op))
    }

    /// Some try of its action succeeded or is unknown, or the last that left was ongoing.
    pub fn may_have_taken_effect(&self, step: usize) -> bool {
        let outcomes = || self.tries(step, "action").filter_map(|event| event.outcome.as_deref());
        outcomes().any(|outcome| matches!(outcome, "success" | "unknown"))
            || outcomes().filter(|outcome| *outcome != "unsent").last() == Some("ongoing")
    }
}

impl Case {
    /// The calls of an op of a step.
    pub fn calls_of<'a>(&'a self, step: &'a str, op: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |call| call.asked.step == step && call.asked.op == op)
    }

    /// When its first call arrived.
    pub fn first_arrived(&self, step: &str, op: &str) -> Option<i64> {
        self.calls_of(step, op).map(|call| call.arrived).min()
    }

    /// When it was first certain.
    pub fn first_settled(&self, step: &str, op: &str) -> Option<i64> {
        self.calls_of(step, op).filter_map(Call::settled).min()
    }

    /// When its work was first done, as far as its participant noted.
    pub fn first_worked(&self, step: &str, op: &str) -> Option<i64> {
        self.calls_of(step, op).filter_map(|call| call.worked).min()
    }

    /// The row that a barrier's table has in the place of an op.
    pub fn row(&self, step: &str, op: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.step == step && row.op == op)
    }

    /// Its work was done, says its participant or its barrier's table.
    pub fn was_done(&self, step: &str, op: &str) -> bool {
        // A compensation that found nothing to undo has a row of its own too.
        let undid = op == "action" || self.row(step, "action").is_some_and(|row| row.reason == "action");
        let in_table = self.row(step, op).is_some_and(|row| row.reason == op) && undid;
        in_table || self.first_worked(step, op).is_some()
    }
}
