//! What must have become of a saga and of its participants.

use std::time::Instant;

use pgsaga_producer::SagaStatus;

use super::report::{Case, Verdict};
use super::run::Run;
use super::state::{Change, State};
use super::subject::Subject;
use super::worker::LOOK_EVERY;
use super::{Kit, Question};
use crate::error::Error;

/// How a saga may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    RolledBack,
    Either,
}

/// A saga that runs while something goes wrong.
pub(super) struct Trial<'s> {
    pub(super) gid: String,
    before: State,
    /// What a success changes.
    success: &'s Change,
}

impl Kit<'_> {
    /// What the saga changes when nothing goes wrong.
    pub(super) async fn success(&self, subject: &Subject) -> Result<Change, Error> {
        self.calls.begin();
        self.start_worker().await?;
        let gid = self.gid();
        let before = self.state(&gid).await?;
        let run = self.run(&subject.named(gid.clone())?, &gid).await?;
        if run.status != SagaStatus::Succeeded {
            return Err(Error::NotSound(run.to_string()));
        }
        // An effect that comes after its answer belongs to it.
        tokio::time::sleep(self.window).await;
        Ok(before.change_to(&self.state(&gid).await?))
    }

    /// Notes the state before a saga.
    pub(super) async fn trial<'s>(&self, success: &'s Change) -> Result<Trial<'s>, Error> {
        let gid = self.gid();
        Ok(Trial { before: self.state(&gid).await?, gid, success })
    }

    /// Judges a saga that has ended. An effect may come within the window: whether it came late is
    /// asked by [`Question::LostAnswer`] only.
    pub(super) async fn judge(
        &self,
        question: Question,
        trial: &Trial<'_>,
        run: &Run,
        allowed: End,
    ) -> Result<Verdict, Error> {
        let none = Change::default();
        let (end, expected) = match run.status {
            SagaStatus::Succeeded => (End::Succeeded, trial.success),
            SagaStatus::Failed => (End::RolledBack, &none),
            // It waits for a person: a compensation was refused, or a step after the pivot.
            _ if question == Question::Refusal => return Ok(Verdict::Broken(run.to_string())),
            _ => {
                let asked_by = Question::Refusal.as_str();
                return Ok(Verdict::Unanswered(format!("{asked_by} comes first: the saga is {run}")));
            }
        };
        if allowed != End::Either && allowed != end {
            let allowed =
                if allowed == End::Succeeded { "that it succeeds" } else { "that it is rolled back" };
            return Ok(Verdict::Broken(format!("found that the saga {run}\n  allowed: {allowed}")));
        }
        let change = self.change(trial, expected).await?;
        if change == *expected {
            return Ok(Verdict::Holds);
        }
        Ok(Verdict::Broken(format!("found {change}; allowed: {expected}\n  the saga {run}")))
    }

    /// What has changed since the trial began, once it is what is expected or the window is over.
    async fn change(&self, trial: &Trial<'_>, expected: &Change) -> Result<Change, Error> {
        let started = Instant::now();
        loop {
            let change = trial.before.change_to(&self.state(&trial.gid).await?);
            if change == *expected || started.elapsed() > self.window {
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

/// The effect of a transactional handler commits together with the record of its attempt: it is not
/// called again, nor does it act when it is late. No call of a kit could break that.
pub(super) fn met_by_its_transaction(name: &str) -> Case {
    case(format!("{name}: its effect commits together with its record"), Verdict::Holds)
}
