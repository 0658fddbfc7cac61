//! Postgres: a cluster per test process, a database per test.

use std::env;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use pgsaga_test::embedded::{Options, Server};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};
use tokio::runtime;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::binary;

const TEMPLATE: &str = "pgsaga_template";
const POOL_CONNECTIONS_MAX: u32 = 4;

/// A Postgres cluster with an already migrated template.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    /// Copying through the WAL takes 36 ms instead of 2 s, from Postgres 15 on.
    strategy: &'static str,
    databases: AtomicU32,
    keeps: bool,
}

impl Cluster {
    /// The cluster that all tests of this process share: fsync off, 300 connections. Do not stop
    /// it.
    ///
    /// It is never dropped: the kernel ends it with this process, and the next server to start
    /// removes its data.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::own(false, false)).await
    }

    /// A cluster for one test, of the Postgres in `PGSAGA_PG_BIN` or the one that is found, which
    /// may crash and restart it. With `tcp` it listens on 127.0.0.1 as well.
    ///
    /// # Panics
    /// When Postgres does not start or `pgsaga migrate` fails.
    pub async fn own(fsync: bool, tcp: bool) -> Self {
        Self::with_connections(fsync, tcp, 300).await
    }

    /// The same with so many connections at most.
    ///
    /// # Panics
    /// As for [`Self::own`].
    pub async fn with_connections(fsync: bool, tcp: bool, connections_max: u32) -> Self {
        let settings = vec![("max_connections".into(), connections_max.to_string())];
        let binaries = env::var_os("PGSAGA_PG_BIN").map(PathBuf::from);
        let options = Options { binaries, fsync, settings, tcp_port: tcp.then(free_port) };
        spawn_blocking(move || Server::start(&options).map(Self::new))
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("failed to {error}"))
            .with_template()
            .await
    }

    fn new(server: Server) -> Self {
        Self { server, strategy: "", databases: AtomicU32::new(0), keeps: false }
    }

    async fn with_template(mut self) -> Self {
        let mut admin = admin(&self.server.url("postgres")).await.unwrap();
        let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if version >= 150_000 {
            self.strategy = "strategy wal_log";
        }
        execute(&mut admin, format!("create database {TEMPLATE}")).await.unwrap();
        admin.close().await.unwrap();
        let url = self.server.url(TEMPLATE);
        spawn_blocking(move || migrate(&url)).await.unwrap();
        self
    }

    /// Databases that are no longer used go with the cluster: to drop one costs a checkpoint, and
    /// with fsync on that holds up every other test.
    #[must_use]
    pub fn keeping_databases(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// The server, to crash and restart it.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A new, migrated, empty database.
    ///
    /// # Panics
    /// When the server does not run.
    pub async fn database(&self) -> Database {
        self.create(&format!("template {TEMPLATE} {}", self.strategy)).await
    }

    /// A new database without the schema, with these options of `create database`.
    ///
    /// # Panics
    /// When the server does not run, or does not take the options.
    pub async fn empty_database(&self, options: &str) -> Database {
        self.create(&format!("template template0 {options}")).await
    }

    async fn create(&self, options: &str) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let admin_url = self.server.url("postgres");
        let mut admin = admin(&admin_url).await.unwrap();
        execute(&mut admin, format!("create database {name} {options}")).await.unwrap();
        admin.close().await.unwrap();
        let url = self.server.url(&name);
        let pool = PgPoolOptions::new().max_connections(POOL_CONNECTIONS_MAX).connect_lazy(&url).unwrap();
        let admin_url = (!self.keeps).then_some(admin_url);
        Database { tcp_url: self.server.tcp_url(&name), name, url, admin_url, pool }
    }
}

/// A database of its own for one test; dropping it drops the database, whoever is still connected.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    tcp_url: Option<String>,
    /// For who drops it.
    admin_url: Option<String>,
    pool: PgPool,
}

impl Database {
    /// A new, migrated, empty database in the shared cluster.
    pub async fn new() -> Self {
        Cluster::shared().await.database().await
    }

    /// From now on this is the same database on another server: the old one is gone, and this one
    /// has its copy.
    pub fn move_to(&mut self, server: &Server) {
        self.url = server.url(&self.name);
        self.tcp_url = server.tcp_url(&self.name);
        self.admin_url = Some(server.url("postgres"));
        self.pool =
            PgPoolOptions::new().max_connections(POOL_CONNECTIONS_MAX).connect_lazy(&self.url).unwrap();
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, over the Unix socket.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL over TCP, in a cluster that has it: for a proxy between a worker and Postgres.
    pub fn tcp_url(&self) -> Option<&str> {
        self.tcp_url.as_deref()
    }

    /// The test's own connections, as a superuser.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (Some(url), name) = (self.admin_url.take(), self.name.clone()) else { return };
        // A thread, for the test's own runtime cannot wait here. When the server is gone, so is the
        // database.
        let dropped = std::thread::spawn(move || {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                execute(&mut admin(&url).await?, format!("drop database if exists {name} with (force)")).await
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("failed to drop database {}: {error}", self.name);
        }
    }
}

async fn admin(url: &str) -> sqlx::Result<PgConnection> {
    PgConnection::connect(url).await
}

/// For statements that take no parameters; their text is made of constants and counters.
async fn execute(connection: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

fn migrate(url: &str) {
    let output = binary::command().args(["migrate", "--database-url", url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgsaga migrate ended with {} and said:\n{said}", output.status);
}

/// Free just now; Postgres cannot be asked to choose one itself.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
