//! One of the demo's banks: a participant in a process of its own, with a barrier, which misbehaves
//! on purpose.

use std::io::Write as _;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use clap::{Args, ValueEnum};
use pgsaga_participant::{Barrier, Verdict};
use serde::Deserialize;
use socket2::{SockRef, Socket};
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::mishap::Mishap;
use crate::error::Error;
use crate::operate::Database;
use pgsaga_test::call_log::{Asked, Did, Entry, Ledger};
use pgsaga_worker::db;

/// Accounts of a bank, numbered from 1.
pub(crate) const ACCOUNTS: i32 = 100;
/// Every n-th account is frozen: its balance cannot change.
pub(crate) const FROZEN_EVERY: i32 = 10;
pub(crate) const BALANCE: i64 = 1_000;
const CONNECTIONS_MAX: u32 = 12;

/// Runs one of the demo's banks; prints its URL and serves until a signal.
#[derive(Debug, Args)]
pub(crate) struct Bank {
    #[command(flatten)]
    database: Database,
    /// Name of the bank, and of the schema with its tables
    #[arg(long, value_enum)]
    name: Name,
    /// Seed that selects the calls that go wrong
    #[arg(long)]
    seed: u64,
    /// Write each call to this file, and flush the file to disk, before the answer
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Name {
    BankA,
    BankB,
}

impl Name {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Name::BankA => "bank_a",
            Name::BankB => "bank_b",
        }
    }
}

struct Books {
    pool: PgPool,
    seed: u64,
    ledger: Option<Ledger>,
}

impl Bank {
    /// Opens the accounts unless they exist, and serves until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let io = || Error::io("serve a bank");
        let options = db::choose(&self.database.database_url)
            .await?
            .statement_cache_capacity(100)
            .options([("search_path", self.name.as_str())]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
        sqlx::raw_sql(include_str!("sql/bank/bank.sql")).execute(&pool).await?;
        sqlx::query(include_str!("sql/bank/accounts.sql"))
            .bind(ACCOUNTS)
            .bind(BALANCE)
            .bind(FROZEN_EVERY)
            .execute(&pool)
            .await?;
        Barrier::install(&pool).await?;

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(io())?;
        let address = listener.local_addr().map_err(io())?;
        writeln!(std::io::stdout(), "http://{address}").map_err(io())?;
        let ledger = self.ledger.as_deref().map(Ledger::open).transpose().map_err(io())?;
        let books = Books { pool, seed: self.seed, ledger };
        let router = Router::new().fallback(answer).with_state(Arc::new(books));
        let server = axum::serve(listener, router.into_make_service_with_connect_info::<Line>());
        tokio::select! {
            served = server.into_future() => served.map_err(io()),
            () = stop.cancelled() => Ok(()),
        }
    }
}

/// The connection of a call, to close it without an answer.
#[derive(Debug, Clone)]
struct Line(Option<Arc<Socket>>);

impl Connected<IncomingStream<'_, TcpListener>> for Line {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let socket = SockRef::from(stream.io());
        // Nagle's delay of 40 ms would look like a delay of the worker.
        let _ = socket.set_tcp_nodelay(true);
        Line(socket.try_clone().ok().map(Arc::new))
    }
}

impl Line {
    /// Makes all further writes go nowhere.
    fn hang_up(&self) {
        if let Some(socket) = &self.0 {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Movement {
    account: i32,
    amount: i64,
}

/// The change of the balance that a path means, and whether the bank may refuse it.
fn change(path: &str, amount: i64) -> Option<(i64, bool)> {
    match path {
        "/withdraw" => Some((-amount, false)),
        "/withdraw/undo" => Some((amount, true)),
        "/deposit" => Some((amount, false)),
        "/deposit/undo" => Some((-amount, true)),
        _ => None,
    }
}

async fn answer(
    State(books): State<Arc<Books>>,
    ConnectInfo(line): ConnectInfo<Line>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let barrier = Barrier::from_query(&query.unwrap_or_default());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let number = |name: &str| header(name).parse::<u32>().unwrap_or_default();
    let (key, attempt) = (header("idempotency-key"), number("saga-attempt"));
    let mishap = Mishap::of(books.seed, key, attempt);
    let entry = books.ledger.as_ref().map(|ledger| ledger.begin(asked(&barrier, key, attempt)));
    let sleep = 2 * Duration::from_millis(number("saga-timeout-ms").into());
    let answer = decide(&books, mishap, sleep, &entry, barrier, uri.path(), &body).await;
    let hangs_up = mishap == Some(Mishap::Drop);
    if let Some(entry) = &entry {
        let did = if hangs_up { Did::HungUp } else { Did::Answered { status: answer.status().as_u16() } };
        if let Err(error) = entry.note(did).on_disk().await {
            return say(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
        }
    }
    if hangs_up {
        line.hang_up();
    }
    answer
}

/// The request of a call; parts that its query lacks are empty.
fn asked(barrier: &Result<Barrier, pgsaga_participant::Error>, key: &str, attempt: u32) -> Asked {
    let of = |part: fn(&Barrier) -> &str| barrier.as_ref().map(part).unwrap_or_default().to_owned();
    let (gid, step, op) = (of(Barrier::gid), of(Barrier::branch_id), of(Barrier::op));
    Asked { key: key.to_owned(), gid, step, op, attempt }
}

async fn decide(
    books: &Arc<Books>,
    mishap: Option<Mishap>,
    sleep: Duration,
    entry: &Option<Entry>,
    barrier: Result<Barrier, pgsaga_participant::Error>,
    path: &str,
    body: &[u8],
) -> Response {
    match mishap {
        Some(Mishap::Error) => return say(StatusCode::INTERNAL_SERVER_ERROR, "the bank fell over"),
        Some(Mishap::Early) => return say(StatusCode::TOO_EARLY, "the bank is not open yet"),
        Some(Mishap::Hang) => {
            tokio::time::sleep(sleep).await;
            return say(StatusCode::INTERNAL_SERVER_ERROR, "the bank fell asleep");
        }
        Some(Mishap::Drop) | None => {}
    }
    let barrier = match barrier {
        Ok(barrier) => barrier,
        Err(error) => return say(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let movement: Movement = match serde_json::from_slice(body) {
        Ok(movement) => movement,
        Err(error) => return say(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some((change, undo)) = change(path, movement.amount) else {
        return say(StatusCode::NOT_FOUND, "allowed: /withdraw, /withdraw/undo, /deposit, /deposit/undo");
    };
    // A task of its own, because the server drops this handler when the caller hangs up, and a
    // transaction must not be dropped.
    let (books, entry) = (Arc::clone(books), entry.clone());
    let work = tokio::spawn(async move { books.work(barrier, movement, change, undo, entry).await });
    match work.await {
        Ok(Ok(Ok(()))) => say(StatusCode::OK, "done"),
        Ok(Ok(Err(refusal))) => say(StatusCode::CONFLICT, &refusal),
        Ok(Err(error)) => say(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn say(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "message": message }))).into_response()
}

impl Books {
    /// The local transaction, in which the barrier's row and the balance commit together. The inner
    /// error is a refusal. A refusal leaves no trace, not even the barrier's row, so that a later
    /// attempt is decided again.
    async fn work(
        &self,
        mut barrier: Barrier,
        movement: Movement,
        change: i64,
        undo: bool,
        entry: Option<Entry>,
    ) -> Result<Result<(), String>, Error> {
        // The line of the answer waits for it.
        let note = |did| drop(entry.as_ref().map(|entry| entry.note(did)));
        let mut transaction = self.pool.begin().await?;
        if barrier.enter(&mut transaction).await? == Verdict::Skip {
            transaction.commit().await?;
            note(Did::Skipped);
            return Ok(Ok(()));
        }
        let moved = sqlx::query(include_str!("sql/bank/move.sql"))
            .bind(movement.account)
            .bind(change)
            .bind(undo)
            .fetch_optional(&mut *transaction)
            .await?;
        if moved.is_some() {
            transaction.commit().await?;
            note(Did::Worked);
            return Ok(Ok(()));
        }
        let account = sqlx::query(include_str!("sql/bank/account.sql"))
            .bind(movement.account)
            .fetch_optional(&mut *transaction)
            .await?;
        transaction.rollback().await?;
        let id = movement.account;
        let Some(account) = account else { return Ok(Err(format!("there is no account {id}"))) };
        let (balance, frozen): (i64, bool) = (account.try_get("balance")?, account.try_get("frozen")?);
        Ok(Err(if frozen {
            format!("account {id} is frozen")
        } else {
            format!("account {id} has {balance}, not {}", movement.amount)
        }))
    }
}
