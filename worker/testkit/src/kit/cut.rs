//! The question in which the worker dies, at each of its statements.

use std::collections::HashMap;
use std::sync::Arc;

use pgsaga_sql::query;

use super::judge::{End, Trial, case};
use super::report::{Case, Verdict};
use super::run::Run;
use super::state::Change;
use super::subject::Subject;
use super::worker::{Running, declare_dead};
use super::{Kit, Question};
use crate::error::Error;
use crate::proxy::{Fault, Proxy};

/// Why the kit aborts a saga.
const ABORT_REASON: &str = "the test kit aborts it";

/// A point at which a worker dies.
struct Point {
    name: String,
    fault: Fault,
}

impl Kit<'_> {
    pub(super) async fn dead_workers(&self, subject: &Subject) -> Result<Vec<Case>, Error> {
        let success = self.success(subject).await?;
        self.stop_worker().await?;
        let mut cases = Vec::new();
        for Point { name, fault } in self.points(subject, &success).await? {
            if let Some(verdict) = self.cut(subject, &success, fault).await? {
                cases.push(case(name, verdict));
            }
        }
        Ok(cases)
    }

    /// The statements of a run, each before its request and before its reply.
    async fn points(&self, subject: &Subject, success: &Change) -> Result<Vec<Point>, Error> {
        self.calls.begin();
        let proxy = self.proxy().await?;
        let worker = Running::start(self.builder(proxy.url()), self.patience).await?;
        let trial = self.trial(success).await?;
        proxy.record();
        let run = self.run(&subject.named(trial.gid.clone())?, &trial.gid).await?;
        worker.stop().await?;
        self.judge(Question::DeadWorker, &trial, &run, End::Succeeded).await?;
        let mut points = Vec::new();
        let mut seen: HashMap<(Arc<str>, bool), usize> = HashMap::new();
        for ran in proxy.recorded() {
            let Some(text) = ran.texts.first() else { continue };
            let requests = seen.entry((Arc::clone(text), false)).or_default();
            let nth = *requests;
            *requests += 1;
            points.push(Point {
                name: format!("the worker dies before statement {} ({})", points.len() / 2 + 1, named(text)),
                fault: Fault::cut_before_request(text).skip(nth),
            });
            let mut fault = Fault::cut_before_reply(text);
            fault = if ran.has_rows {
                let replies = seen.entry((Arc::clone(text), true)).or_default();
                *replies += 1;
                fault.with_rows().skip(*replies - 1)
            } else {
                fault.skip(nth)
            };
            points.push(Point {
                name: format!("the worker dies after statement {} ({})", points.len() / 2 + 1, named(text)),
                fault,
            });
        }
        Ok(points)
    }

    /// Runs a saga whose worker dies at this point. `None` if the saga ends without that.
    async fn cut(&self, subject: &Subject, success: &Change, fault: Fault) -> Result<Option<Verdict>, Error> {
        self.calls.begin();
        let proxy = self.proxy().await?;
        let worker = Running::start(self.builder(proxy.url()), self.patience).await?;
        let trial = self.trial(success).await?;
        let injected = proxy.inject(fault);
        self.submit(&subject.named(trial.gid.clone())?).await?;
        if let Some(run) = self.until(&trial.gid, || injected.struck() > 0).await? {
            worker.stop().await?;
            // What it changes late must not come during the next one.
            let verdict = self.judge(Question::DeadWorker, &trial, &run, End::Either).await?;
            // The reply to the last settle may be lost.
            return Ok((injected.struck() > 0).then_some(verdict));
        }
        worker.kill().await;
        drop(proxy);
        let run = self.take_over(&trial).await?;
        self.judge(Question::DeadWorker, &trial, &run, End::Either).await.map(Some)
    }

    /// Another worker takes over a saga that was aborted while nobody knew how far it had come.
    pub(super) async fn take_over(&self, trial: &Trial<'_>) -> Result<Run, Error> {
        let (pool, gid) = (self.database.pool(), &trial.gid);
        declare_dead(pool, self.patience).await?;
        match pgsaga_producer::abort(pool, gid, ABORT_REASON).await {
            // It has ended, or has passed its pivot.
            Ok(_) | Err(pgsaga_producer::Error::TooLate { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let other = Running::start(self.builder(self.database.url()), self.patience).await?;
        let run = self.end_of(gid).await?;
        other.stop().await?;
        Ok(run)
    }

    pub(super) async fn proxy(&self) -> Result<Proxy, Error> {
        Proxy::start(self.database.url())
            .await
            .map_err(|source| Error::Io { doing: "start a proxy before Postgres".to_owned(), source })
    }
}

/// A statement's name in `sql/queries`, or its first line.
fn named(text: &str) -> &str {
    let ours = query::all().find(|statement| statement.sql == text);
    ours.map_or_else(|| text.lines().next().unwrap_or_default(), |statement| statement.name)
}
