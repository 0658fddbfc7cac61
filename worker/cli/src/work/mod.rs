//! `pgsaga work`.

mod systemd;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::error::Error;
use crate::operate::filter;
use pgsaga_worker::db::{self, Hosts};
use pgsaga_worker::execute::Executors;
use pgsaga_worker::execute::address::Addresses;
use pgsaga_worker::execute::client;
use pgsaga_worker::execute::http::{self, HttpExecutor};
use pgsaga_worker::execute::registry::Registry;
use pgsaga_worker::execute::trace::Traces;
use pgsaga_worker::flow::queues;
use pgsaga_worker::telemetry::listener as http_listener;
use pgsaga_worker::telemetry::metrics::{self, Series};
use pgsaga_worker::{Options, Worker, WorkerStatus, not_ready};
use systemd::Systemd;

/// Runs a worker until SIGTERM or SIGINT, then drains: running calls may end, the rest is handed
/// back.
#[derive(Debug, Clone, Args)]
pub(crate) struct Work {
    /// A Postgres database to serve, such as postgres://user:password@host:5432/name; repeatable,
    /// in the variable with spaces between. Several hosts of one database may be named as libpq
    /// allows, such as host1:5432,host2:5432: the one that takes writes is used
    /// (target_session_attrs=any, read-write or primary)
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_delimiter = ' ',
        required = true,
        value_name = "URL"
    )]
    database_url: Vec<String>,
    /// DATABASE_URL leads through a pooler in transaction mode, such as PgBouncer: no prepared
    /// statements, no session settings, and no LISTEN unless --direct-database-url is given
    #[arg(long, env = "PGSAGA_POOLED", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pooled: bool,
    /// The same database without a pooler, for LISTEN; it may name several hosts as well. One for
    /// each --database-url, in their order
    #[arg(
        long,
        env = "PGSAGA_DIRECT_DATABASE_URL",
        hide_env_values = true,
        value_delimiter = ' ',
        value_name = "URL"
    )]
    direct_database_url: Vec<String>,
    /// Connections for claims and settles, 2 to 100; heartbeats, housekeeping and LISTEN have four
    /// of their own. One number for all databases, or one each, in their order
    #[arg(long, env = "PGSAGA_DATABASE_CONNECTIONS", default_values_t = [4], value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100))]
    database_connections: Vec<u32>,
    /// The longest that a statement may take, 1 to 600 seconds
    #[arg(long, env = "PGSAGA_DATABASE_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    database_timeout_seconds: u64,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "PGSAGA_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Calls running at once, 1 to 65,536. One number for each of all databases, or one each, in
    /// their order
    #[arg(long, env = "PGSAGA_CONCURRENCY", default_values_t = [512], value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Vec<u32>,
    /// A worker that was silent for so long is dead, and its tasks are rescued; 2 to 3,600 seconds
    #[arg(long, env = "PGSAGA_LEASE_SECONDS", default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_seconds: u64,
    /// How long running calls may take to end after the first signal, 0 to 3,600 seconds
    #[arg(long, env = "PGSAGA_GRACE_SECONDS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    grace_seconds: u64,
    /// A queue to serve, and maybe how many calls of it run at once; repeatable. Without it, all
    /// queues are served
    #[arg(long, env = "PGSAGA_QUEUES", value_delimiter = ',', value_name = "NAME[=LIMIT]")]
    queue: Vec<queues::Served>,
    /// A file of the participants that steps call by name, as participant:stock/reserve: their URLs
    /// and secrets (docs/safety.md). Give all workers the same
    #[arg(long, env = "PGSAGA_PARTICIPANTS", value_name = "FILE")]
    participants: Option<PathBuf>,
    /// How many calls of one participant run at once, such as pay.example:8080=16 or
    /// participant:stock=16; repeatable
    #[arg(long, env = "PGSAGA_PARTICIPANT_LIMITS", value_delimiter = ',', value_name = "HOST[:PORT]=LIMIT", value_parser = participant_limit)]
    participant_limit: Vec<(String, usize)>,
    /// Bytes of an answer that are read and kept at most, 1,024 to 1,048,576
    #[arg(long, env = "PGSAGA_ANSWER_BYTES_MAX", default_value_t = 65_536, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    answer_bytes_max: u32,
    // control: retention-asked-for
    /// Delete sagas, and their history, this long after they finished, such as 90d; at least 1m.
    /// Without it, nothing is ever deleted. Whichever worker has the lowest id does it, so give it
    /// to all
    #[arg(long, env = "PGSAGA_RETENTION", value_name = "DURATION", value_parser = retention)]
    retention: Option<Duration>,
    /// An address or a network that plain URLs may reach beside public addresses, such as
    /// 10.0.0.0/8; repeatable. Loopback, private, link-local, metadata and reserved addresses are
    /// denied otherwise
    #[arg(long, env = "PGSAGA_ALLOW_ADDRESSES", value_delimiter = ',', value_name = "CIDR", value_parser = network)]
    allow_address: Vec<IpNet>,
    /// Call named participants only: a step with a plain URL waits for a worker that may call it
    #[arg(long, env = "PGSAGA_DENY_PLAIN_URLS", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    deny_plain_urls: bool,
    /// Certificates in PEM of authorities that participants' certificates may be signed by, beside
    /// the system's own
    #[arg(long, env = "PGSAGA_PARTICIPANT_CA", value_name = "FILE")]
    participant_ca: Option<PathBuf>,
}

/// An address alone is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "allowed: an address or a network, such as 127.0.0.1, 10.0.0.0/8 or fd00::/8".to_owned())
}

/// How long finished sagas are kept.
fn retention(text: &str) -> Result<Duration, String> {
    let age = filter::duration(text)?;
    if age < Duration::from_secs(60) { Err("allowed: 1m or more".to_owned()) } else { Ok(age) }
}

/// Whose calls are limited, as the steps' URLs write it, and to how many.
fn participant_limit(text: &str) -> Result<(String, usize), String> {
    let allowed = || {
        "allowed: HOST=LIMIT or HOST:PORT=LIMIT as the URLs write it, or participant:NAME=LIMIT, with a limit from 1 to 65,536"
            .to_owned()
    };
    let (name, limit) = text.rsplit_once('=').ok_or_else(allowed)?;
    let limit: usize = limit.parse().map_err(|_| allowed())?;
    if name.is_empty() || name.contains('/') || !(1..=65_536).contains(&limit) {
        return Err(allowed());
    }
    Ok((name.to_owned(), limit))
}

impl Work {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        small_pages();
        let recorder = metrics::install().map_err(|error| Error::Usage(error.to_string()))?;
        tokio::spawn(metrics::upkeep(recorder.clone()));
        let databases = self.databases()?;
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|source| Error::Listen { address: self.listen, source })?;
        let address = listener.local_addr().map_or(self.listen, |address| address);
        tracing::info!(%address, pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "listening");
        let traces = Traces::from_env()?;
        let several = databases.len() > 1;
        let mut workers = Vec::with_capacity(databases.len());
        let mut running = JoinSet::new();
        for database in databases {
            let name = database.name.clone();
            let span =
                if several { tracing::info_span!("serving", database = name) } else { tracing::Span::none() };
            let worker = span.in_scope(|| self.worker(database, traces.clone(), stop.clone()))?;
            workers.push(worker.status());
            let served = async move { (name, worker.run().await) };
            running.spawn(served.instrument(span));
        }
        let served = CancellationToken::new();
        let systemd = Systemd::from_env()
            .map_err(Error::io("start a thread that tells systemd"))?
            .map(|systemd| tokio::spawn(systemd.run(workers.clone(), stop.clone(), served.clone())));
        let server = tokio::spawn(http_listener::run(listener, look(workers), recorder, served.clone()));
        let mut result = Ok(());
        while let Some(ended) = running.join_next().await {
            let error = match ended {
                Ok((_, Ok(()))) => continue,
                Ok((database, Err(error))) if several => {
                    tracing::error!(database, %error, "a database cannot be served: the others are drained");
                    error.into()
                }
                Ok((_, Err(error))) => error.into(),
                Err(error) => Error::loop_ended(&error),
            };
            // One process is one unit: whoever supervises it starts all of it again.
            stop.cancel();
            if result.is_ok() {
                result = Err(error);
            }
        }
        served.cancel();
        server.abort();
        if let Some(systemd) = systemd {
            let _ = systemd.await;
        }
        if let Some(traces) = traces {
            traces.close().await;
        }
        result
    }

    /// What is served, each with its own limits.
    fn databases(&self) -> Result<Vec<Served>, Error> {
        let timeout = Duration::from_secs(self.database_timeout_seconds);
        let urls: Vec<&String> = self.database_url.iter().filter(|url| !url.is_empty()).collect();
        let direct: Vec<&String> = self.direct_database_url.iter().filter(|url| !url.is_empty()).collect();
        let count = urls.len();
        if count == 0 {
            return Err(Error::Usage(
                "--database-url (DATABASE_URL): found nothing; allowed: postgres://user@host:5432/name"
                    .to_owned(),
            ));
        }
        if ![0, count].contains(&direct.len()) {
            return Err(Error::Usage(format!(
                "--direct-database-url has {} URLs for {count} databases; allowed: none, or one each",
                direct.len()
            )));
        }
        let mut databases: Vec<Served> = Vec::with_capacity(count);
        for (nth, url) in urls.into_iter().enumerate() {
            let hosts = Hosts::read(url, self.pooled, timeout)?;
            let name = hosts.database();
            if databases.iter().any(|other| other.name == name) {
                return Err(Error::Usage(format!("--database-url names {name} twice")));
            }
            let listen_on = match (direct.get(nth), self.pooled) {
                (Some(direct), _) => Some(Hosts::read(direct, false, timeout)?),
                (None, false) => Some(hosts.clone()),
                (None, true) => None,
            };
            if hosts.is_unverified() || listen_on.as_ref().is_some_and(Hosts::is_unverified) {
                tracing::warn!(
                    database = name,
                    "the link to Postgres is not verified: use sslmode=verify-full in the database URL"
                );
            }
            databases.push(Served {
                url: url.clone(),
                series: if count > 1 { Series::of(&name) } else { Series::default() },
                name,
                listen_on,
                connections_max: of_each("--database-connections", &self.database_connections, nth, count)?,
                calls_max: of_each("--concurrency", &self.concurrency, nth, count)? as usize,
            });
        }
        Ok(databases)
    }

    /// A worker of one database.
    fn worker(
        &self,
        database: Served,
        traces: Option<Traces>,
        stop: CancellationToken,
    ) -> Result<Worker, Error> {
        let Served { url, series, listen_on, connections_max, calls_max, .. } = database;
        let (executors, participant_limits) = self.executors(calls_max, traces)?;
        let options = Options {
            database: db::Options {
                url,
                pooled: self.pooled,
                connections_max,
                timeout: Duration::from_secs(self.database_timeout_seconds),
                heartbeat_timeout: Duration::from_secs(self.lease_seconds) / 4,
                series,
            },
            listen_on,
            calls_max,
            lease: Duration::from_secs(self.lease_seconds),
            grace: Duration::from_secs(self.grace_seconds),
            retention: self.retention,
            queues: self.queue.clone(),
            participant_limits: participant_limits.into_iter().collect(),
        };
        Ok(Worker::new(options, executors, stop)?)
    }

    /// What makes the calls, and how many calls single participants may take at once.
    fn executors(
        &self,
        calls_max: usize,
        traces: Option<Traces>,
    ) -> Result<(Executors, Vec<(String, usize)>), Error> {
        let authorities = match &self.participant_ca {
            Some(file) => client::certificates(file)?,
            None => Vec::new(),
        };
        let variable = |name: &str| std::env::var(name).ok();
        let named = match &self.participants {
            Some(file) => Registry::read(file, variable, &authorities, calls_max)?,
            None => Registry::default(),
        };
        let mut limits = self.participant_limit.clone();
        for (name, limit) in named.limits() {
            if limits.iter().any(|(limited, _)| *limited == name) {
                return Err(Error::Usage(format!(
                    "{name}: found a limit in the file of --participants and one by --participant-limit; allowed: one of them"
                )));
            }
            limits.push((name, limit));
        }
        tracing::info!(
            participants = named.len(),
            plain_urls = if self.deny_plain_urls { "denied" } else { "to public addresses" },
            allowed = ?self.allow_address,
            "what may be called"
        );
        let http = HttpExecutor::new(http::Options {
            connections_idle_max: calls_max,
            answer_bytes_max: self.answer_bytes_max as usize,
            addresses: Addresses::new(self.allow_address.clone()),
            deny_plain_urls: self.deny_plain_urls,
            authorities,
        })?;
        Ok((Executors { http, named, traces }, limits))
    }
}

/// Looks at the workers for `/metrics` and `/readyz`.
fn look(workers: Vec<WorkerStatus>) -> http_listener::Look {
    Arc::new(move || {
        workers.iter().for_each(WorkerStatus::observe);
        not_ready(&workers)
    })
}

/// A database, and how much of it this process may do at once.
struct Served {
    url: String,
    /// Without user and password.
    name: String,
    series: Series,
    listen_on: Option<Hosts>,
    connections_max: u32,
    calls_max: usize,
}

/// One value for all databases, or one each.
fn of_each(flag: &str, values: &[u32], nth: usize, count: usize) -> Result<u32, Error> {
    match values {
        [value] => Ok(*value),
        values if values.len() == count => Ok(values[nth]),
        values => Err(Error::Usage(format!(
            "{flag} has {} numbers for {count} databases; allowed: one for all, or one each",
            values.len()
        ))),
    }
}

/// A worker frees as much as it allocates, all over its heap: huge pages keep what is free of them,
/// and made it half as large again without being faster (docs/performance.md). Children inherit it,
/// so only a worker, which has none, asks for it.
fn small_pages() {
    // Where the kernel does not know it, there are no huge pages to be spared.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
