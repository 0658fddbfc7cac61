//! An application with a transactional participant that can be killed: `vault DATABASE_URL`. It
//! runs the worker in its own process. The tests made the tables `account` and `entry`.

use std::env;
use std::error::Error;
use std::future::pending;
use std::time::Duration;

use pgsaga_sql::fail;
use pgsaga_worker::{Call, HandlerError, HandlerTransaction, TransactionalParticipant, Worker};
use serde::Deserialize;

#[derive(Deserialize)]
struct Movement {
    account: i32,
    amount: i64,
    /// How long the handler takes once it has written.
    #[serde(default)]
    wait_ms: u64,
}

/// Adds the amount to the account, and notes that under which key. Anything that happens twice is
/// seen in both tables.
async fn add(call: Call<Movement>, mut transaction: HandlerTransaction) -> Result<i64, HandlerError> {
    let amount = if call.is_compensation() { -call.payload.amount } else { call.payload.amount };
    let balance: Option<i64> =
        sqlx::query_scalar("update account set balance = balance + $2 where id = $1 returning balance")
            .bind(call.payload.account)
            .bind(amount)
            .fetch_optional(&mut *transaction)
            .await?;
    sqlx::query("insert into entry (gid, key, amount) values ($1, $2, $3)")
        .bind(call.gid())
        .bind(call.key())
        .bind(amount)
        .execute(&mut *transaction)
        .await?;
    fail::point("handler:written");
    tokio::time::sleep(Duration::from_millis(call.payload.wait_ms)).await;
    balance.ok_or_else(|| HandlerError::refuse("no such account"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [database] = <[String; 1]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "allowed: vault DATABASE_URL")?;
    let vault = TransactionalParticipant::new("vault").action("add", add).compensate("add", add).limit(8);
    Worker::builder(database)
        .lease(Duration::from_secs(2))
        .participant(vault)
        .run_until(pending())
        .await
        .map_err(Into::into)
}
