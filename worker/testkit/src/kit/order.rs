//! The question in which a call is held back on its way until after its compensation.

use std::time::Instant;

use pgsaga_plan::Op;
use pgsaga_producer::SagaStatus;

use super::Kit;
use super::calls::Mishap;
use super::judge::{case, met_by_its_transaction, not_asked};
use super::report::{Case, Verdict};
use super::state::Change;
use super::subject::Subject;
use super::worker::{LOOK_EVERY, Running};
use crate::error::Error;
use crate::proxy::Fault;

impl Kit<'_> {
    pub(super) async fn late_actions(&self, subject: &Subject) -> Result<Vec<Case>, Error> {
        let success = self.success(subject).await?;
        let transactional = self.transactional();
        self.stop_worker().await?;
        let mut cases = Vec::new();
        for step in subject.called() {
            let name = format!("{} action comes after its compensation", subject.steps[step].name);
            cases.push(if transactional.contains(&step) {
                met_by_its_transaction(&name)
            } else if !subject.calls(step, Op::Compensate) {
                case(name, not_asked("it has no compensation that calls somebody"))
            } else {
                case(name, self.late_action(subject, step, &success).await?)
            });
        }
        Ok(cases)
    }

    /// A worker is cut off with its call on the way. Another one takes over the aborted saga, and
    /// compensates. Then the call arrives.
    async fn late_action(&self, subject: &Subject, step: usize, success: &Change) -> Result<Verdict, Error> {
        self.calls.begin();
        let proxy = self.proxy().await?;
        let cut_off = Running::start(self.builder(proxy.url()), self.patience).await?;
        let planned = self.calls.plan(step, Op::Action, Mishap::Late, true);
        let trial = self.trial(success).await?;
        self.submit(&subject.named(trial.gid.clone())?).await?;
        if self.until(&trial.gid, || planned.met.is_cancelled()).await?.is_some() {
            cut_off.kill().await;
            return Ok(not_asked("it was not called"));
        }
        proxy.inject(Fault::reset().always());
        let run = self.take_over(&trial).await?;
        let is_undone = self.calls.made().iter().any(|call| (call.step, call.op) == (step, Op::Compensate));
        let verdict = match run.status {
            SagaStatus::Failed if is_undone => {
                let compensated = self.state(&trial.gid).await?;
                planned.goes_on.cancel();
                let started = Instant::now();
                while !planned.answered.is_cancelled() && started.elapsed() < self.patience {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                let change = compensated.change_to(&self.state(&trial.gid).await?);
                match planned.answered.is_cancelled() {
                    false => not_asked("the participant did not answer the late call"),
                    true if change.is_none() => Verdict::Holds,
                    true => Verdict::Broken(format!("found {change}; allowed: no change")),
                }
            }
            SagaStatus::Stuck => Verdict::Unanswered(format!("the saga is {run}")),
            _ => not_asked("it was not compensated"),
        };
        planned.goes_on.cancel();
        cut_off.kill().await;
        Ok(verdict)
    }
}
