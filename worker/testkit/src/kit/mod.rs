//! The kit: runs sagas to their end, and asks the five questions.

mod calls;
mod cut;
mod judge;
mod mishaps;
mod order;
mod report;
mod run;
mod state;
mod subject;
mod worker;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgsaga_producer::{Definition, Producer};
use pgsaga_worker::{Builder, Worker};
use serde_json::Value;

use crate::database::Database;
use crate::error::Error;
use crate::loopback;
use calls::Calls;
use judge::Asked;
pub use report::{Case, Question, Report, Verdict};
pub use run::{Entry, Run};
use state::State;
use subject::Subject;
use worker::{LOOK_EVERY, Running};

/// How long a saga may take to end, by default.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an effect may come after the answer and still be found out, by default.
const WINDOW: Duration = Duration::from_millis(300);
/// The lease of the kit's workers.
const LEASE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(2);

/// What can go wrong in a state's function.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Configure = dyn Fn(Builder) -> Builder + Send + Sync;
type Look = dyn Fn() -> Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send>> + Send + Sync;

/// Runs sagas with the shipped engine on a real Postgres, and asks the five questions about them.
/// Participants live in this process, or are called over HTTP.
pub struct Kit<'a> {
    database: &'a Database,
    configure: Box<Configure>,
    look: Box<Look>,
    patience: Duration,
    window: Duration,
    calls: Arc<Calls>,
    /// Tells the sagas of this kit from all others.
    run: u32,
    sagas: AtomicU32,
}

impl<'a> Kit<'a> {
    /// A kit whose workers have the participants that `worker` adds, and may call URLs of this
    /// machine. `state` returns the state of all participants as JSON: what the saga changes, such
    /// as balances and counts, without times and generated ids.
    ///
    /// In a state, what has the saga's gid in it compares as if each saga had the same gid.
    pub fn new<F, E>(
        database: &'a Database,
        worker: impl Fn(Builder) -> Builder + Send + Sync + 'static,
        state: impl Fn() -> F + Send + Sync + 'static,
    ) -> Kit<'a>
    where
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<Failure>,
    {
        Kit {
            database,
            configure: Box::new(worker),
            look: Box::new(move || {
                let state = state();
                Box::pin(async move { state.await.map_err(Into::into) })
            }),
            patience: PATIENCE,
            window: WINDOW,
            calls: Arc::default(),
            run: rand::random(),
            sagas: AtomicU32::new(0),
        }
    }

    /// How long a saga may take to end, 30 s by default.
    pub fn patience(mut self, patience: Duration) -> Kit<'a> {
        self.patience = patience;
        self
    }

    /// How long the kit watches the state after an answer, for an effect that comes late; 300 ms by
    /// default.
    pub fn window(mut self, window: Duration) -> Kit<'a> {
        self.window = window;
        self
    }

    /// Runs a saga until it has ended or is stuck. What waits for a retry is made due at once.
    ///
    /// # Errors
    /// The saga does not end in time, or the database fails.
    pub async fn run_to_end(&self, saga: &Definition) -> Result<Run, Error> {
        let _turn = self.database.turn.lock().await;
        self.calls.begin("");
        let worker = self.start(self.database.url()).await?;
        let run = self.run_undisturbed(saga).await?;
        worker.stop().await?;
        Ok(run)
    }

    /// Asks a question about a saga. The saga itself must succeed when nothing goes wrong. It runs
    /// many times, each time under another gid and without its `timeout_to_fail`.
    ///
    /// # Errors
    /// The saga does not succeed by itself, its state cannot be read or does not show what it
    /// changes, or the database fails.
    pub async fn ask(&self, question: Question, saga: &Definition) -> Result<Report, Error> {
        let _turn = self.database.turn.lock().await;
        let subject = Subject::new(saga)?;
        let mut worker = Some(self.start(self.database.url()).await?);
        let known = self.learn(&subject).await?;
        if matches!(question, Question::DeadWorker | Question::WorstOrder) {
            // Each case has workers of its own.
            stop(worker.take()).await?;
        }
        let asked = Asked { kit: self, question, subject: &subject, known };
        let cases = match question {
            Question::Refusal => asked.refusals().await?,
            Question::Repeat => asked.repeats().await?,
            Question::LostAnswer => asked.lost_answers().await?,
            Question::DeadWorker => asked.dead_workers().await?,
            Question::WorstOrder => asked.late_actions().await?,
        };
        stop(worker).await?;
        Ok(Report { question, cases })
    }

    /// Has each step in turn refuse: is everything before it undone?
    ///
    /// # Errors
    /// See [`Kit::ask`].
    pub async fn fail_each_step(&self, saga: &Definition) -> Result<Report, Error> {
        self.ask(Question::Refusal, saga).await
    }

    /// Makes each call twice: does it act once?
    ///
    /// # Errors
    /// See [`Kit::ask`].
    pub async fn repeat_each_call(&self, saga: &Definition) -> Result<Report, Error> {
        self.ask(Question::Repeat, saga).await
    }

    /// Loses each answer after its effect: is the effect there by then, and is it undone?
    ///
    /// # Errors
    /// See [`Kit::ask`].
    pub async fn lose_each_answer(&self, saga: &Definition) -> Result<Report, Error> {
        self.ask(Question::LostAnswer, saga).await
    }

    /// Lets the worker die at each of its statements, and aborts the saga: is only undone what was
    /// done?
    ///
    /// # Errors
    /// See [`Kit::ask`].
    pub async fn cut_at_each_statement(&self, saga: &Definition) -> Result<Report, Error> {
        self.ask(Question::DeadWorker, saga).await
    }

    /// Delivers each action after its compensation: does it stay without effect?
    ///
    /// # Errors
    /// See [`Kit::ask`].
    pub async fn deliver_in_the_worst_order(&self, saga: &Definition) -> Result<Report, Error> {
        self.ask(Question::WorstOrder, saga).await
    }

    fn gid(&self) -> String {
        format!("kit-{:08x}-{}", self.run, self.sagas.fetch_add(1, Ordering::Relaxed))
    }

    fn builder(&self, url: &str) -> Builder {
        let database = pgsaga_worker::Database::new(url).connections(2).concurrency(64);
        let builder = Worker::builder(database).lease(LEASE).grace(GRACE).allow_addresses(loopback().into());
        (self.configure)(builder).intercept(self.calls.clone())
    }

    async fn start(&self, url: &str) -> Result<Running, Error> {
        Running::start(self.builder(url), self.patience).await
    }

    async fn submit(&self, saga: &Definition) -> Result<String, Error> {
        Ok(Producer::default().submit_definition(self.database.pool(), saga).await?.gid)
    }

    /// Runs a saga in which nothing goes wrong.
    async fn run_undisturbed(&self, saga: &Definition) -> Result<Run, Error> {
        let gid = self.submit(saga).await?;
        self.until(&gid, || false, |_| false).await?.ok_or(Error::NoSaga(gid))
    }

    /// Waits until something has happened, and returns `None`, or until the saga is over or given
    /// up. What waits for a retry is made due.
    async fn until(
        &self,
        gid: &str,
        has_happened: impl Fn() -> bool,
        is_given_up: impl Fn(&Run) -> bool,
    ) -> Result<Option<Run>, Error> {
        let pool = self.database.pool();
        let started = Instant::now();
        while !has_happened() {
            let run = Run::read(pool, gid).await?.ok_or_else(|| Error::NoSaga(gid.to_owned()))?;
            if run.is_over() || is_given_up(&run) {
                return Ok(Some(run));
            }
            if started.elapsed() > self.patience {
                let why = sqlx::query_scalar(include_str!("sql/denied.sql")).fetch_one(pool).await?;
                let (gid, waited, run) = (gid.to_owned(), self.patience, run.to_string());
                return Err(Error::NotEnded { gid, waited, run, why });
            }
            sqlx::query(include_str!("sql/make_due.sql")).bind(gid).execute(pool).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    async fn state(&self, gid: &str) -> Result<State, Error> {
        let looked = tokio::time::timeout(self.patience, (self.look)()).await;
        let late = |_| Error::State(format!("it was not there within {} s", self.patience.as_secs()).into());
        Ok(State::read(&looked.map_err(late)?.map_err(Error::State)?, gid))
    }
}

async fn stop(worker: Option<Running>) -> Result<(), Error> {
    match worker {
        Some(worker) => worker.stop().await,
        None => Ok(()),
    }
}

impl fmt::Debug for Kit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("database", &self.database).finish_non_exhaustive()
    }
}
