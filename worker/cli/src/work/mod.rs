mod systemd;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::operate::filter;
use pgsaga_sql::schema;
use pgsaga_worker::flow::queues;
use pgsaga_worker::{Builder, Database, Worker};
use systemd::Systemd;

/// Runs a worker until SIGTERM or SIGINT, then drains: calls in flight may end, and tasks that were
/// not called are released.
#[derive(Debug, Clone, Args)]
pub(crate) struct Work {
    /// A Postgres database to serve, such as postgres://user:password@host:5432/name; repeatable,
    /// or separated by spaces in the variable. Several hosts of one database may be named as libpq
    /// allows, such as host1:5432,host2:5432: the worker uses the host that accepts writes
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
    /// Set if DATABASE_URL leads through a pooler in transaction mode, such as PgBouncer: the
    /// worker then uses no prepared statements and no session settings, and no LISTEN unless
    /// --direct-database-url is given
    #[arg(long, env = "PGSAGA_POOLED", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pooled: bool,
    /// Environment that this worker works for, such as production. The worker works in databases of
    /// that name only (`pgsaga migrate --environment`), so that it leaves a copy alone; without the
    /// flag, in databases without a name
    #[arg(long, env = "PGSAGA_ENVIRONMENT", value_name = "NAME", value_parser = schema::environment)]
    environment: Option<String>,
    /// The same database without a pooler, for LISTEN; may name several hosts as well. One for each
    /// --database-url, in their order
    #[arg(
        long,
        env = "PGSAGA_DIRECT_DATABASE_URL",
        hide_env_values = true,
        value_delimiter = ' ',
        value_name = "URL"
    )]
    direct_database_url: Vec<String>,
    /// Connections for claims and settles, 2 to 100; heartbeats, housekeeping and LISTEN use four
    /// more. One number for all databases, or one for each, in their order
    #[arg(long, env = "PGSAGA_DATABASE_CONNECTIONS", default_values_t = [Database::CONNECTIONS], value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100))]
    database_connections: Vec<u32>,
    /// Upper bound on the time of a statement, 1 to 600 seconds
    #[arg(long, env = "PGSAGA_DATABASE_TIMEOUT_SECONDS", default_value_t = Builder::DATABASE_TIMEOUT_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    database_timeout_seconds: u64,
    /// Address and port that serve /metrics, /healthz and /readyz
    #[arg(long, env = "PGSAGA_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS:PORT", value_parser = filter::address)]
    listen: SocketAddr,
    /// Upper bound on the concurrent calls, 1 to 65,536. One number for every database, or one for
    /// each, in their order
    #[arg(long, env = "PGSAGA_CONCURRENCY", default_values_t = [Database::CONCURRENCY], value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: Vec<u32>,
    /// A worker that was silent for this long is dead, and its tasks are rescued; 2 to 3,600
    /// seconds
    #[arg(long, env = "PGSAGA_LEASE_SECONDS", default_value_t = Builder::LEASE_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_seconds: u64,
    /// Time that calls in flight have to end after the first signal, 0 to 3,600 seconds
    #[arg(long, env = "PGSAGA_GRACE_SECONDS", default_value_t = Builder::GRACE_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    grace_seconds: u64,
    /// A queue to serve, optionally with an upper bound on its concurrent calls; repeatable. By
    /// default the worker serves all queues
    #[arg(long, env = "PGSAGA_QUEUES", value_delimiter = ',', value_name = "NAME[=LIMIT]")]
    queue: Vec<queues::Served>,
    /// A file with the URLs and secrets of the participants that steps call by name, such as
    /// participant:stock/reserve (docs/safety.md). Give all workers the same file
    #[arg(long, env = "PGSAGA_PARTICIPANTS", value_name = "FILE")]
    participants: Option<PathBuf>,
    /// Upper bound on the concurrent calls of one participant, such as pay.example:8080=16 or
    /// participant:stock=16; repeatable
    #[arg(long, env = "PGSAGA_PARTICIPANT_LIMITS", value_delimiter = ',', value_name = "HOST[:PORT]=LIMIT", value_parser = participant_limit)]
    participant_limit: Vec<(String, usize)>,
    /// Upper bound on the bytes of an answer that are read and kept, 1,024 to 1,048,576
    #[arg(long, env = "PGSAGA_ANSWER_BYTES_MAX", default_value_t = Builder::ANSWER_BYTES_MAX, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    answer_bytes_max: u32,
    // control: retention-asked-for
    /// Delete sagas and their history this long after they finished, such as 90d; at least 1m. By
    /// default nothing is ever deleted. The living worker with the lowest id deletes for all, so
    /// give the flag to all workers
    #[arg(long, env = "PGSAGA_RETENTION", value_name = "DURATION", value_parser = retention)]
    retention: Option<Duration>,
    /// An address or a network that plain URLs may reach in addition to public addresses, such as
    /// 10.0.0.0/8; repeatable. Other loopback, private, link-local, metadata and reserved addresses
    /// are denied
    #[arg(long, env = "PGSAGA_ALLOW_ADDRESSES", value_delimiter = ',', value_name = "CIDR", value_parser = filter::network)]
    allow_address: Vec<IpNet>,
    /// Call only named participants. A step with a plain URL waits for a worker that may call it
    #[arg(long, env = "PGSAGA_DENY_PLAIN_URLS", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    deny_plain_urls: bool,
    /// Time after which an idle connection to a participant is not used again, 1 to 3,600 seconds.
    /// It must be shorter than the participants' own: a participant that closes the connection as
    /// the next request arrives makes the outcome of that call unknown
    #[arg(long, env = "PGSAGA_CONNECTION_IDLE_SECONDS", default_value_t = Builder::CONNECTION_IDLE_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    connection_idle_seconds: u64,
    /// Time after which a connection to a participant gets no new calls, 1 to 86,400 seconds. After
    /// a change in DNS or in a load balancer, calls move within this time
    #[arg(long, env = "PGSAGA_CONNECTION_AGE_SECONDS", default_value_t = Builder::CONNECTION_AGE_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    connection_age_seconds: u64,
    /// A file with PEM certificates of authorities that may sign participants' certificates, in
    /// addition to the system's own
    #[arg(long, env = "PGSAGA_PARTICIPANT_CA", value_name = "FILE")]
    participant_ca: Option<PathBuf>,
}

/// An address is a network of one address.
/// The age at which finished sagas are deleted.
fn retention(text: &str) -> Result<Duration, String> {
    let age = filter::duration(text)?;
    if age < Duration::from_secs(60) { Err("allowed: 1m or more".to_owned()) } else { Ok(age) }
}

/// A participant as the steps' URLs write it, and the bound on its calls.
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
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        small_pages();
        let databases = self.databases()?;
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|source| Error::Listen { address: self.listen, source })?;
        let address = listener.local_addr().map_or(self.listen, |address| address);
        let worker = self.builder(databases)?.listen(listener).build()?;
        tracing::info!(%address, pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "listening");
        let ended = CancellationToken::new();
        let systemd = Systemd::from_env()
            .map_err(Error::io("start a thread that tells systemd"))?
            .map(|systemd| tokio::spawn(systemd.run(worker.status(), worker.stopping(), ended.clone())));
        let result = worker.run_until(stop.cancelled()).await;
        ended.cancel();
        if let Some(systemd) = systemd {
            let _ = systemd.await;
        }
        Ok(result?)
    }

    /// The databases to serve, each with its own limits.
    fn databases(&self) -> Result<Vec<Database>, Error> {
        let urls: Vec<&String> = self.database_url.iter().filter(|url| !url.is_empty()).collect();
        let direct: Vec<&String> = self.direct_database_url.iter().filter(|url| !url.is_empty()).collect();
        let count = urls.len();
        if ![0, count].contains(&direct.len()) {
            return Err(Error::Usage(format!(
                "--direct-database-url has {} URLs for {count} databases; allowed: none, or one each",
                direct.len()
            )));
        }
        let mut databases = Vec::with_capacity(count);
        for (nth, url) in urls.into_iter().enumerate() {
            let mut database = Database::new(url)
                .connections(of_each("--database-connections", &self.database_connections, nth, count)?)
                .concurrency(of_each("--concurrency", &self.concurrency, nth, count)?);
            if let Some(direct) = direct.get(nth) {
                database = database.direct_url(*direct);
            }
            databases.push(database);
        }
        Ok(databases)
    }

    fn builder(self, databases: Vec<Database>) -> Result<Builder, Error> {
        let mut databases = databases.into_iter();
        let first = databases.next().ok_or_else(|| {
            let why = "--database-url (DATABASE_URL): found nothing; allowed: postgres://user@host:5432/name";
            Error::Usage(why.to_owned())
        })?;
        let builder = databases.fold(Worker::builder(first), Builder::database);
        Ok(builder
            .pooled(self.pooled)
            .environment(self.environment)
            .database_timeout(Duration::from_secs(self.database_timeout_seconds))
            .lease(Duration::from_secs(self.lease_seconds))
            .grace(Duration::from_secs(self.grace_seconds))
            .retention(self.retention)
            .queues(self.queue)
            .participants_file(self.participants)
            .participant_limits(self.participant_limit)
            .participant_ca(self.participant_ca)
            .answer_bytes_max(self.answer_bytes_max as usize)
            .allow_addresses(self.allow_address)
            .deny_plain_urls(self.deny_plain_urls)
            .connection_idle(Duration::from_secs(self.connection_idle_seconds))
            .connection_age(Duration::from_secs(self.connection_age_seconds))
            .traced(true))
    }
}

/// One value for all databases, or one for each.
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

/// Asks the kernel for small pages. A worker allocates and frees memory all over its heap. Huge
/// pages keep freed memory, and made the process half as large again without making it faster
/// (docs/performance.md). Children inherit the setting, so only a worker, which has no children,
/// asks for it.
fn small_pages() {
    // A kernel that does not know the setting has no huge pages.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
