//! The Postgres servers of a run: a primary and its synchronous standby for the sagas, and one for
//! the banks, who do not follow a promotion.

use std::time::{Duration, Instant};

use pgsaga_test::embedded::Server;
use pgsaga_tests::{Cluster, Database, Frozen, Pair, Replication};
use rand::RngExt as _;
use rand::rngs::StdRng;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// Few, so that somebody else can use them all up in a moment.
const CONNECTIONS_MAX: u32 = 100;

/// The servers; databases before what they are in.
pub(crate) struct Servers {
    /// Of all clients of the sagas' database.
    pool: PgPool,
    sagas: Database,
    banks: Database,
    loss: Option<Loss>,
    pair: Pair,
    banks_cluster: Cluster,
}

/// How the first primary was lost.
struct Loss {
    at: Instant,
    /// What it left open, and when that ends.
    hanging: Option<(Frozen, Instant)>,
    how: &'static str,
    /// From then until the standby took writes.
    promoted_after: Option<Duration>,
}

/// Whose servers a fault hits.
#[derive(Clone, Copy)]
pub(crate) enum Whose {
    Sagas,
    Banks,
    Everybodys,
}

impl Whose {
    pub(crate) fn any(random: &mut StdRng) -> Whose {
        [Whose::Sagas, Whose::Banks, Whose::Everybodys][random.random_range(0..3)]
    }
}

impl Servers {
    /// Starts them, and makes the databases.
    pub(crate) async fn start(clients: u32) -> Servers {
        let pair = Pair::with_connections(Replication::Synchronous, CONNECTIONS_MAX).await;
        let banks_cluster = Cluster::with_connections(true, false, CONNECTIONS_MAX).await;
        let (sagas, banks) = (pair.primary.database().await, banks_cluster.database().await);
        // Never waits long for a Postgres that is away: that is what is tested.
        let pool = PgPoolOptions::new()
            .max_connections(clients)
            .acquire_timeout(Duration::from_secs(2))
            .connect_lazy(sagas.url())
            .unwrap();
        Servers { pool, sagas, banks, loss: None, pair, banks_cluster }
    }

    /// Connections to the sagas' database, wherever that is.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The banks' database.
    pub(crate) fn banks(&self) -> &Database {
        &self.banks
    }

    /// What workers are told: both hosts.
    pub(crate) fn both_hosts(&self) -> String {
        self.pair.url(&self.sagas)
    }

    /// The sagas' database where it is now.
    pub(crate) fn url(&self) -> &str {
        self.sagas.url()
    }

    /// The banks' database.
    pub(crate) fn banks_url(&self) -> &str {
        self.banks.url()
    }

    /// What a fault hits; of the pair, the one that takes writes.
    pub(crate) fn of(&self, whose: Whose) -> Vec<&Server> {
        let primary = if self.loss.is_some() { &self.pair.standby } else { self.pair.primary.server() };
        match whose {
            Whose::Sagas => vec![primary],
            Whose::Banks => vec![self.banks_cluster.server()],
            Whose::Everybodys => vec![primary, self.banks_cluster.server()],
        }
    }

    /// The primary is killed, or hangs and is killed later; either way it acknowledges nothing
    /// more.
    pub(crate) async fn lose_primary(&mut self, random: &mut StdRng) {
        // What was acknowledged while nobody waited for the standby would be lost with the primary.
        self.pair.follows(Replication::Synchronous).await;
        let (hanging, how) = if random.random() {
            let until = Instant::now() + Duration::from_millis(random.random_range(4_000..8_000));
            (Some((self.pair.freeze_primary(), until)), "hung")
        } else {
            self.pair.kill_primary();
            (None, "was killed")
        };
        self.loss = Some(Loss { at: Instant::now(), hanging, how, promoted_after: None });
    }

    /// The standby takes its place, for everybody.
    pub(crate) async fn promote(&mut self) {
        self.pair.promote().await;
        self.sagas.move_to(&self.pair.standby);
        let options: PgConnectOptions = self.sagas.url().parse().unwrap();
        self.pool.set_connect_options(options);
        if let Some(loss) = &mut self.loss {
            loss.promoted_after = Some(loss.at.elapsed());
        }
    }

    /// What has become due: the end of a primary that hangs.
    pub(crate) fn tick(&mut self) {
        if let Some(loss) = &mut self.loss {
            loss.hanging.take_if(|(_, until)| *until <= Instant::now());
        }
    }

    /// Nothing hangs any more.
    pub(crate) fn calm(&mut self) {
        if let Some(loss) = &mut self.loss {
            loss.hanging = None;
        }
    }

    /// What became of the first primary.
    pub(crate) fn story(&self) -> String {
        match &self.loss {
            Some(Loss { how, promoted_after: Some(after), .. }) => {
                format!("the primary {how}, and {after:.1?} later its standby was promoted")
            }
            _ => "the primary is the first".to_owned(),
        }
    }
}
