//! `pgsaga work`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Database, filter};
use crate::call::Caller;
use crate::db::{self, Db, Hosts};
use crate::error::Error;
use crate::metrics::{self, Metrics};
use crate::participants::Participants;
use crate::queues::{Queues, Served};
use crate::worker::{Limits, Worker};
use crate::{run, serve};

/// Runs a worker until SIGTERM or SIGINT, then drains: running calls may end, the rest is handed back.
#[derive(Debug, Clone, Args)]
pub struct Work {
    #[command(flatten)]
    database: Database,
    /// DATABASE_URL leads through a pooler in transaction mode, such as PgBouncer: no prepared statements, no session
    /// settings, and no LISTEN unless --direct-database-url is given
    #[arg(long, env = "PGSAGA_POOLED", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pooled: bool,
    /// The same database without a pooler, for LISTEN; it may name several hosts as well
    #[arg(long, env = "PGSAGA_DIRECT_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    direct_database_url: Option<String>,
    /// Connections for claims and settles, 2 to 100; heartbeats, housekeeping and LISTEN have four of their own
    #[arg(long, env = "PGSAGA_DATABASE_CONNECTIONS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100))]
    database_connections: u32,
    /// The longest that a statement may take, 1 to 600 seconds
    #[arg(long, env = "PGSAGA_DATABASE_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    database_timeout_seconds: u64,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "PGSAGA_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Calls running at once, 1 to 65,536
    #[arg(long, env = "PGSAGA_CONCURRENCY", default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: u32,
    /// A worker that was silent for so long is dead, and its tasks are rescued; 2 to 3,600 seconds
    #[arg(long, env = "PGSAGA_LEASE_SECONDS", default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_seconds: u64,
    /// How long running calls may take to end after the first signal, 0 to 3,600 seconds
    #[arg(long, env = "PGSAGA_GRACE_SECONDS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    grace_seconds: u64,
    /// A queue to serve, and maybe how many calls of it run at once; repeatable. Without it, all queues are served
    #[arg(long, env = "PGSAGA_QUEUES", value_delimiter = ',', value_name = "NAME[=LIMIT]")]
    queue: Vec<Served>,
    /// How many calls of one participant run at once, such as pay.example:8080=16; repeatable
    #[arg(long, env = "PGSAGA_PARTICIPANT_LIMITS", value_delimiter = ',', value_name = "HOST[:PORT]=LIMIT", value_parser = participant_limit)]
    participant_limit: Vec<(String, usize)>,
    /// Bytes of an answer that are read and kept at most, 1,024 to 1,048,576
    #[arg(long, env = "PGSAGA_ANSWER_BYTES_MAX", default_value_t = 65_536, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    answer_bytes_max: u32,
    /// Delete sagas, and their history, this long after they finished, such as 90d; at least 1m. Without it, nothing is ever
    /// deleted. Whichever worker has the lowest id does it, so give it to all
    #[arg(long, env = "PGSAGA_RETENTION", value_name = "DURATION", value_parser = retention)]
    retention: Option<Duration>,
    /// A network that may be called, such as 10.0.0.0/8; repeatable. In this version everything may be called; a later
    /// one denies internal addresses unless they are named here
    #[arg(long, env = "PGSAGA_ALLOW_ADDRESSES", value_delimiter = ',', value_name = "CIDR", value_parser = network)]
    allow_address: Vec<IpNet>,
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
        "allowed: HOST=LIMIT or HOST:PORT=LIMIT as the URLs write it, with a limit from 1 to 65,536"
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
    ///
    /// # Errors
    /// See [`run::run`]; also where the port or the database URL cannot be used.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        small_pages();
        let recorder = metrics::install().map_err(|error| Error::Usage(error.to_string()))?;
        tokio::spawn(metrics::upkeep(recorder.clone()));
        let timeout = Duration::from_secs(self.database_timeout_seconds);
        let url = self.database.database_url;
        let hosts = Hosts::read(&url, self.pooled, timeout)?;
        let listen_on = match (&self.direct_database_url, self.pooled) {
            (Some(direct), _) => Some(Hosts::read(direct, false, timeout)?),
            (None, false) => Some(hosts.clone()),
            (None, true) => None,
        };
        let db = Db::new(db::Options {
            url,
            pooled: self.pooled,
            connections_max: self.database_connections,
            timeout,
            heartbeat_timeout: Duration::from_secs(self.lease_seconds) / 4,
        })?;
        let calls_max = self.concurrency as usize;
        let limits = Limits {
            calls_max,
            held_max: calls_max * 2,
            lease: Duration::from_secs(self.lease_seconds),
            grace: Duration::from_secs(self.grace_seconds),
            retention: self.retention,
        };
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|source| Error::Listen { address: self.listen, source })?;
        let address = listener.local_addr().map_or(self.listen, |address| address);
        tracing::info!(%address, pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "listening");
        if hosts.is_unverified() || listen_on.as_ref().is_some_and(Hosts::is_unverified) {
            tracing::warn!(
                "the link to Postgres is not verified: use sslmode=verify-full in the database URL"
            );
        }
        if !self.allow_address.is_empty() {
            tracing::info!(networks = ?self.allow_address, "addresses named by --allow-address");
        }
        let caller = Caller::new(calls_max, self.answer_bytes_max as usize)?;
        let participants = Participants::new(calls_max, self.participant_limit.into_iter().collect());
        let served = (participants, Queues::new(&self.queue));
        let (worker, receivers) = Worker::new(db, caller, Metrics::new(), limits, served, stop);
        let served = CancellationToken::new();
        let server = tokio::spawn(serve::run(listener, worker.clone(), recorder, served.clone()));
        let result = run::run(worker.clone(), receivers, listen_on).await;
        served.cancel();
        server.abort();
        worker.db.close().await;
        result
    }
}

/// A worker frees as much as it allocates, all over its heap: huge pages keep what is free of them, and made it half as large
/// again without being faster (docs/performance.md). Children inherit it, so only a worker, which has none, asks for it.
fn small_pages() {
    // Where the kernel does not know it, there are no huge pages to be spared.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
