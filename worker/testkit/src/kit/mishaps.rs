//! The questions in which a call goes wrong, and the worker lives.

use std::sync::Arc;
use std::time::Instant;

use pgsaga_plan::Op;

use super::calls::{Mishap, Planned};
use super::judge::{Asked, End, Trial, case, not_asked, not_called};
use super::report::{Case, Verdict};
use super::worker::LOOK_EVERY;
use crate::error::Error;

impl Asked<'_> {
    pub(super) async fn refusals(&self) -> Result<Vec<Case>, Error> {
        let mut cases = Vec::new();
        for step in self.subject.called() {
            let name = self.name(step, "refuses");
            if !self.subject.steps[step].can_roll_back {
                cases.push(case(name, not_asked("after the pivot nothing is rolled back")));
                continue;
            }
            let trial = self.kit.trial().await?;
            let planned = self.kit.calls.plan(step, Op::Action, Mishap::Refused, false);
            let run = self.kit.run(&trial, &self.subject.named(trial.gid.clone())?).await?;
            let verdict = self.verdict(&planned, &trial, &run, End::RolledBack).await?;
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    pub(super) async fn repeats(&self) -> Result<Vec<Case>, Error> {
        let mut cases = Vec::new();
        for (step, op) in self.subject.ops() {
            let name = self.name(step, &format!("{} comes twice", op.as_str()));
            if let Some(verdict) = self.without_asking(step, op) {
                cases.push(case(name, verdict));
                continue;
            }
            let trial = self.kit.trial().await?;
            let planned = self.kit.calls.plan(step, op, Mishap::Repeated, false);
            let (saga, end) = match op {
                Op::Action => (self.subject.named(trial.gid.clone())?, End::Succeeded),
                Op::Compensate => {
                    self.plan_rollback();
                    (self.subject.named_without_retries(trial.gid.clone())?, End::RolledBack)
                }
            };
            let run = self.kit.run(&trial, &saga).await?;
            let verdict = self.verdict(&planned, &trial, &run, end).await?;
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    pub(super) async fn lost_answers(&self) -> Result<Vec<Case>, Error> {
        let mut cases = Vec::new();
        for (step, op) in self.subject.ops() {
            let name = self.name(step, &format!("{} is answered, and the answer is lost", op.as_str()));
            if let Some(verdict) = self.without_asking(step, op) {
                cases.push(case(name, verdict));
                continue;
            }
            let trial = self.kit.trial().await?;
            let planned = self.kit.calls.plan(step, op, Mishap::AnswerLost, true);
            if op == Op::Compensate {
                self.plan_rollback();
            }
            // What cannot be undone is asked again.
            let saga = if self.subject.calls(step, Op::Compensate) {
                self.subject.named_without_retries(trial.gid.clone())?
            } else {
                self.subject.named(trial.gid.clone())?
            };
            self.kit.submit(&saga).await?;
            let late = self.late_effect(&trial, &planned).await?;
            let run = self.kit.end_of(&trial).await?;
            let verdict = match late {
                Some(late) => {
                    Verdict::Broken(format!("the answer came before the effect: {late} came after it"))
                }
                None => self.verdict(&planned, &trial, &run, End::Either).await?,
            };
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    async fn verdict(
        &self,
        planned: &Planned,
        trial: &Trial,
        run: &super::Run,
        end: End,
    ) -> Result<Verdict, Error> {
        if planned.was_met() { self.judge(trial, run, end).await } else { Ok(not_called()) }
    }

    /// Waits for the answer, and returns what changes within the window after it.
    async fn late_effect(&self, trial: &Trial, planned: &Arc<Planned>) -> Result<Option<String>, Error> {
        let (kit, gid) = (self.kit, &trial.gid);
        if kit.until(gid, || planned.met.is_cancelled(), |_| false).await?.is_some() {
            return Ok(None);
        }
        // Other calls of a parallel saga end first, and no new one begins.
        let started = Instant::now();
        while kit.calls.in_flight() > 0 && started.elapsed() < kit.patience {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let answered = kit.state(gid).await?;
        tokio::time::sleep(kit.window).await;
        let change = answered.change_to(&kit.state(gid).await?);
        planned.goes_on.cancel();
        Ok((!change.is_none()).then(|| change.to_string()))
    }
}
