//! An application that writes sagas through the crate, and one that writes them in plain SQL. Both
//! have a producer's rights and no others.

use std::time::{Duration, Instant};

use pgsaga_producer::{Error, Saga, Step, Waiter};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Call, eventually};
use serde_json::{Map, Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

/// How often plain SQL looks.
const POLL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Crate,
    Sql,
}

/// What a saga came to, as its producer sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) result: Option<Value>,
}

/// Names are the test's; the gid is `crate-NAME` or `sql-NAME`.
pub(super) struct Client<'a> {
    scene: &'a Scene,
    pub(super) way: Way,
    pool: PgPool,
    waiter: Waiter,
}

impl<'a> Client<'a> {
    /// One of each.
    pub(super) fn both(scene: &'a Scene) -> [Self; 2] {
        [Way::Crate, Way::Sql].map(|way| {
            let pool = PgPoolOptions::new()
                .max_connections(2)
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        sqlx::raw_sql("set role pgsaga_producer").execute(connection).await.map(drop)
                    })
                })
                .connect_lazy(scene.db.url())
                .unwrap();
            Self { scene, way, waiter: Waiter::new(pool.clone()), pool }
        })
    }

    pub(super) fn gid(&self, name: &str) -> String {
        let way = match self.way {
            Way::Crate => "crate",
            Way::Sql => "sql",
        };
        format!("{way}-{name}")
    }

    /// Its step `pay` is served at `/GID/pay`, both ops. Retries come after 20 ms unless told
    /// otherwise.
    pub(super) fn saga(&self, name: &str) -> Draft<'_> {
        Draft {
            client: self,
            gid: self.gid(name),
            steps: Vec::new(),
            headers: Vec::new(),
            retry_interval: Duration::from_millis(20),
            request_timeout: None,
            timeout_to_fail: None,
            retry_limit: None,
        }
    }

    /// Waits until the saga is over or stuck. At the deadline: the status it was last seen in.
    pub(super) async fn wait(&self, name: &str, patience: Duration) -> Result<Ended, String> {
        let gid = self.gid(name);
        match self.way {
            Way::Crate => match self.waiter.wait(&gid, patience).await {
                Ok(ended) => {
                    let result = ended.read_result().unwrap();
                    Ok(Ended { status: ended.status.to_string(), reason: ended.reason, result })
                }
                Err(Error::Deadline { status: Some(status), .. }) => Err(status.to_string()),
                Err(error) => panic!("{gid}: {error}"),
            },
            Way::Sql => {
                let started = Instant::now();
                loop {
                    let (status, reason, result): (String, _, _) =
                        sqlx::query_as("select status, reason, result from pgsaga.saga where gid = $1")
                            .bind(&gid)
                            .fetch_one(&self.pool)
                            .await
                            .unwrap();
                    if matches!(status.as_str(), "succeeded" | "failed" | "stuck") {
                        return Ok(Ended { status, reason, result });
                    }
                    if started.elapsed() >= patience {
                        return Err(status);
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// Where it stands now.
    pub(super) async fn stands(&self, name: &str) -> String {
        let gid = self.gid(name);
        match self.way {
            Way::Crate => {
                pgsaga_producer::status(&self.pool, &gid).await.unwrap().unwrap().status.to_string()
            }
            Way::Sql => sqlx::query_scalar("select status from pgsaga.saga where gid = $1")
                .bind(&gid)
                .fetch_one(&self.pool)
                .await
                .unwrap(),
        }
    }

    /// Waits for the end and compares status and reason.
    pub(super) async fn expect_end(&self, name: &str, status: &str, reason: Option<&str>) {
        let ended = self.wait(name, PATIENCE).await;
        let ended = ended.unwrap_or_else(|status| panic!("{} is still {status}", self.gid(name)));
        assert_eq!((ended.status.as_str(), ended.reason.as_deref()), (status, reason), "{}", self.gid(name));
    }

    /// The same with the ops that the participant was asked for, in order.
    pub(super) async fn expect(&self, name: &str, status: &str, reason: Option<&str>, ops: &[&str]) {
        self.expect_end(name, status, reason).await;
        assert_eq!(self.ops(name), ops, "calls of {}", self.gid(name));
    }

    /// The calls so far, in the order of arrival.
    pub(super) fn calls(&self, name: &str) -> Vec<Call> {
        self.scene.participant.calls_for(&self.gid(name))
    }

    /// The same as `"stock action"`.
    pub(super) fn ops(&self, name: &str) -> Vec<String> {
        self.scene.participant.ops_for(&self.gid(name))
    }

    /// The only call of a step's op.
    pub(super) fn call(&self, name: &str, step: &str, op: &str) -> Call {
        let calls = self.calls(name);
        let mut found = calls.iter().filter(|call| call.branch_id == step && call.op == op);
        let first = found.next().unwrap_or_else(|| panic!("no {step} {op} of {}", self.gid(name)));
        assert!(found.next().is_none(), "more than one {step} {op} of {}", self.gid(name));
        first.clone()
    }

    /// Waits until so many calls have arrived; they may still run.
    pub(super) async fn called(&self, name: &str, count: usize) {
        eventually(PATIENCE, &format!("{count} calls of {}", self.gid(name)), async || {
            (self.calls(name).len() >= count).then_some(())
        })
        .await;
    }

    /// The saga's tries as `"pay action 2 unknown"`.
    pub(super) async fn history(&self, name: &str) -> Vec<String> {
        self.scene.history(&self.gid(name)).await
    }
}

/// A saga, described once for both ways.
#[derive(Clone)]
pub(super) struct Draft<'a> {
    client: &'a Client<'a>,
    gid: String,
    steps: Vec<StepDraft>,
    headers: Vec<(&'static str, &'static str)>,
    retry_interval: Duration,
    request_timeout: Option<Duration>,
    timeout_to_fail: Option<Duration>,
    retry_limit: Option<u32>,
}

#[derive(Clone)]
struct StepDraft {
    name: &'static str,
    action: String,
    compensate: String,
    payload: Value,
    after: Option<Vec<&'static str>>,
    headers: Vec<(&'static str, &'static str)>,
    request_timeout: Option<Duration>,
}

impl Draft<'_> {
    /// A step with an action and a compensation.
    pub(super) fn step(mut self, name: &'static str) -> Self {
        let url = self.client.scene.participant.url(&format!("/{}/{name}", self.gid));
        self.steps.push(StepDraft {
            name,
            action: url.clone(),
            compensate: url,
            payload: json!({ "step": name }),
            after: None,
            headers: Vec::new(),
            request_timeout: None,
        });
        self
    }

    fn last(&mut self) -> &mut StepDraft {
        self.steps.last_mut().unwrap()
    }

    fn script(self, op: &str, behaviour: Behaviour) -> Self {
        let path = format!("/{}/{}", self.gid, self.steps.last().unwrap().name);
        self.client.scene.participant.on(&path, op, behaviour);
        self
    }

    /// What the last step's action does.
    pub(super) fn action(self, behaviour: Behaviour) -> Self {
        self.script("action", behaviour)
    }

    /// What the last step's compensation does.
    pub(super) fn compensate(self, behaviour: Behaviour) -> Self {
        self.script("compensate", behaviour)
    }

    /// Where the last step is served.
    pub(super) fn at(self, url: &str) -> Self {
        self.action_url(url).compensate_url(url)
    }

    pub(super) fn action_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.last().action);
        self
    }

    pub(super) fn compensate_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.last().compensate);
        self
    }

    pub(super) fn payload(mut self, payload: Value) -> Self {
        self.last().payload = payload;
        self
    }

    /// What the last step waits for.
    pub(super) fn after<const N: usize>(mut self, names: [&'static str; N]) -> Self {
        self.last().after = Some(names.to_vec());
        self
    }

    pub(super) fn step_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.last().headers.push((name, value));
        self
    }

    pub(super) fn step_request_timeout(mut self, timeout: Duration) -> Self {
        self.last().request_timeout = Some(timeout);
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval = interval;
        self
    }

    pub(super) fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    pub(super) fn timeout_to_fail(mut self, timeout: Duration) -> Self {
        self.timeout_to_fail = Some(timeout);
        self
    }

    pub(super) fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = Some(limit);
        self
    }

    /// True when this created the saga, false when its gid was there.
    pub(super) async fn submit(&self) -> bool {
        match self.client.way {
            Way::Crate => {
                let submitted = self.built().submit(&self.client.pool).await.unwrap();
                assert_eq!(submitted.gid, self.gid);
                submitted.created
            }
            Way::Sql => {
                let insert = format!("{} on conflict (gid) do nothing", self.sql());
                let inserted = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&self.client.pool).await.unwrap();
                inserted.rows_affected() == 1
            }
        }
    }

    fn built(&self) -> Saga {
        let mut saga = Saga::new().gid(&self.gid).unwrap().retry_interval(self.retry_interval);
        for step in &self.steps {
            let mut built =
                Step::new(step.name).action(&step.action).compensate(&step.compensate).payload(&step.payload);
            if let Some(after) = &step.after {
                built = built.after(after.iter().copied());
            }
            if let Some(timeout) = step.request_timeout {
                built = built.request_timeout(timeout);
            }
            saga =
                saga.step(step.headers.iter().fold(built, |step, (name, value)| step.header(*name, *value)));
        }
        if let Some(timeout) = self.request_timeout {
            saga = saga.request_timeout(timeout);
        }
        if let Some(timeout) = self.timeout_to_fail {
            saga = saga.timeout_to_fail(timeout);
        }
        if let Some(limit) = self.retry_limit {
            saga = saga.retry_limit(limit);
        }
        self.headers.iter().fold(saga, |saga, (name, value)| saga.header(*name, *value))
    }

    /// The statement as a person writes it, without parameters.
    fn sql(&self) -> String {
        let interval = |duration: Duration| quoted(&format!("{} microseconds", duration.as_micros()));
        let steps: Vec<Value> = self.steps.iter().map(StepDraft::json).collect();
        let mut columns = vec![
            ("gid", quoted(&self.gid)),
            ("steps", quoted(&Value::from(steps).to_string())),
            ("retry_interval", interval(self.retry_interval)),
        ];
        columns.extend(self.request_timeout.map(|timeout| ("request_timeout", interval(timeout))));
        columns.extend(self.timeout_to_fail.map(|timeout| ("timeout_to_fail", interval(timeout))));
        columns.extend(self.retry_limit.map(|limit| ("retry_limit", limit.to_string())));
        if !self.headers.is_empty() {
            columns.push(("headers", quoted(&object(&self.headers).to_string())));
        }
        let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        format!("insert into pgsaga.saga ({}) values ({})", names.join(", "), values.join(", "))
    }
}

impl StepDraft {
    fn json(&self) -> Value {
        let mut step = Map::new();
        step.insert("name".into(), json!(self.name));
        step.insert("action".into(), json!(self.action));
        step.insert("compensate".into(), json!(self.compensate));
        step.insert("payload".into(), self.payload.clone());
        if let Some(after) = &self.after {
            step.insert("after".into(), json!(after));
        }
        if !self.headers.is_empty() {
            step.insert("headers".into(), object(&self.headers));
        }
        if let Some(timeout) = self.request_timeout {
            step.insert("request_timeout_seconds".into(), json!(timeout.as_secs_f64()));
        }
        Value::Object(step)
    }
}

fn object(entries: &[(&str, &str)]) -> Value {
    entries.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>().into()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
