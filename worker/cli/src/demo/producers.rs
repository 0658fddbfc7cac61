//! The producers: one half submits sagas through the crate, the other half in plain SQL, each in
//! the transaction of its order.

use std::ops::Range;
use std::sync::Arc;

use pgsaga_producer::{Saga, submit_many};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgPool, PgTransaction};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::transfer::{REQUEST_TIMEOUT, RETRY_INTERVAL, Transfer, Urls};
use crate::error::Error;

/// Sagas in one `submit_many`.
const BATCH: usize = 25;
/// Every n-th single order is also submitted a second time, under another name, and rolled back.
const ROLLED_BACK_EVERY: u64 = 10;

#[derive(Debug)]
pub(crate) struct Producers {
    pub(crate) pool: PgPool,
    pub(crate) urls: Urls,
    pub(crate) seed: u64,
    /// Checked between two transactions, because no transaction may be dropped in the middle.
    pub(crate) stop: CancellationToken,
}

impl Producers {
    /// Submits this many transfers in five concurrent tasks. Returns the number of further
    /// transfers that were rolled back on purpose.
    pub(crate) async fn submit(self, transfers: u64) -> Result<u64, Error> {
        let (quarter, half) = (transfers / 4, transfers / 2);
        let producers = Arc::new(self);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&producers).one_by_one(0..quarter / 2));
        tasks.spawn(Arc::clone(&producers).one_by_one(quarter / 2..quarter));
        tasks.spawn(Arc::clone(&producers).in_batches(quarter..half));
        tasks.spawn(Arc::clone(&producers).in_plain_sql(half..half + quarter));
        tasks.spawn(producers.in_plain_sql(half + quarter..transfers));
        let mut rolled_back = 0;
        while let Some(ended) = tasks.join_next().await {
            rolled_back += ended.map_err(|error| Error::other("submit transfers", error))??;
        }
        Ok(rolled_back)
    }

    async fn one_by_one(self: Arc<Self>, range: Range<u64>) -> Result<u64, Error> {
        let mut rolled_back = 0;
        for n in range.take_while(|_| !self.stop.is_cancelled()) {
            let transfer = Transfer::nth(self.seed, n);
            self.order_with_saga(&transfer).await?.commit().await?;
            if n % ROLLED_BACK_EVERY == 0 {
                // An application that changes its mind: neither the order nor the saga exists
                // afterwards.
                let transfer = Transfer { gid: format!("rolled-back-{n}"), ..transfer };
                self.order_with_saga(&transfer).await?.rollback().await?;
                rolled_back += 1;
            }
        }
        Ok(rolled_back)
    }

    async fn order_with_saga(&self, transfer: &Transfer) -> Result<PgTransaction<'_>, Error> {
        let mut transaction = self.pool.begin().await?;
        order(&mut transaction, std::slice::from_ref(transfer)).await?;
        self.saga(transfer)?.submit(&mut *transaction).await?;
        Ok(transaction)
    }

    async fn in_batches(self: Arc<Self>, range: Range<u64>) -> Result<u64, Error> {
        for start in range.clone().step_by(BATCH).take_while(|_| !self.stop.is_cancelled()) {
            let end = range.end.min(start + BATCH as u64);
            let transfers: Vec<Transfer> = (start..end).map(|n| Transfer::nth(self.seed, n)).collect();
            let sagas =
                transfers.iter().map(|transfer| self.saga(transfer)).collect::<Result<Vec<_>, _>>()?;
            let mut transaction = self.pool.begin().await?;
            order(&mut transaction, &transfers).await?;
            submit_many(&mut *transaction, &sagas).await?;
            transaction.commit().await?;
        }
        Ok(0)
    }

    async fn in_plain_sql(self: Arc<Self>, range: Range<u64>) -> Result<u64, Error> {
        for n in range.take_while(|_| !self.stop.is_cancelled()) {
            let transfer = Transfer::nth(self.seed, n);
            let mut transaction = self.pool.begin().await?;
            order(&mut transaction, std::slice::from_ref(&transfer)).await?;
            let saga = json!({
                "gid": transfer.gid,
                "from_url": self.urls.of(transfer.from.bank),
                "from_account": transfer.from.number,
                "to_url": self.urls.of(transfer.to.bank),
                "to_account": transfer.to.number,
                "amount": transfer.amount,
                "retry_interval_ms": RETRY_INTERVAL.as_millis() as i64,
                "request_timeout_ms": REQUEST_TIMEOUT.as_millis() as i64,
            });
            sqlx::query(include_str!("sql/plain_saga.sql")).bind(saga).execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        Ok(0)
    }

    fn saga(&self, transfer: &Transfer) -> Result<Saga, Error> {
        Ok(transfer.saga(&self.urls).map_err(pgsaga_producer::Error::from)?)
    }
}

async fn order(connection: &mut PgConnection, transfers: &[Transfer]) -> Result<(), sqlx::Error> {
    let orders = transfers.iter().map(|transfer| {
        json!({
            "gid": transfer.gid,
            "from_bank": transfer.from.bank.as_str(),
            "from_account": transfer.from.number,
            "to_bank": transfer.to.bank.as_str(),
            "to_account": transfer.to.number,
            "amount": transfer.amount,
        })
    });
    let orders = Value::Array(orders.collect());
    sqlx::query(include_str!("sql/orders.sql")).bind(orders).execute(connection).await?;
    Ok(())
}
