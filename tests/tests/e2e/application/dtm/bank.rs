//! A participant that keeps its own books: an HTTP service with a database of its own, whose
//! handlers move money behind the barrier, through the crate or through the function of
//! barrier.sql.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use pgsaga_participant::{Barrier, Error, Verdict};
use pgsaga_tests::Database;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::client::Way;

/// What a participant without the crate installs.
const BARRIER: &str = include_str!("../../../../../producer/participant/sql/barrier.sql");

/// What goes wrong at the first try of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fault {
    /// The handler panics after the money was moved, before the commit.
    Panic,
    /// A statement fails there.
    Error,
    /// The move is committed, and the answer says that something went wrong.
    AnswerLost,
}

/// The body of a call: cents for accounts, each moved behind its own use of the barrier and in its
/// own transaction. The compensation moves them back.
#[derive(Serialize, Deserialize)]
struct Order {
    moves: Vec<(String, i64)>,
    /// The op, which of its moves from 0, and what happens there.
    faults: Vec<(String, usize, Fault)>,
}

/// As a step's payload.
pub(super) fn order(moves: &[(&str, i64)], faults: &[(&str, usize, Fault)]) -> Value {
    json!({ "moves": moves, "faults": faults })
}

/// With 100 cents in each of the accounts `in` and `out`, none of which can be overdrawn.
pub(super) struct Bank {
    url: String,
    server: JoinHandle<()>,
    db: Database,
}

struct Branch {
    way: Way,
    pool: PgPool,
}

impl Bank {
    pub(super) async fn open(way: Way) -> Bank {
        let db = Database::new().await;
        match way {
            Way::Crate => Barrier::install(db.pool()).await.unwrap(),
            Way::Sql => sqlx::raw_sql(BARRIER).execute(db.pool()).await.map(drop).unwrap(),
        }
        sqlx::raw_sql(
            "create table account (name text primary key, cents bigint not null check (cents >= 0));
             insert into account values ('in', 100), ('out', 100)",
        )
        .execute(db.pool())
        .await
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let branch = Arc::new(Branch { way, pool: db.pool().clone() });
        let router = Router::new().route("/move", post(serve)).with_state(branch);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Bank { url: format!("http://{address}/move"), server, db }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The cents in `in` and in `out`.
    pub(super) async fn balances(&self) -> (i64, i64) {
        sqlx::query_as(
            "select min(cents) filter (where name = 'in'), min(cents) filter (where name = 'out')
             from account",
        )
        .fetch_one(self.db.pool())
        .await
        .unwrap()
    }

    /// The barrier's rows of a saga as `"step op number, by op"`.
    pub(super) async fn barrier(&self, gid: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select format('%s %s %s, by %s', branch_id, op, barrier_id, reason) from dtm_barrier.barrier
             where gid = $1 and trans_type = 'saga' order by branch_id, barrier_id, op",
        )
        .bind(gid)
        .fetch_all(self.db.pool())
        .await
        .unwrap()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The barrier of one call, as a handler in Rust or one in any language uses it.
enum Uses {
    Crate(Barrier),
    Sql { query: HashMap<String, String>, number: usize },
}

impl Uses {
    /// Whether to do the work, in this transaction.
    async fn enter(&mut self, tx: &mut PgConnection) -> Result<bool, Error> {
        match self {
            Uses::Crate(barrier) => Ok(barrier.enter(tx).await? == Verdict::Proceed),
            Uses::Sql { query, number } => {
                *number += 1;
                let enter = sqlx::query_scalar(
                    "select dtm_barrier.enter(call ->> 'trans_type', call ->> 'gid', call ->> 'branch_id', call ->> 'op', $2)
                     from (select $1::jsonb as call) as given",
                );
                Ok(enter.bind(json!(query)).bind(format!("{number:02}")).fetch_one(tx).await?)
            }
        }
    }
}

async fn serve(
    State(branch): State<Arc<Branch>>,
    RawQuery(raw): RawQuery,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> (StatusCode, String) {
    let op = query["op"].clone();
    let mut uses = match branch.way {
        Way::Crate => Uses::Crate(Barrier::from_query(&raw.unwrap()).unwrap()),
        Way::Sql => Uses::Sql { query, number: 0 },
    };
    let first_try = headers["saga-attempt"] == "1";
    for (index, (account, cents)) in order.moves.iter().enumerate() {
        let due = order.faults.iter().find(|(at, nth, _)| first_try && *at == op && *nth == index);
        let fault = due.map(|(_, _, fault)| *fault);
        let cents = if op == "compensate" { -cents } else { *cents };
        if let Err(error) = branch.transfer(&mut uses, account, cents, fault).await {
            return answer(&error);
        }
        if fault == Some(Fault::AnswerLost) {
            return (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong".into());
        }
    }
    (StatusCode::OK, String::new())
}

impl Branch {
    async fn transfer(
        &self,
        uses: &mut Uses,
        account: &str,
        cents: i64,
        fault: Option<Fault>,
    ) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        if uses.enter(&mut tx).await? {
            let moved = sqlx::query("update account set cents = cents + $1 where name = $2");
            moved.bind(cents).bind(account).execute(&mut *tx).await?;
            match fault {
                Some(Fault::Panic) => panic!("on purpose, in the business part"),
                Some(Fault::Error) => sqlx::query("select 1 / 0").execute(&mut *tx).await.map(drop)?,
                Some(Fault::AnswerLost) | None => {}
            }
        }
        Ok(tx.commit().await?)
    }
}

/// An overdrawn account is a definite no; its transaction was rolled back, the barrier's row with
/// it.
fn answer(error: &Error) -> (StatusCode, String) {
    let overdrawn = match error {
        Error::Database(error) => error.as_database_error().is_some_and(|error| error.is_check_violation()),
        _ => false,
    };
    let status = if overdrawn { StatusCode::CONFLICT } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, if overdrawn { "insufficient balance".into() } else { error.to_string() })
}
