//! An order in three steps: the stock reserves, the account is charged, the parcel is sent. Each
//! handler runs in this process. The account lies in the saga's own database, so its handler is
//! transactional: whatever happens, each order is charged exactly once.
//!
//! `DATABASE_URL` names a database that `pgsaga migrate` has prepared.

use std::time::Duration;

use pgsaga_producer::{Saga, Step, Waiter};
use pgsaga_worker::{Call, HandlerError, HandlerTransaction, Participant, TransactionalParticipant, Worker};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
struct Order {
    item: String,
    cents: i64,
}

async fn reserve(call: Call<Order>) -> Result<(), HandlerError> {
    println!("{}: reserve one {}", call.key(), call.payload.item);
    Ok(())
}

async fn release(call: Call<Order>) -> Result<(), HandlerError> {
    println!("{}: release the {}", call.key(), call.payload.item);
    Ok(())
}

/// Takes the money, or refuses. The worker commits this together with the record of the attempt.
async fn charge(call: Call<Order>, mut transaction: HandlerTransaction) -> Result<i64, HandlerError> {
    let charge = "update account set cents = cents - $1 where cents >= $1 returning cents";
    let left: Option<i64> =
        sqlx::query_scalar(charge).bind(call.payload.cents).fetch_optional(&mut *transaction).await?;
    left.ok_or_else(|| HandlerError::refuse("the account has not so much"))
}

async fn send(call: Call<Order>) -> Result<(), HandlerError> {
    println!("{}: send the {}", call.key(), call.payload.item);
    Ok(())
}

/// Submits an order, and waits for its end.
async fn order(pool: &PgPool, gid: &str, order: Order) -> Result<(), Failure> {
    let reserve =
        Step::new("reserve").action("participant:shop/reserve").compensate("participant:shop/release");
    let saga = Saga::new()
        .gid(gid)?
        .step(reserve.payload(&order))
        .step(Step::new("charge").action("participant:bank/charge").payload(&order))
        .step(Step::new("send").action("participant:shop/send").payload(&order));
    saga.submit(pool).await?;
    let ended = Waiter::new(pool.clone()).wait(gid, Duration::from_secs(30)).await?;
    println!("{gid}: {} {}", ended.status.as_str(), ended.reason.unwrap_or_default());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = PgPool::connect(&url).await?;
    sqlx::raw_sql("create table account (cents bigint not null); insert into account values (10000)")
        .execute(&pool)
        .await?;
    let shop = Participant::new("shop")
        .action("reserve", reserve)
        .compensate("release", release)
        .action("send", send);
    let bank = TransactionalParticipant::new("bank").action("charge", charge);
    let stop = CancellationToken::new();
    let worker = Worker::builder(url).participant(shop).participant(bank).build()?;
    let worker = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
    order(&pool, "chair", Order { item: "chair".to_owned(), cents: 9900 }).await?;
    order(&pool, "table", Order { item: "table".to_owned(), cents: 19900 }).await?;
    stop.cancel();
    Ok(worker.await??)
}
