//! The session in which a settle runs.

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use crate::db::{Db, OpenTransaction, PoolKind};

/// Where a settle runs.
pub(super) enum Session<'a> {
    /// As a statement that commits itself.
    Own(&'a Db),
    /// In the transaction of the handler whose attempt is settled.
    Handler(&'a mut OpenTransaction),
}

impl Session<'_> {
    pub(super) async fn run(
        &mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        match self {
            Session::Own(db) => db.run(PoolKind::Work, statement).await,
            Session::Handler(transaction) => transaction.run(statement).await,
        }
    }
}
