//! The fixture: a test reads as the specification of what it shows.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgPool;

use crate::oracle::Oracle;
use crate::{Behaviour, Cluster, Database, Participant, Worker, eventually};

/// How long anything may take that should take milliseconds; the machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long the next sample of the database may take. A worker pauses for 15 s, or for a hundred
/// times as long as the shorter of its last two samples took, which can be most of a minute while
/// the machine is busy.
pub const SAMPLE_PATIENCE: Duration = Duration::from_secs(150);

/// The words of `pgsaga.decide`, in the order in which it names them.
pub const DECISIONS: [&str; 9] = [
    "retry",
    "retry-fresh",
    "skip",
    "resolve-succeeded",
    "resolve-failed",
    "abort",
    "force",
    "complete-success",
    "complete-failure",
];

/// A database, a participant, and as many workers as the test needs. Sagas are written as the
/// specification reads:
/// `scene.saga("s").step("stock").step("pay").action(Refuse(…)).insert().await`.
pub struct Scene {
    /// Real processes; dropped first.
    pub workers: Vec<Worker>,
    /// Serves every step.
    pub participant: Participant,
    /// Of its own.
    pub db: Database,
}

impl Scene {
    /// A database and a participant, no worker yet.
    pub async fn new() -> Scene {
        Scene { workers: Vec::new(), participant: Participant::start().await, db: Database::new().await }
    }

    /// In a cluster of the test's own.
    pub async fn on(cluster: &Cluster) -> Scene {
        Scene { workers: Vec::new(), participant: Participant::start().await, db: cluster.database().await }
    }

    /// In a cluster of the test's own, with a participant that writes every call to a file before
    /// it answers.
    pub async fn with_ledger(cluster: &Cluster) -> Scene {
        let participant = Participant::with_ledger().await;
        Scene { workers: Vec::new(), participant, db: cluster.database().await }
    }

    /// With one ready worker: the lease is two seconds, so that tests of its end are short.
    pub async fn with_worker() -> Scene {
        let mut scene = Scene::new().await;
        scene.start_worker(&[]).await;
        scene
    }

    /// Starts one more worker and waits until it is ready.
    pub async fn start_worker(&mut self, flags: &[&str]) -> &mut Worker {
        let mut all = flags.to_vec();
        if !flags.contains(&"--lease-seconds") {
            all.extend(["--lease-seconds", "2"]);
        }
        self.workers.push(Worker::spawn(self.db.url(), &all));
        let worker = self.workers.last_mut().unwrap();
        worker.ready().await;
        worker
    }

    /// The test's own connections.
    pub fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// A saga to be written down.
    pub fn saga(&self, gid: &str) -> SagaSpec<'_> {
        SagaSpec { scene: self, gid: gid.to_owned(), steps: Vec::new(), columns: Vec::new() }
    }

    /// Status and reason, when the saga exists.
    pub async fn status(&self, gid: &str) -> Option<(String, Option<String>)> {
        sqlx::query_as("select status, reason from pgsaga.saga where gid = $1")
            .bind(gid)
            .fetch_optional(self.pool())
            .await
            .unwrap()
    }

    /// Waits until the saga is over or stuck.
    pub async fn ended(&self, gid: &str) -> (String, Option<String>) {
        eventually(PATIENCE, &format!("saga {gid} ends"), async || {
            self.status(gid)
                .await
                .filter(|(status, _)| matches!(status.as_str(), "succeeded" | "failed" | "stuck"))
        })
        .await
    }

    /// Waits until every saga is over or stuck.
    ///
    /// # Panics
    /// At the deadline, with what is still open.
    pub async fn all_ended(&self, patience: Duration) {
        let started = std::time::Instant::now();
        let open = "select s.gid || ' ' || s.status || ' v' || s.version || coalesce(' ' || s.progress, '') || coalesce(' abort: ' || s.abort_reason, '')
              || coalesce(' task ' || to_jsonb(t)::text, ' no task')
            from pgsaga.saga s left join pgsaga.task t on t.saga_id = s.id
            where s.finished_at is null and s.status <> 'stuck' order by s.id limit 20";
        loop {
            let open: Result<Vec<String>, _> = sqlx::query_scalar(open).fetch_all(self.pool()).await;
            match open {
                Ok(open) if open.is_empty() => return,
                open => assert!(
                    started.elapsed() < patience,
                    "not every saga ended within {patience:?}: {open:#?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the end and compares status, reason and the ops that the participant was asked
    /// for, in order.
    pub async fn expect(&self, gid: &str, status: &str, reason: Option<&str>, ops: &[&str]) {
        let ended = self.ended(gid).await;
        assert_eq!((ended.0.as_str(), ended.1.as_deref()), (status, reason), "saga {gid}");
        assert_eq!(self.participant.ops_for(gid), ops, "calls of saga {gid}");
        self.healthy().await;
    }

    /// Calls `pgsaga.complete` with these arguments, written as SQL.
    ///
    /// # Errors
    /// What the database says.
    pub async fn complete(&self, arguments: &str) -> Result<String, sqlx::Error> {
        let complete = format!("select pgsaga.complete({arguments})");
        sqlx::query_scalar(sqlx::AssertSqlSafe(complete)).fetch_one(self.pool()).await
    }

    /// The SQLSTATE and the words with which such a call is refused.
    pub async fn complete_refused(&self, arguments: &str) -> (String, String) {
        let error = self.complete(arguments).await.unwrap_err();
        let error = error.as_database_error().unwrap();
        (error.code().unwrap().into_owned(), error.message().to_owned())
    }

    /// A saga's tries as `"pay action 2 unknown"`.
    pub async fn history(&self, gid: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select step || ' ' || op || ' ' || attempt || ' ' || outcome from pgsaga.saga_timeline where gid = $1 and kind = 'attempt' order by seq",
        )
        .bind(gid)
        .fetch_all(self.pool())
        .await
        .unwrap()
    }

    /// The messages of a saga's tries; `-` where there is none.
    pub async fn messages(&self, gid: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select coalesce(message, '-') from pgsaga.saga_timeline where gid = $1 and kind = 'attempt' order by seq",
        )
        .bind(gid)
        .fetch_all(self.pool())
        .await
        .unwrap()
    }

    /// No invariant is broken.
    pub async fn healthy(&self) {
        assert_eq!(broken(self.pool()).await, Vec::<String>::new());
    }

    /// The judge of a scene with a ledger, to be told what else is known.
    pub async fn oracle(&self) -> Oracle {
        Oracle::new(self.pool()).ledger(self.participant.ledger().await)
    }

    /// Every saga and what it came to, as a count.
    pub async fn count(&self, status: &str) -> i64 {
        sqlx::query_scalar("select count(*) from pgsaga.saga where status = $1")
            .bind(status)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// The sum of a metric over the running workers.
    pub async fn metric(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for worker in &self.workers {
            sum += worker.metric(series).await.unwrap_or(0.0);
        }
        sum
    }
}

/// What the checks find, in one snapshot.
pub async fn broken(pool: &PgPool) -> Vec<String> {
    let mut snapshot = pool.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read, read only; set local jit = off")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let filled: Vec<i64> = sqlx::query_scalar(pgsaga_sql::query::FILLED_HISTORY_PARTITIONS)
        .fetch_all(&mut *snapshot)
        .await
        .unwrap();
    let mut found = Vec::new();
    for check in pgsaga_sql::CHECKS {
        let check_sql = sqlx::AssertSqlSafe(check.among(&filled));
        let rows: Vec<(Option<String>, String)> =
            sqlx::query_as(check_sql).fetch_all(&mut *snapshot).await.unwrap();
        found.extend(rows.into_iter().map(|(gid, what)| match gid {
            Some(gid) => format!("{}: {gid}: {what}", check.name),
            None => format!("{}: {what}", check.name),
        }));
    }
    snapshot.commit().await.unwrap();
    found
}

/// A saga as the test writes it: step `pay` of saga `s` is served at `/s/pay`, both ops.
pub struct SagaSpec<'a> {
    scene: &'a Scene,
    gid: String,
    steps: Vec<Value>,
    columns: Vec<(&'static str, String)>,
}

impl SagaSpec<'_> {
    /// A step with an action and a compensation.
    #[must_use]
    pub fn step(mut self, name: &str) -> Self {
        let url = self.scene.participant.url(&format!("/{}/{name}", self.gid));
        self.steps.push(json!({"name": name, "action": url, "compensate": url, "payload": {"step": name}}));
        self
    }

    fn path(&self) -> String {
        format!("/{}/{}", self.gid, self.steps.last().unwrap()["name"].as_str().unwrap())
    }

    /// What the last step's action does.
    #[must_use]
    pub fn action(self, behaviour: Behaviour) -> Self {
        self.scene.participant.on(&self.path(), "action", behaviour);
        self
    }

    /// What the last step's compensation does.
    #[must_use]
    pub fn compensate(self, behaviour: Behaviour) -> Self {
        self.scene.participant.on(&self.path(), "compensate", behaviour);
        self
    }

    /// Sets a key of the last step; null removes it.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        let step = self.steps.last_mut().unwrap().as_object_mut().unwrap();
        if value.is_null() {
            step.remove(key);
        } else {
            step.insert(key.to_owned(), value);
        }
        self
    }

    /// Sets a column, written as an SQL literal.
    #[must_use]
    pub fn column(mut self, name: &'static str, literal: &str) -> Self {
        self.columns.push((name, literal.to_owned()));
        self
    }

    /// The last step waits for a completion instead of calling somebody.
    #[must_use]
    pub fn waits(self, seconds: f64) -> Self {
        self.with("action", Value::Null).with("wait_seconds", json!(seconds))
    }

    /// The steps as they are inserted.
    pub fn steps(&self) -> Value {
        Value::Array(self.steps.clone())
    }

    /// Inserts it in plain SQL. Retries come after 20 ms unless the test says otherwise.
    pub async fn insert(self) {
        self.try_insert().await.unwrap();
    }

    /// The same where Postgres may be away.
    ///
    /// # Errors
    /// What the database says.
    pub async fn try_insert(self) -> Result<(), sqlx::Error> {
        let mut columns = self.columns.clone();
        if !columns.iter().any(|(name, _)| *name == "retry_interval") {
            columns.push(("retry_interval", "'20 milliseconds'".to_owned()));
        }
        let names: String = columns.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String = columns.iter().map(|(_, literal)| format!(", {literal}")).collect();
        let insert = format!("insert into pgsaga.saga (gid, steps{names}) values ($1, $2{values})");
        let insert = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(&self.gid).bind(self.steps());
        insert.execute(self.scene.pool()).await.map(drop)
    }
}
