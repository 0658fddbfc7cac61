//! What goes wrong. A new kind is a variant, its place in [`Fault::ALL`], and an arm of
//! [`Fault::strike`].

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pgsaga_tests::bank::Banks;
use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{Participant, eventually};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::fleet::Fleet;
use super::saga::SIDE_QUEUE;
use super::servers::{Servers, Whose};

/// All that can be hit.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    /// Does the work whenever it is asked.
    pub(crate) open: Participant,
    /// Behind a barrier.
    pub(crate) closed: Participant,
    pub(crate) banks: Banks,
    pub(crate) servers: Servers,
}

/// A kind of fault. Clocks that are off and participants that misbehave are there all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL of a worker.
    Kill,
    /// SIGSTOP of a worker past its lease, then SIGCONT.
    Freeze,
    /// `pg_terminate_backend` of some connections: workers', banks', producers'.
    Backends,
    /// Postgres crashes and recovers.
    Crash,
    /// Postgres is away for longer than a lease.
    Outage,
    /// Somebody else uses up all connections.
    Connections,
    /// All workers are replaced, one after the other.
    Rolling,
    /// A queue is paused for a while.
    Pause,
    /// A participant accepts no connections.
    Away,
    /// The primary is lost for ever, and its standby promoted. Once in a run.
    Promote,
}

impl Fault {
    pub(crate) const ALL: [Fault; 10] = [
        Fault::Kill,
        Fault::Freeze,
        Fault::Backends,
        Fault::Crash,
        Fault::Outage,
        Fault::Connections,
        Fault::Rolling,
        Fault::Pause,
        Fault::Away,
        Fault::Promote,
    ];

    /// Lets it happen. What lasts beyond it ends in [`World::tick`].
    pub(crate) async fn strike(self, world: &mut World, random: &mut StdRng) {
        match self {
            Fault::Kill => world.fleet.kill(random),
            Fault::Freeze => world.fleet.freeze(random),
            Fault::Backends => {
                let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() order by random() limit $1";
                let count = random.random_range(1..8_i64);
                for pool in [world.servers.pool(), world.banks.pool()] {
                    // Postgres may be away, or our own connection gone.
                    let _ = sqlx::query(terminate).bind(count).execute(pool).await;
                }
            }
            Fault::Crash => {
                for server in world.servers.of(Whose::any(random)) {
                    tokio::task::block_in_place(|| server.restart_immediate()).unwrap();
                }
            }
            Fault::Outage => {
                let whose = Whose::any(random);
                for server in world.servers.of(whose) {
                    tokio::task::block_in_place(|| server.kill()).unwrap();
                }
                world.pass(Duration::from_millis(random.random_range(2_500..4_000))).await;
                for server in world.servers.of(whose) {
                    tokio::task::block_in_place(|| server.start_again()).unwrap();
                }
            }
            Fault::Connections => {
                let time = Duration::from_millis(random.random_range(1_000..3_000));
                let urls = [world.servers.url(), world.servers.banks_url()];
                join_all(urls.map(|url| use_up_connections(url, time))).await;
            }
            Fault::Rolling => world.fleet.roll(),
            Fault::Pause => {
                let _ = sqlx::query("select pgsaga.pause($1)")
                    .bind(SIDE_QUEUE)
                    .execute(world.servers.pool())
                    .await;
                world.pass(Duration::from_millis(random.random_range(500..2_000))).await;
                world.resume().await;
            }
            Fault::Away => {
                let participant = if random.random() { &mut world.open } else { &mut world.closed };
                participant.refuse_connections().await;
                tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await; // how long it is away
                participant.accept_again().await;
            }
            Fault::Promote => {
                world.servers.lose_primary(random).await;
                world.pass(Duration::from_millis(random.random_range(300..2_000))).await;
                world.servers.promote().await;
            }
        }
    }
}

/// Every kind but [`Fault::Promote`] has its turn before one comes again.
#[derive(Default)]
pub(crate) struct Deck(Vec<Fault>);

impl Deck {
    /// The next fault.
    pub(crate) fn deal(&mut self, random: &mut StdRng) -> Fault {
        if self.0.is_empty() {
            self.0 = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Promote).collect();
            self.0.shuffle(random);
        }
        self.0.pop().unwrap()
    }
}

impl World {
    /// What has become due meanwhile.
    pub(crate) async fn tick(&mut self) {
        self.fleet.tick().await;
        self.servers.tick();
        self.banks.assert_running();
    }

    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tick().await;
            tokio::time::sleep(Duration::from_millis(50)).await; // how long a fault lasts
        }
    }

    /// The paused queue goes on.
    async fn resume(&self) {
        eventually(PATIENCE, "Postgres lets the queue go on", async || {
            let resumed =
                sqlx::query("select pgsaga.resume($1)").bind(SIDE_QUEUE).execute(self.servers.pool()).await;
            match resumed {
                Err(error)
                    if error.as_database_error().and_then(|error| error.code()).as_deref()
                        == Some("P0002") =>
                {
                    Some(()) // nothing was in it yet
                }
                resumed => resumed.ok().map(drop),
            }
        })
        .await;
    }

    /// No fault lasts any longer.
    pub(crate) async fn calm(&mut self) {
        self.fleet.thaw();
        self.servers.calm();
        eventually(PATIENCE, "Postgres answers", async || {
            sqlx::query("select 1").execute(self.servers.pool()).await.ok()
        })
        .await;
        self.resume().await;
    }
}

/// Takes every connection that there is, and those of the workers as they are cut.
async fn use_up_connections(url: &str, time: Duration) {
    let until = Instant::now() + time;
    let mut held: Vec<PgConnection> = Vec::new();
    let mut cut = false;
    while Instant::now() < until {
        match PgConnection::connect(url).await {
            Ok(connection) => held.push(connection),
            Err(_) if cut || held.is_empty() => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => {
                cut = true;
                let terminate = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgsaga'";
                let _ = sqlx::query(terminate).execute(&mut held[0]).await;
            }
        }
    }
}
