//! What must have become of a saga and of its participants.

use std::time::Instant;

use pgsaga_plan::Op;
use pgsaga_producer::{Definition, SagaStatus};
use pgsaga_sql::query::Decide;

use super::Kit;
use super::calls::Mishap;
use super::report::{Case, Question, Verdict};
use super::run::Run;
use super::state::{Change, State};
use super::subject::Subject;
use super::worker::LOOK_EVERY;
use crate::error::Error;

/// Attempts of one op without a definite outcome after which a saga is given up.
const ATTEMPTS_MAX: usize = 20;

/// A question that is asked about a saga.
pub(super) struct Asked<'k> {
    pub(super) kit: &'k Kit<'k>,
    pub(super) question: Question,
    pub(super) subject: &'k Subject,
    pub(super) known: Known,
}

/// What is known of a saga when only one thing goes wrong: nothing, or its last step.
pub(super) struct Known {
    /// What a success changes.
    success: Change,
    /// The ops whose effect commits together with the record of the attempt.
    transactional: Vec<(usize, Op)>,
    /// Why the saga does not even roll back when nothing but its last step goes wrong.
    no_rollback: Option<String>,
}

/// How a saga may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    RolledBack,
    Either,
}

/// A saga that runs while something goes wrong.
pub(super) struct Trial {
    pub(super) gid: String,
    before: State,
}

impl Kit<'_> {
    /// Runs the saga undisturbed, and has it roll back.
    pub(super) async fn learn(&self, subject: &Subject) -> Result<Known, Error> {
        let trial = self.trial().await?;
        let run = self.run_undisturbed(&subject.named(trial.gid.clone())?).await?;
        if run.status != SagaStatus::Succeeded {
            return Err(Error::NotSound(run.to_string()));
        }
        // An effect that comes after its answer belongs to it.
        tokio::time::sleep(self.window).await;
        let success = trial.before.change_to(&self.state(&trial.gid).await?);
        if success.is_none() {
            return Err(Error::Blind);
        }
        let mut transactional = self.calls.transactional();
        let trial = self.trial().await?;
        self.plan_rollback(subject, &transactional);
        let run = self.run(&trial, &subject.named_without_retries(trial.gid.clone())?).await?;
        transactional.extend(self.calls.transactional());
        let no_rollback = (!run.is_over() || run.status == SagaStatus::Stuck).then(|| run.to_string());
        Ok(Known { success, transactional, no_rollback })
    }

    /// Begins a saga under a gid of its own, and notes the state before it.
    pub(super) async fn trial(&self) -> Result<Trial, Error> {
        let gid = self.gid();
        self.calls.begin(&gid);
        Ok(Trial { before: self.state(&gid).await?, gid })
    }

    pub(super) async fn run(&self, trial: &Trial, saga: &Definition) -> Result<Run, Error> {
        self.submit(saga).await?;
        self.end_of(trial).await
    }

    /// Waits for the end of a saga. One that does not end is ended by a decision, so that it does
    /// not go on beside the next one.
    pub(super) async fn end_of(&self, trial: &Trial) -> Result<Run, Error> {
        let hopeless = |run: &Run| run.is_hopeless(ATTEMPTS_MAX);
        let run = self.until(&trial.gid, || false, hopeless).await?;
        let run = run.ok_or_else(|| Error::NoSaga(trial.gid.clone()))?;
        if !run.is_over() {
            let comment = Some("the test kit gives it up");
            let force = Decide { gid: &trial.gid, decision: "force", step: None, comment };
            force.query().execute(self.database.pool()).await?;
        }
        Ok(run)
    }

    /// Has the last step that can roll back go wrong, so that each step is undone: the last one,
    /// too, where it has a compensation. Then its answer is lost, else it refuses.
    pub(super) fn plan_rollback(&self, subject: &Subject, transactional: &[(usize, Op)]) {
        if let Some(last) = subject.last() {
            let is_undone = is_undone(subject, last, transactional);
            let mishap = if is_undone { Mishap::AnswerLost } else { Mishap::Refused };
            self.calls.plan(last, Op::Action, mishap, false);
        }
    }
}

/// Whether the step is compensated when its answer is lost. A pivot is asked until it is known, and
/// a transaction without an answer has no effect.
fn is_undone(subject: &Subject, step: usize, transactional: &[(usize, Op)]) -> bool {
    let is_asked = subject.steps[step].is_pivot || transactional.contains(&(step, Op::Action));
    subject.calls(step, Op::Compensate) && !is_asked
}

impl Asked<'_> {
    pub(super) fn name(&self, step: usize, what: &str) -> String {
        format!("{} {what}", self.subject.steps[step].name)
    }

    /// What is said of an op without asking it, if anything is.
    pub(super) fn without_asking(&self, step: usize, op: Op) -> Option<Verdict> {
        if self.known.transactional.contains(&(step, op)) {
            // It is not called again, nor does it act when it is late. No kit could break that.
            return Some(Verdict::NotAsked("its effect commits together with its record".to_owned()));
        }
        let is_last = self.subject.last() == Some(step);
        if op == Op::Compensate && is_last && !is_undone(self.subject, step, &self.known.transactional) {
            return Some(not_asked("nothing of the last step is undone when it goes wrong"));
        }
        let is_forward = self.question == Question::Repeat && op == Op::Action;
        if is_forward { None } else { self.without_rollback(step) }
    }

    /// What is said of a step that is to be undone, where the saga does not even roll back when
    /// nothing but its last step goes wrong.
    pub(super) fn without_rollback(&self, step: usize) -> Option<Verdict> {
        let why = self.known.no_rollback.as_ref().filter(|_| self.subject.calls(step, Op::Compensate))?;
        Some(Verdict::Unanswered(format!("{} comes first: the saga is {why}", Question::Refusal.as_str())))
    }

    /// Plans a rollback of all steps.
    pub(super) fn plan_rollback(&self) {
        self.kit.plan_rollback(self.subject, &self.known.transactional);
    }

    /// Judges a saga that has ended. An effect may come within the window: whether it came late is
    /// asked by [`Question::LostAnswer`] only.
    pub(super) async fn judge(&self, trial: &Trial, run: &Run, allowed: End) -> Result<Verdict, Error> {
        let none = Change::default();
        let (end, expected) = match run.status {
            SagaStatus::Succeeded => (End::Succeeded, &self.known.success),
            SagaStatus::Failed => (End::RolledBack, &none),
            SagaStatus::Stuck => {
                return Ok(Verdict::Broken(format!("allowed: an end; found that the saga is {run}")));
            }
            _ => {
                return Ok(Verdict::Broken(format!(
                    "allowed: a definite answer; found {ATTEMPTS_MAX} attempts without one, so that the saga is {run}"
                )));
            }
        };
        if allowed != End::Either && allowed != end {
            let allowed = if allowed == End::Succeeded { "that it succeeds" } else { "that it rolls back" };
            return Ok(Verdict::Broken(format!("allowed: {allowed}; found that the saga {run}")));
        }
        let change = self.change(trial, expected).await?;
        if change == *expected {
            return Ok(Verdict::Holds);
        }
        Ok(Verdict::Broken(format!(
            "found {change}; allowed: {expected}{}\n  the saga {run}",
            self.never_called()
        )))
    }

    /// Which steps were compensated without having been called.
    fn never_called(&self) -> String {
        let was_made = |step, op| self.kit.calls.was_made(step, op);
        let steps = (0..self.subject.steps.len())
            .filter(|step| was_made(*step, Op::Compensate) && !was_made(*step, Op::Action));
        let names: Vec<&str> = steps.map(|step| self.subject.steps[step].name.as_str()).collect();
        if names.is_empty() {
            return String::new();
        }
        format!("; compensated, and never called: {}", names.join(", "))
    }

    /// What has changed since the trial began, once it is what is expected or the window is over.
    async fn change(&self, trial: &Trial, expected: &Change) -> Result<Change, Error> {
        let started = Instant::now();
        loop {
            let change = trial.before.change_to(&self.kit.state(&trial.gid).await?);
            if change == *expected || started.elapsed() > self.kit.window {
                return Ok(change);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

pub(super) fn case(name: String, verdict: Verdict) -> Case {
    Case { name, verdict }
}

pub(super) fn not_asked(why: &str) -> Verdict {
    Verdict::NotAsked(why.to_owned())
}

pub(super) fn not_called() -> Verdict {
    Verdict::Unanswered("it was not called".to_owned())
}
