//! The questions in which a call goes wrong, and the worker lives.

use std::sync::Arc;
use std::time::Instant;

use pgsaga_plan::Op;

use super::calls::{Mishap, Planned};
use super::judge::{End, Trial, case, met_by_its_transaction, not_asked};
use super::report::{Case, Verdict};
use super::subject::Subject;
use super::worker::LOOK_EVERY;
use super::{Kit, Question};
use crate::error::Error;

const NOT_CALLED: &str = "it was not called";

impl Kit<'_> {
    pub(super) async fn refusals(&self, subject: &Subject) -> Result<Vec<Case>, Error> {
        let success = self.success(subject).await?;
        let mut cases = Vec::new();
        for step in subject.called() {
            let name = format!("{} refuses", subject.steps[step].name);
            if !subject.steps[step].can_roll_back {
                cases.push(case(name, not_asked("after the pivot nothing is rolled back")));
                continue;
            }
            self.calls.begin();
            let planned = self.calls.plan(step, Op::Action, Mishap::Refused, false);
            let trial = self.trial(&success).await?;
            let run = self.run(&subject.named(trial.gid.clone())?, &trial.gid).await?;
            let verdict = if planned.was_met() {
                self.judge(Question::Refusal, &trial, &run, End::RolledBack).await?
            } else {
                not_asked(NOT_CALLED)
            };
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    pub(super) async fn repeats(&self, subject: &Subject) -> Result<Vec<Case>, Error> {
        let success = self.success(subject).await?;
        let transactional = self.transactional();
        let mut cases = Vec::new();
        for (step, op) in subject.ops() {
            let name = format!("{} {} comes twice", subject.steps[step].name, op.as_str());
            if transactional.contains(&step) {
                cases.push(met_by_its_transaction(&name));
                continue;
            }
            self.calls.begin();
            let planned = self.calls.plan(step, op, Mishap::Repeated, false);
            let trial = self.trial(&success).await?;
            let (saga, end) = match op {
                Op::Action => (subject.named(trial.gid.clone())?, End::Succeeded),
                Op::Compensate => {
                    self.plan_rollback(subject, &transactional);
                    (subject.named_without_retries(trial.gid.clone())?, End::RolledBack)
                }
            };
            let run = self.run(&saga, &trial.gid).await?;
            let verdict = if planned.was_met() {
                self.judge(Question::Repeat, &trial, &run, end).await?
            } else {
                not_asked(NOT_CALLED)
            };
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    pub(super) async fn lost_answers(&self, subject: &Subject) -> Result<Vec<Case>, Error> {
        let success = self.success(subject).await?;
        let transactional = self.transactional();
        let mut cases = Vec::new();
        for (step, op) in subject.ops() {
            let name =
                format!("{} {} is answered, and the answer is lost", subject.steps[step].name, op.as_str());
            if transactional.contains(&step) {
                cases.push(met_by_its_transaction(&name));
                continue;
            }
            self.calls.begin();
            let planned = self.calls.plan(step, op, Mishap::AnswerLost, true);
            if op == Op::Compensate {
                self.plan_rollback(subject, &transactional);
            }
            let trial = self.trial(&success).await?;
            self.submit(&subject.named_without_retries(trial.gid.clone())?).await?;
            let early = self.late_effect(&trial, &planned).await?;
            let run = self.end_of(&trial.gid).await?;
            let verdict = match early {
                _ if !planned.was_met() => not_asked(NOT_CALLED),
                Some(late) => {
                    Verdict::Broken(format!("the answer came before the effect: {late} came after it"))
                }
                None => self.judge(Question::LostAnswer, &trial, &run, End::Either).await?,
            };
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    /// The steps whose effect commits together with its record, by the calls of the last run.
    pub(super) fn transactional(&self) -> Vec<usize> {
        self.calls.made().iter().filter(|call| call.is_transactional).map(|call| call.step).collect()
    }

    /// Has the last step that can roll back end without an answer, so that each step is undone,
    /// the last one too.
    fn plan_rollback(&self, subject: &Subject, transactional: &[usize]) {
        let last = subject.called().filter(|step| subject.steps[*step].can_roll_back).last();
        if let Some(last) = last {
            let lost = if transactional.contains(&last) { Mishap::Refused } else { Mishap::AnswerLost };
            self.calls.plan(last, Op::Action, lost, false);
        }
    }

    /// Waits for the answer, and returns what changes within the window after it.
    async fn late_effect(&self, trial: &Trial<'_>, planned: &Arc<Planned>) -> Result<Option<String>, Error> {
        let gid = &trial.gid;
        if self.until(gid, || planned.met.is_cancelled()).await?.is_some() {
            return Ok(None);
        }
        // Other calls of a parallel saga end first, and no new one begins.
        let started = Instant::now();
        while self.calls.in_flight() > 0 && started.elapsed() < self.patience {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let answered = self.state(gid).await?;
        tokio::time::sleep(self.window).await;
        let change = answered.change_to(&self.state(gid).await?);
        planned.goes_on.cancel();
        Ok((!change.is_none()).then(|| change.to_string()))
    }
}
