//! Sagas of one step from a backlog, whose handler runs in the process of the bench.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgsaga_worker::{
    Builder, Call, HandlerError, HandlerTransaction, Participant, TransactionalParticipant, Worker,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Bench;
use super::super::limits::{self, count_for};
use super::super::report::{Bar, Report};
use super::super::rig::{Database, Groups, Metrics, Rig, groups};
use super::super::screen::Screen;
use crate::error::Error;

/// Sagas that wait when the worker starts.
pub(crate) const SAGAS: u64 = 200_000;
/// Transactions of handlers at once, and connections of the run without handlers.
const TRANSACTIONS: usize = 16;
/// Even a slow machine finishes this many sagas per second.
const SAGAS_PER_SECOND_MIN: u64 = 200;
/// The only step of each saga.
const STEPS: &str = r#"[{"name": "job", "action": "participant:bench/job"}]"#;
/// What a transactional handler does.
const EFFECT: &str = "insert into public.effect (gid) values ($1)";

struct Ran {
    sagas_per_second: f64,
    groups: Groups,
}

/// A handler that does nothing, beside the statements that every saga needs.
pub(crate) async fn one_step(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let job = move |_: Call<()>| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok::<(), HandlerError>(()))
    };
    let participant = Participant::new("bench").action("job", job);
    let ran = rig
        .in_database(async |database| drain(bench, database, screen, participant.clone(), &done).await)
        .await?;
    let duration = Duration::from_secs_f64(bench.jobs() as f64 / ran.sagas_per_second);
    let limit = limits::statements(rig, screen, &bench.shape(1), ran.groups, duration).await?;
    let mut report = Report::new(bench.scenario);
    let meaning = "to claims and settles alone";
    report.bar("ratio", ran.sagas_per_second / limit, Bar::AtLeast(0.9), meaning);
    report.line("sql_sagas_per_second", limit, "the worker's claims and settles alone, in this run's groups");
    ran.tell(&mut report);
    Ok(report)
}

/// A handler with one statement, beside the same statement in a transaction of its own.
pub(crate) async fn transactional(bench: &Bench, rig: &Rig, screen: &mut Screen) -> Result<Report, Error> {
    let connections = bench.concurrency.map_or(TRANSACTIONS, |concurrency| concurrency as usize);
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let job = move |call: Call<()>, mut transaction: HandlerTransaction| {
        let counted = Arc::clone(&counted);
        async move {
            sqlx::query(EFFECT).bind(call.gid()).execute(&mut *transaction).await?;
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<(), HandlerError>(())
        }
    };
    let participant = TransactionalParticipant::new("bench").action("job", job).limit(connections);
    let measure = async |database: &Database| {
        database.pool.execute("create table public.effect (gid text not null)").await?;
        let bare = bare(bench, database, screen, connections).await?;
        let ran = drain(bench, database, screen, participant.clone().into(), &done).await?;
        Ok((bare, ran))
    };
    let (bare, ran) = rig.in_database(measure).await?;
    let mut report = Report::new(bench.scenario);
    let meaning = "to the same statement in transactions without a saga, by as many connections";
    report.bar("to_bare_transaction", ran.sagas_per_second / bare, Bar::AtLeast(0.5), meaning);
    report.line("bare_transactions_per_second", bare, "BEGIN, the statement, COMMIT");
    report.line("connections", connections as f64, "transactions at once");
    ran.tell(&mut report);
    Ok(report)
}

impl Ran {
    fn tell(&self, report: &mut Report) {
        report.line("sagas_per_second", self.sagas_per_second, "from the worker's start to the last settle");
        report.groups(&self.groups);
    }
}

impl Bench {
    fn jobs(&self) -> u64 {
        self.sagas.unwrap_or(SAGAS)
    }
}

/// Runs a worker in this process until the backlog has ended.
async fn drain(
    bench: &Bench,
    database: &Database,
    screen: &mut Screen,
    participant: Participant,
    done: &AtomicU64,
) -> Result<Ran, Error> {
    let sagas = bench.jobs();
    screen.say(&format!("inserting {sagas} sagas"));
    database.fill(STEPS, sagas.cast_signed()).await?;
    database.settle_down().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::io("listen"))?;
    let address = listener.local_addr().map_err(Error::io("listen"))?;
    let builder: Builder = Worker::builder(&database.url).listen(listener).participant(participant);
    let (stop, started) = (CancellationToken::new(), Instant::now());
    let mut worker = tokio::spawn(builder.run_until(stop.clone().cancelled_owned()));
    let deadline = started + Duration::from_secs(60 + sagas / SAGAS_PER_SECOND_MIN);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let groups = loop {
        tokio::select! {
            ended = &mut worker => ended.map_err(|error| Error::loop_ended(&error))??,
            _ = tick.tick() => {}
        }
        let ended = done.load(Ordering::Relaxed);
        screen.show("draining", started.elapsed(), None, ended);
        if ended >= sagas {
            break groups(&[], &[Metrics::read(&format!("http://{address}/metrics")).await?]);
        }
        if Instant::now() > deadline {
            return Err(Error::Found(format!("only {ended} of {sagas} sagas had ended")));
        }
    };
    // The drain ends with the last settle.
    stop.cancel();
    worker.await.map_err(|error| Error::loop_ended(&error))??;
    let seconds = started.elapsed().as_secs_f64();
    let open: i64 =
        sqlx::query_scalar(include_str!("../sql/read/open.sql")).fetch_one(&database.pool).await?;
    if open > 0 {
        return Err(Error::Found(format!("{open} of {sagas} sagas had not succeeded")));
    }
    Ok(Ran { sagas_per_second: sagas as f64 / seconds, groups })
}

/// Transactions per second of the statement alone.
async fn bare(
    bench: &Bench,
    database: &Database,
    screen: &mut Screen,
    connections: usize,
) -> Result<f64, Error> {
    let options = pgsaga_worker::db::choose(&database.url).await?.disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(connections as u32).connect_with(options).await?;
    let (stop, committed) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let mut running = JoinSet::new();
    for nth in 0..connections {
        let (pool, stop, committed) = (pool.clone(), stop.clone(), Arc::clone(&committed));
        running.spawn(async move {
            let mut connection = pool.acquire().await?;
            while !stop.is_cancelled() {
                connection.execute("begin").await?;
                sqlx::query(EFFECT).bind(format!("bare-{nth:010}")).execute(&mut *connection).await?;
                connection.execute("commit").await?;
                committed.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    let phase = format!("transactions without a saga by {connections} connections");
    let rate = count_for(screen, &phase, bench.duration(10), || committed.load(Ordering::Relaxed)).await?;
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Error::loop_ended(&error))??;
    }
    pool.close().await;
    Ok(rate)
}
