//! The question in which a call is held back on its way until after its compensation.

use std::time::Instant;

use pgsaga_plan::Op;
use pgsaga_producer::SagaStatus;

use super::calls::Mishap;
use super::judge::{Asked, case, not_asked, not_called};
use super::report::{Case, Verdict};
use super::worker::LOOK_EVERY;
use crate::error::Error;
use crate::proxy::Fault;

impl Asked<'_> {
    pub(super) async fn late_actions(&self) -> Result<Vec<Case>, Error> {
        let mut cases = Vec::new();
        for step in self.subject.called() {
            let name = self.name(step, "action comes after its compensation");
            let verdict = match self.without_asking(step, Op::Action) {
                Some(verdict) => verdict,
                None if !self.subject.calls(step, Op::Compensate) => {
                    not_asked("it has no compensation that calls somebody")
                }
                None if self.subject.steps[step].is_pivot => {
                    not_asked("a pivot is asked until its outcome is known")
                }
                None => self.late_action(step).await?,
            };
            cases.push(case(name, verdict));
        }
        Ok(cases)
    }

    /// A worker is cut off with its call on the way. Another one takes over the aborted saga, and
    /// compensates. Then the call arrives.
    async fn late_action(&self, step: usize) -> Result<Verdict, Error> {
        let kit = self.kit;
        let proxy = self.proxy().await?;
        let cut_off = kit.start(proxy.url()).await?;
        let trial = kit.trial().await?;
        let planned = kit.calls.plan(step, Op::Action, Mishap::Late, true);
        kit.submit(&self.subject.named(trial.gid.clone())?).await?;
        if kit.until(&trial.gid, || planned.met.is_cancelled(), |_| false).await?.is_some() {
            cut_off.kill().await;
            return Ok(not_called());
        }
        proxy.inject(Fault::reset().always());
        let run = self.take_over(&trial).await?;
        let is_undone = kit.calls.was_made(step, Op::Compensate);
        let verdict = if run.status == SagaStatus::Failed && is_undone {
            let compensated = kit.state(&trial.gid).await?;
            planned.goes_on.cancel();
            let started = Instant::now();
            while !planned.answered.is_cancelled() && started.elapsed() < kit.patience {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(kit.window).await;
            let change = compensated.change_to(&kit.state(&trial.gid).await?);
            match planned.answered.is_cancelled() {
                false => Verdict::Unanswered("the late call did not end".to_owned()),
                true if change.is_none() => Verdict::Holds,
                true => Verdict::Broken(format!("found {change}; allowed: no change")),
            }
        } else {
            Verdict::Unanswered(format!("it was not compensated: the saga is {run}"))
        };
        planned.goes_on.cancel();
        cut_off.kill().await;
        Ok(verdict)
    }
}
