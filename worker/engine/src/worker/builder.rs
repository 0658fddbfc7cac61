//! What a worker is made of, before it runs.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::served::{DatabaseWorker, Options};
use crate::db::{self, Hosts};
use crate::error::Error;
use crate::execute::Executors;
use crate::execute::address::Addresses;
use crate::execute::client::{self, Connections};
use crate::execute::handler::Participant;
use crate::execute::http::{self, HttpExecutor};
use crate::execute::intercept::Intercept;
use crate::execute::registry::Registry;
use crate::execute::trace::Traces;
use crate::flow::queues::Served;
use crate::telemetry::metrics::{self, Series};

/// A database that a worker serves.
#[derive(Debug, Clone)]
pub struct Database {
    url: String,
    direct_url: Option<String>,
    connections_max: u32,
    calls_max: u32,
}

impl Database {
    /// Connections for claims and settles, by default.
    pub const CONNECTIONS: u32 = 4;
    /// Calls at once, by default.
    pub const CONCURRENCY: u32 = 512;

    /// The database of this URL, such as `postgres://user:password@host:5432/name`. The URL may
    /// name several hosts, as libpq allows; the worker uses the one that accepts writes.
    pub fn new(url: impl Into<String>) -> Database {
        let (connections_max, calls_max) = (Database::CONNECTIONS, Database::CONCURRENCY);
        Database { url: url.into(), direct_url: None, connections_max, calls_max }
    }

    /// The same database without a pooler, for LISTEN.
    pub fn direct_url(mut self, url: impl Into<String>) -> Database {
        self.direct_url = Some(url.into());
        self
    }

    /// Connections for claims and settles, 4 by default. Heartbeats, housekeeping and LISTEN use
    /// four more.
    pub fn connections(mut self, connections_max: u32) -> Database {
        self.connections_max = connections_max;
        self
    }

    /// Upper bound on the calls that run at once, 512 by default.
    pub fn concurrency(mut self, calls_max: u32) -> Database {
        self.calls_max = calls_max;
        self
    }
}

impl<T: Into<String>> From<T> for Database {
    fn from(url: T) -> Database {
        Database::new(url)
    }
}

/// The settings of a [`Worker`]. Each has the default of the flag of `pgsaga work` with its name.
#[derive(Debug)]
pub struct Builder {
    databases: Vec<Database>,
    pooled: bool,
    environment: Option<String>,
    database_timeout: Duration,
    listener: Option<TcpListener>,
    lease: Duration,
    grace: Duration,
    retention: Option<Duration>,
    queues: Vec<Served>,
    participants: Vec<Participant>,
    participants_file: Option<PathBuf>,
    participant_limits: Vec<(String, usize)>,
    participant_ca: Option<PathBuf>,
    answer_bytes_max: usize,
    addresses: Vec<IpNet>,
    deny_plain_urls: bool,
    connection_idle: Duration,
    connection_age: Duration,
    traced: bool,
    intercept: Option<Arc<dyn Intercept>>,
}

impl Builder {
    /// Upper bound on the time of a statement, in seconds, by default.
    pub const DATABASE_TIMEOUT_SECONDS: u64 = 30;
    /// The default of [`Builder::lease`], in seconds.
    pub const LEASE_SECONDS: u64 = 15;
    /// The default of [`Builder::grace`], in seconds.
    pub const GRACE_SECONDS: u64 = 30;
    /// The default of [`Builder::answer_bytes_max`].
    pub const ANSWER_BYTES_MAX: u32 = 65_536;
    /// The default of [`Builder::connection_idle`], in seconds.
    pub const CONNECTION_IDLE_SECONDS: u64 = 1;
    /// The default of [`Builder::connection_age`], in seconds.
    pub const CONNECTION_AGE_SECONDS: u64 = 60;

    pub(super) fn new(database: Database) -> Builder {
        Builder {
            databases: vec![database],
            pooled: false,
            environment: None,
            database_timeout: Duration::from_secs(Builder::DATABASE_TIMEOUT_SECONDS),
            listener: None,
            lease: Duration::from_secs(Builder::LEASE_SECONDS),
            grace: Duration::from_secs(Builder::GRACE_SECONDS),
            retention: None,
            queues: Vec::new(),
            participants: Vec::new(),
            participants_file: None,
            participant_limits: Vec::new(),
            participant_ca: None,
            answer_bytes_max: Builder::ANSWER_BYTES_MAX as usize,
            addresses: Vec::new(),
            deny_plain_urls: false,
            connection_idle: Duration::from_secs(Builder::CONNECTION_IDLE_SECONDS),
            connection_age: Duration::from_secs(Builder::CONNECTION_AGE_SECONDS),
            traced: false,
            intercept: None,
        }
    }

    /// Serves one more database, with the same settings.
    pub fn database(mut self, database: impl Into<Database>) -> Builder {
        self.databases.push(database.into());
        self
    }

    /// Calls the handlers of this participant in this process.
    pub fn participant(mut self, participant: impl Into<Participant>) -> Builder {
        self.participants.push(participant.into());
        self
    }

    /// Reads the URLs and secrets of participants behind HTTP from this file (`--participants`).
    pub fn participants_file(mut self, file: Option<PathBuf>) -> Builder {
        self.participants_file = file;
        self
    }

    /// The database URLs lead through a pooler in transaction mode.
    pub fn pooled(mut self, pooled: bool) -> Builder {
        self.pooled = pooled;
        self
    }

    /// Works in databases of this environment only (`pgsaga migrate --environment`).
    pub fn environment(mut self, name: Option<String>) -> Builder {
        self.environment = name;
        self
    }

    /// Upper bound on the time of a statement, 30 s by default.
    pub fn database_timeout(mut self, timeout: Duration) -> Builder {
        self.database_timeout = timeout;
        self
    }

    /// Installs a Prometheus recorder, and serves `/metrics`, `/healthz` and `/readyz` on this
    /// listener. Without one, the metrics go to the process's own recorder of the crate `metrics`,
    /// which must be installed before [`Builder::build`].
    pub fn listen(mut self, listener: TcpListener) -> Builder {
        self.listener = Some(listener);
        self
    }

    /// A worker that was silent for this long is dead, and its tasks are rescued; 15 s by default.
    pub fn lease(mut self, lease: Duration) -> Builder {
        self.lease = lease;
        self
    }

    /// How long calls in flight may take to end after the worker was told to stop; 30 s by default.
    /// Handlers that run longer are dropped at their next await.
    pub fn grace(mut self, grace: Duration) -> Builder {
        self.grace = grace;
        self
    }

    /// Deletes sagas this long after they finished; by default never.
    pub fn retention(mut self, age: Option<Duration>) -> Builder {
        self.retention = age;
        self
    }

    /// The queues that the worker serves; by default every queue.
    pub fn queues(mut self, queues: Vec<Served>) -> Builder {
        self.queues = queues;
        self
    }

    /// Upper bounds on the calls at once of single participants, by `host:port` or
    /// `participant:name`.
    pub fn participant_limits(mut self, limits: Vec<(String, usize)>) -> Builder {
        self.participant_limits = limits;
        self
    }

    /// Trusts the authorities of this PEM file for participants' certificates, beside the system's.
    pub fn participant_ca(mut self, file: Option<PathBuf>) -> Builder {
        self.participant_ca = file;
        self
    }

    /// Upper bound on the bytes of an answer that is read and kept, 65,536 by default.
    pub fn answer_bytes_max(mut self, bytes_max: usize) -> Builder {
        self.answer_bytes_max = bytes_max;
        self
    }

    /// Lets plain URLs reach these networks in addition to public addresses.
    pub fn allow_addresses(mut self, networks: Vec<IpNet>) -> Builder {
        self.addresses = networks;
        self
    }

    /// Calls named participants only: a plain URL waits for another worker.
    pub fn deny_plain_urls(mut self, deny: bool) -> Builder {
        self.deny_plain_urls = deny;
        self
    }

    /// An idle connection to a participant is not used again after this time, 1 s by default.
    pub fn connection_idle(mut self, idle: Duration) -> Builder {
        self.connection_idle = idle;
        self
    }

    /// A connection to a participant gets no new calls after this time, 60 s by default.
    pub fn connection_age(mut self, age: Duration) -> Builder {
        self.connection_age = age;
        self
    }

    /// Exports a span of each call as OpenTelemetry's environment variables say, in a build with
    /// the feature `otlp`.
    pub fn traced(mut self, traced: bool) -> Builder {
        self.traced = traced;
        self
    }

    /// Lets a test kit decide about each call: it can refuse it, repeat it, hold it back, or lose
    /// its response.
    pub fn intercept(mut self, intercept: Arc<dyn Intercept>) -> Builder {
        self.intercept = Some(intercept);
        self
    }

    /// Checks the settings, and makes a worker that has opened no connection yet.
    ///
    /// # Errors
    /// [`Error::Usage`] names the setting, what was found and what is allowed.
    pub fn build(self) -> Result<Worker, Error> {
        // A process that has chosen no cryptography for TLS gets that of ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let recorder = self.listener.as_ref().map(|_| metrics::install()).transpose();
        let recorder = recorder.map_err(|error| Error::Usage(error.to_string()))?;
        let traces = if self.traced { Traces::from_env()? } else { None };
        let stop = CancellationToken::new();
        let mut workers = BTreeMap::new();
        let several = self.databases.len() > 1;
        for database in &self.databases {
            let hosts = Hosts::read(&database.url, self.pooled, self.database_timeout)?;
            let name = hosts.database();
            let span =
                if several { tracing::info_span!("serving", database = name) } else { tracing::Span::none() };
            let worker = span.in_scope(|| self.worker(database, &hosts, several, traces.clone(), &stop))?;
            if workers.insert(name.clone(), (worker, span)).is_some() {
                return Err(Error::Usage(format!("found the database {name} twice; allowed: each once")));
            }
        }
        Ok(Worker { workers, listener: self.listener.zip(recorder), traces, stop })
    }

    /// The worker of one database.
    fn worker(
        &self,
        database: &Database,
        hosts: &Hosts,
        several: bool,
        traces: Option<Traces>,
        stop: &CancellationToken,
    ) -> Result<DatabaseWorker, Error> {
        let name = hosts.database();
        let listen_on = match &database.direct_url {
            Some(direct) => Some(Hosts::read(direct, false, self.database_timeout)?),
            None => (!self.pooled).then(|| hosts.clone()),
        };
        if hosts.is_unverified() || listen_on.as_ref().is_some_and(Hosts::is_unverified) {
            tracing::warn!(
                database = name,
                "the link to Postgres is not verified: use sslmode=verify-full in the database URL"
            );
        }
        let calls_max = database.calls_max as usize;
        let executors = self.executors(calls_max, traces)?;
        let options = Options {
            database: db::Options {
                url: database.url.clone(),
                pooled: self.pooled,
                connections_max: database.connections_max,
                handlers_max: executors.named.transactions_max() as u32,
                timeout: self.database_timeout,
                heartbeat_timeout: self.lease / 4,
                series: if several { Series::of(&name) } else { Series::default() },
            },
            environment: self.environment.clone(),
            listen_on,
            calls_max,
            lease: self.lease,
            grace: self.grace,
            retention: self.retention,
            queues: self.queues.clone(),
            participant_limits: self.limits(&executors.named)?,
        };
        DatabaseWorker::new(options, executors, stop.clone())
    }

    fn executors(&self, calls_max: usize, traces: Option<Traces>) -> Result<Executors, Error> {
        let authorities = match &self.participant_ca {
            Some(file) => client::certificates(file)?,
            None => Vec::new(),
        };
        let connections =
            Connections { idle_max: calls_max, idle: self.connection_idle, age: self.connection_age };
        let variable = |name: &str| std::env::var(name).ok();
        let mut named = match &self.participants_file {
            Some(file) => Registry::read(file, variable, &authorities, connections)?,
            None => Registry::default(),
        };
        for participant in &self.participants {
            named.add(participant.clone())?;
        }
        tracing::info!(
            participants = named.len(),
            plain_urls = if self.deny_plain_urls { "denied" } else { "to public addresses" },
            allowed = ?self.addresses,
            "what may be called"
        );
        let http = HttpExecutor::new(http::Options {
            connections,
            addresses: Addresses::new(self.addresses.clone()),
            deny_plain_urls: self.deny_plain_urls,
            authorities,
        })?;
        Ok(Executors {
            http,
            named,
            answer_bytes_max: self.answer_bytes_max,
            traces,
            intercept: self.intercept.clone(),
        })
    }

    /// How many calls single participants may take at once.
    fn limits(&self, named: &Registry) -> Result<HashMap<String, usize>, Error> {
        let mut limits: HashMap<String, usize> = self.participant_limits.iter().cloned().collect();
        for (name, limit) in named.limits() {
            if limits.insert(name.clone(), limit).is_some() {
                return Err(Error::Usage(format!(
                    "{name}: found a limit of its own and one by --participant-limit; allowed: one of them"
                )));
            }
        }
        Ok(limits)
    }
}
