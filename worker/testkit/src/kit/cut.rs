//! The question in which the worker dies, at each of its statements.

use std::collections::HashMap;
use std::sync::Arc;

use pgsaga_plan::Op;
use pgsaga_sql::query::{self, Statement};

use super::judge::{Asked, End, Trial, case};
use super::report::{Case, Verdict};
use super::run::Run;
use super::worker::declare_dead;
use crate::error::Error;
use crate::proxy::{Fault, Proxy};

/// A point at which a worker dies.
struct Point {
    name: String,
    fault: Fault,
}

impl Asked<'_> {
    pub(super) async fn dead_workers(&self) -> Result<Vec<Case>, Error> {
        let undoes = (0..self.subject.steps.len()).find(|step| self.subject.calls(*step, Op::Compensate));
        if let Some(unanswered) = undoes.and_then(|step| self.without_rollback(step)) {
            return Ok(vec![case("the worker dies".to_owned(), unanswered)]);
        }
        let mut cases = Vec::new();
        for Point { name, fault } in self.points().await? {
            if let Some(verdict) = self.cut(fault).await? {
                cases.push(case(name, verdict));
            }
        }
        Ok(cases)
    }

    /// The statements of a run that concern the saga, each before its request and before its reply.
    async fn points(&self) -> Result<Vec<Point>, Error> {
        let proxy = self.proxy().await?;
        let worker = self.kit.start(proxy.url()).await?;
        let trial = self.kit.trial().await?;
        proxy.record();
        let run = self.kit.run(&trial, &self.subject.named(trial.gid.clone())?).await?;
        worker.stop().await?;
        self.judge(&trial, &run, End::Succeeded).await?;
        let mut points = Vec::new();
        let mut seen: HashMap<(Arc<str>, bool), usize> = HashMap::new();
        for ran in proxy.recorded() {
            let Some((text, name)) = ran.texts.first().and_then(|text| Some((text, concerns_sagas(text)?)))
            else {
                continue;
            };
            let requests = seen.entry((Arc::clone(text), false)).or_default();
            let nth = *requests;
            *requests += 1;
            points.push(Point {
                name: format!("the worker dies before {name} {}", nth + 1),
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
            points.push(Point { name: format!("the worker dies after {name} {}", nth + 1), fault });
        }
        Ok(points)
    }

    /// Runs a saga whose worker dies at this point. `None` if the saga ends without that.
    async fn cut(&self, fault: Fault) -> Result<Option<Verdict>, Error> {
        let proxy = self.proxy().await?;
        let worker = self.kit.start(proxy.url()).await?;
        let trial = self.kit.trial().await?;
        let injected = proxy.inject(fault.ends_all());
        self.kit.submit(&self.subject.named(trial.gid.clone())?).await?;
        if let Some(run) = self.kit.until(&trial.gid, || injected.struck() > 0, |_| false).await? {
            worker.stop().await?;
            // What it changes late must not come during the next one.
            let verdict = self.judge(&trial, &run, End::Either).await?;
            // The reply to the last settle may be lost.
            return Ok((injected.struck() > 0).then_some(verdict));
        }
        worker.kill().await;
        drop(proxy);
        let run = self.take_over(&trial).await?;
        self.judge(&trial, &run, End::Either).await.map(Some)
    }

    /// Another worker takes over a saga that was aborted while nobody knew how far it had come. It
    /// is not aborted where that would leave the effect of a step behind that nothing undoes.
    pub(super) async fn take_over(&self, trial: &Trial) -> Result<Run, Error> {
        let (pool, gid) = (self.kit.database.pool(), &trial.gid);
        declare_dead(pool, self.kit.patience).await?;
        let can_abort: bool =
            sqlx::query_scalar(include_str!("sql/can_abort.sql")).bind(gid).fetch_one(pool).await?;
        if can_abort {
            match pgsaga_producer::abort(pool, gid, "the test kit aborts it").await {
                // It has ended, or has passed its pivot.
                Ok(_) | Err(pgsaga_producer::Error::TooLate { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let other = self.kit.start(self.kit.database.url()).await?;
        let run = self.kit.end_of(trial).await?;
        other.stop().await?;
        Ok(run)
    }

    pub(super) async fn proxy(&self) -> Result<Proxy, Error> {
        Proxy::start(self.kit.database.url())
            .await
            .map_err(|source| Error::Io { doing: "start a proxy before Postgres".to_owned(), source })
    }
}

/// The name of a statement that concerns a saga: it claims, settles, or belongs to a handler's
/// transaction.
fn concerns_sagas(text: &str) -> Option<&str> {
    let Some(Statement { folder, name, sql, .. }) = query::all().find(|statement| statement.sql == text)
    else {
        return (!text.contains("LISTEN")).then(|| text.lines().next().unwrap_or_default());
    };
    let writes = ["insert into ", "update ", "delete from "].iter().any(|word| sql.contains(word));
    (["claim", "settle"].contains(folder) && writes).then_some(*name)
}
