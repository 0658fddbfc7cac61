//! Single INSERTs of many clients, and the same INSERTs into a bare table: of each usual shape
//! without workers, and of one shape while other producers keep the workers busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgsaga_sql::query;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::Bench;
use super::super::limits::count_for;
use super::super::load::{Load, Plan};
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Rig, Workers};
use super::super::screen::Screen;
use super::super::stub::Stub;
use super::super::times::Times;
use super::usual::{self, Usual};
use crate::error::Error;

/// Numbers of clients around the number that has a bar.
const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 64, 128];
/// Clients that insert each usual shape.
const SHAPE_CLIENTS: usize = 8;
/// Lower bound on the throughput with more clients, as a part of the best throughput.
const CLIFF: f64 = 0.7;
/// Number of the first saga of the clients. Lower numbers belong to the producers that keep the
/// workers busy.
const OTHERS_FIRST: u64 = 1_000_000_000;

pub(crate) async fn measure(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let main = bench.producers.map_or(32, usize::from);
    let mut clients: Vec<usize> = CLIENTS.into_iter().chain([main]).collect();
    clients.sort_unstable();
    clients.dedup();
    let mut rates = Vec::new();
    for &clients in &clients {
        let mut rate = async |into| {
            let beside =
                async |database: &Database| beside_busy_workers(bench, database, screen, clients, into).await;
            rig.in_database(beside).await
        };
        rates.push((clients, rate(Table::Bare).await?, rate(Table::Sagas).await?));
    }
    let mut report = Report::new(bench.scenario);
    let (mut best, mut worst): (f64, f64) = (0.0, f64::MAX);
    for &(clients, bare, sagas) in &rates {
        best = best.max(sagas);
        worst = worst.min(sagas / best);
        if clients == main {
            let meaning = "INSERTs of sagas to the same into a bare table, both beside busy workers";
            report.bar("to_bare_table", sagas / bare, Bar::AtLeast(0.4), meaning);
        }
    }
    let meaning = "no cliff at any number of clients";
    report.bar("worst_to_best_of_fewer_clients", worst, Bar::AtLeast(CLIFF), meaning);
    report.line("clients", main as f64, "connections, each with one INSERT after the other");
    for (clients, bare, sagas) in rates {
        report.line(&format!("inserts_per_second_{clients}"), sagas, "sagas");
        report.line(&format!("bare_inserts_per_second_{clients}"), bare, "the same rows into a bare table");
    }
    each_shape(bench, rig, screen, &mut report).await?;
    Ok(report)
}

/// The INSERT of each usual shape, without workers.
async fn each_shape(bench: &Bench, rig: &Rig, screen: &mut Screen, report: &mut Report) -> Result<(), Error> {
    let mut worst = f64::MAX;
    for shape in usual::all() {
        let mut rate = async |into| {
            let alone = async |database: &Database| {
                inserts(bench, database, screen, &shape, SHAPE_CLIENTS, into).await
            };
            rig.in_database(alone).await
        };
        let to_bare = 1.0 / rate(Table::Bare).await? * rate(Table::Sagas).await?;
        worst = worst.min(to_bare);
        let meaning = "INSERTs of this shape to the same into a bare table, 8 clients, no worker";
        report.line(&format!("to_bare_table_{}", shape.name), to_bare, meaning);
    }
    report.bar("worst_shape_to_bare_table", worst, Bar::AtLeast(0.6), "the least of the usual shapes");
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Bare,
    Sagas,
}

impl Table {
    fn words(self) -> &'static str {
        match self {
            Table::Bare => "a bare table",
            Table::Sagas => "the table of sagas",
        }
    }
}

/// INSERTs beside a worker that other producers keep busy.
async fn beside_busy_workers(
    bench: &Bench,
    database: &Database,
    screen: &mut Screen,
    clients: usize,
    into: Table,
) -> Result<f64, Error> {
    let insert = async |workers: &mut Workers| {
        let busy = bench.plan(bench.shape(2), 1);
        let stub = Arc::new(Stub::start(Times::new(1)).await?);
        let mut load = Load::start(&database.url, Plan { producers: 1, ..busy }, stub).await?;
        // One of its own: the busy producers count the sagas that end at theirs.
        let clients_stub = Stub::start(Times::new(1)).await?;
        let shape = Usual::new("the_bench_s", &bench.shape(2).steps_json(&clients_stub)?);
        let rate = inserts(bench, database, screen, &shape, clients, into).await;
        workers.check()?;
        load.stop().await.and(rate)
    };
    database.with_workers(bench.workers(1), &bench.flags(), insert).await
}

/// Single INSERTs of one shape by many clients. A bare table has the same columns and keys, and no
/// triggers.
async fn inserts(
    bench: &Bench,
    database: &Database,
    screen: &mut Screen,
    shape: &Usual,
    clients: usize,
    into: Table,
) -> Result<f64, Error> {
    let insert = match into {
        Table::Bare => {
            sqlx::raw_sql(include_str!("../sql/setup/bare_table.sql")).execute(&database.pool).await?;
            query::ProducerSubmit::SQL.replace("pgsaga.saga", "bare.saga")
        }
        Table::Sagas => query::ProducerSubmit::SQL.to_owned(),
    };
    let options = pgsaga_worker::db::choose(&database.url).await?.disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(clients as u32).connect_with(options).await?;
    let (next, inserted) = (Arc::new(AtomicU64::new(OTHERS_FIRST)), Arc::new(AtomicU64::new(0)));
    let (mut running, stop) = (JoinSet::new(), CancellationToken::new());
    for _ in 0..clients {
        let (pool, stop, insert, shape) = (pool.clone(), stop.clone(), insert.clone(), shape.clone());
        let (inserted, next) = (Arc::clone(&inserted), Arc::clone(&next));
        running.spawn(async move {
            let mut connection = pool.acquire().await?;
            while !stop.is_cancelled() {
                let gid = Times::gid(next.fetch_add(1, Ordering::Relaxed));
                let saga = shape.saga(&gid);
                let statement = query::ProducerSubmit { saga }.query_with(AssertSqlSafe(insert.clone()));
                statement.fetch_optional(&mut *connection).await?;
                inserted.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    let phase = format!("INSERTs of {} into {} by {clients} clients", shape.name, into.words());
    let rate = count_for(screen, &phase, bench.duration(3), || inserted.load(Ordering::Relaxed)).await?;
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Error::loop_ended(&error))??;
    }
    pool.close().await;
    Ok(rate)
}
