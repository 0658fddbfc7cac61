//! A primary and its standby: streaming replication on this machine.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgsaga_test::embedded::{Options, Server};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::task::block_in_place;

use crate::cluster::free_port;
use crate::{Cluster, Database, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a commit waits for the standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// What is acknowledged is on the standby's disk, too.
    Synchronous,
    /// A promoted standby may lack the last of what was acknowledged.
    Asynchronous,
}

/// Two servers with fsync on and a TCP port each. Dropping them stops both. A test with one runs on
/// several threads.
#[derive(Debug)]
pub struct Pair {
    /// The copy, until it is promoted.
    pub standby: Server,
    /// Where databases are made.
    pub primary: Cluster,
}

impl Pair {
    /// Starts both, and waits until the standby follows.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn new(replication: Replication) -> Pair {
        Self::with_connections(replication, 300).await
    }

    /// The same with so many connections at most, each.
    ///
    /// # Panics
    /// As for [`Self::new`].
    pub async fn with_connections(replication: Replication, connections_max: u32) -> Pair {
        let primary = Cluster::with_connections(true, true, connections_max).await;
        let settings = vec![
            ("max_connections".into(), connections_max.to_string()),
            // Back soon after the primary crashed: until then no synchronous commit ends.
            ("wal_retrieve_retry_interval".into(), "100ms".into()),
        ];
        let options = Options { settings, tcp_port: Some(free_port()), ..Options::default() };
        let standby = block_in_place(|| Server::standby_of(primary.server(), &options))
            .unwrap_or_else(|error| panic!("failed to {error}"));
        let pair = Pair { standby, primary };
        // A crash and its checkpoint must not remove what the standby has yet to receive.
        execute(pair.primary.server(), "alter system set wal_keep_size = '256MB'").await;
        if replication == Replication::Synchronous {
            // Not before there is one: no commit would end.
            execute(pair.primary.server(), "alter system set synchronous_standby_names = '*'").await;
        }
        execute(pair.primary.server(), "select pg_reload_conf()").await;
        pair.follows(replication).await;
        pair
    }

    /// Waits until the standby receives what the primary writes, is waited for as was asked, and
    /// has all that was acknowledged before: after a crash Postgres 15 acknowledges commits for a
    /// moment as if there were no standby.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn follows(&self, replication: Replication) {
        let state = if replication == Replication::Synchronous { "sync" } else { "async" };
        let follows = async |flushed: &str| -> Option<String> {
            let mut session = PgConnection::connect(&self.primary.server().url("postgres")).await.ok()?;
            let follows = "select pg_current_wal_flush_lsn()::text from pg_stat_replication
                where state = 'streaming' and sync_state = $1 and flush_lsn >= $2::pg_lsn";
            sqlx::query_scalar(follows).bind(state).bind(flushed).fetch_optional(&mut session).await.ok()?
        };
        let acknowledged = eventually(PATIENCE, "the standby follows", async || follows("0/0").await).await;
        eventually(PATIENCE, "the standby has all", async || follows(&acknowledged).await).await;
    }

    /// The URL of a database that names both hosts, the primary first.
    pub fn url(&self, db: &Database) -> String {
        let (first, second) = self.ports();
        format!(
            "postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/{}?target_session_attrs=read-write&sslmode=disable",
            db.name()
        )
    }

    /// The same with the standby first, as parameters, and without a word about what is wanted.
    pub fn url_backwards(&self, db: &Database) -> String {
        let (first, second) = self.ports();
        format!(
            "postgres:///{}?user=postgres&host=127.0.0.1,127.0.0.1&port={second},{first}&sslmode=disable",
            db.name()
        )
    }

    /// The TCP ports of the primary and the standby.
    ///
    /// # Panics
    /// Never: both have one.
    pub fn ports(&self) -> (u16, u16) {
        let port = |server: &Server| {
            let url = server.tcp_url("x").unwrap();
            url.split([':', '/', '@']).find_map(|part| part.parse().ok()).unwrap()
        };
        (port(self.primary.server()), port(&self.standby))
    }

    /// Waits until the standby has replayed all that is committed by now.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn caught_up(&self) {
        let mut primary = PgConnection::connect(&self.primary.server().url("postgres")).await.unwrap();
        let now: String = sqlx::query_scalar("select pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut primary)
            .await
            .unwrap();
        let mut standby = PgConnection::connect(&self.standby.url("postgres")).await.unwrap();
        eventually(PATIENCE, "the standby catches up", async || {
            let there = "select pg_last_wal_replay_lsn() >= $1::pg_lsn";
            let there: bool = sqlx::query_scalar(there).bind(&now).fetch_one(&mut standby).await.unwrap();
            there.then_some(())
        })
        .await;
    }

    /// From now on the standby receives nothing more, though it runs on: what is committed after
    /// this is lost when it is promoted.
    ///
    /// # Panics
    /// When it goes on receiving.
    pub async fn cut_replication(&self) {
        execute(&self.standby, "alter system set primary_conninfo = ''").await;
        execute(&self.standby, "select pg_reload_conf()").await;
        let mut standby = PgConnection::connect(&self.standby.url("postgres")).await.unwrap();
        eventually(PATIENCE, "the standby stops receiving", async || {
            let count: i64 = sqlx::query_scalar("select count(*) from pg_stat_wal_receiver")
                .fetch_one(&mut standby)
                .await
                .unwrap();
            (count == 0).then_some(())
        })
        .await;
    }

    /// Kills the primary's postmaster with SIGKILL.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill_primary(&self) {
        block_in_place(|| self.primary.server().kill()).unwrap();
    }

    /// Stops every process of the primary, as a machine that hangs does: connections stay open, and
    /// nobody answers. Dropping what this returns kills them.
    ///
    /// # Panics
    /// When one cannot be stopped.
    pub fn freeze_primary(&self) -> Frozen {
        let postmaster = Pid::from_raw(self.primary.server().pid().cast_signed());
        kill(postmaster, Signal::SIGSTOP).unwrap();
        // After it, so that it makes no more of them. A backend may end by itself meanwhile.
        let children = children_of(postmaster);
        for child in &children {
            let _ = kill(*child, Signal::SIGSTOP);
        }
        Frozen { postmaster, children }
    }

    /// Promotes the standby, and returns once it takes writes.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub async fn promote(&self) {
        execute(&self.standby, "select pg_promote()").await;
    }
}

async fn execute(server: &Server, statement: &'static str) {
    let mut session = PgConnection::connect(&server.url("postgres")).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session).await.unwrap();
}

/// A server whose processes are stopped.
#[derive(Debug)]
pub struct Frozen {
    postmaster: Pid,
    children: Vec<Pid>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Frozen, they could not end: each pid is still theirs.
        for child in &self.children {
            let _ = kill(*child, Signal::SIGKILL);
        }
        let _ = kill(self.postmaster, Signal::SIGKILL);
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}
