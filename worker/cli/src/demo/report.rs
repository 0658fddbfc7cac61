//! The result: what happened, and whether everything is correct.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use pgsaga_sql::contract::SagaStatus;
use serde::Serialize;
use sqlx::postgres::PgPool;

use super::bank::BALANCE;
use crate::error::Error;
use crate::operate::doctor::{self, Broken};
use crate::operate::read::row;
use crate::words::count;

row! {
    #[derive(Debug, Serialize)]
    Stats {
        sagas: i64,
        succeeded: i64,
        failed: i64,
        stuck: i64,
        /// Neither finished nor stuck at the deadline.
        unfinished: i64,
        /// Attempts after the first one.
        retried: i64,
        /// Tasks that were rescued from a dead worker.
        rescued: i64,
        compensations: i64,
        p50_ms: f64,
        p99_ms: f64,
        per_second: f64,
        /// Accounts whose balance differs from that of the succeeded transfers.
        wrong_accounts: i64,
        /// Traces of sagas that were rolled back.
        ghosts: i64,
        /// Orders without a saga, or sagas without an order.
        torn: i64,
        /// Gid of a saga that is worth a look.
        #[serde(skip)]
        gid: Option<String>,
    }
}

/// The whole result; as JSON it is one flat object.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    stats: Stats,
    rolled_back: u64,
    money_before: i64,
    money_after: i64,
    invariants_broken: usize,
    seconds: f64,
    seed: u64,
    #[serde(skip)]
    broken: Vec<Broken>,
}

/// The sum of all balances of both banks.
pub(crate) async fn money(pool: &PgPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(include_str!("sql/money.sql")).fetch_one(pool).await?)
}

impl Report {
    /// Reads the result from the database, after all sagas have ended or should have.
    pub(crate) async fn make(
        pool: &PgPool,
        url: &str,
        seed: u64,
        money_before: i64,
        rolled_back: u64,
    ) -> Result<Report, Error> {
        sqlx::raw_sql(include_str!("sql/analyze.sql")).execute(pool).await?;
        let stats = sqlx::query_as(include_str!("sql/stats.sql")).bind(BALANCE).fetch_one(pool).await?;
        let broken = doctor::examine(url).await?;
        let (money_after, invariants_broken) = (money(pool).await?, broken.len());
        let seconds = 0.0;
        Ok(Report { stats, rolled_back, money_before, money_after, invariants_broken, seconds, seed, broken })
    }

    pub(crate) fn took(&mut self, seconds: f64) {
        self.seconds = (seconds * 1000.0).round() / 1000.0;
    }

    /// Gid of a saga that is worth a look.
    pub(crate) fn gid(&self) -> Option<&str> {
        self.stats.gid.as_deref()
    }

    pub(crate) fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// The faults, in words; empty if everything is correct.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let stats = &self.stats;
        let mut wrongs = Vec::new();
        let mut wrong = |is: bool, what: String| {
            if is {
                wrongs.push(what);
            }
        };
        let (before, after) = (self.money_before, self.money_after);
        wrong(before != after, format!("the sum of all balances was {before} and is {after}"));
        let accounts = stats.wrong_accounts;
        wrong(accounts > 0, format!("{accounts} accounts do not hold what they should"));
        wrong(stats.ghosts > 0, format!("{} traces of sagas that were rolled back", stats.ghosts));
        wrong(stats.torn > 0, format!("{} orders without a saga, or sagas without an order", stats.torn));
        wrong(stats.stuck > 0, format!("{} sagas are stuck", stats.stuck));
        wrong(stats.unfinished > 0, format!("{} sagas had not finished at the deadline", stats.unfinished));
        let places = self.invariants_broken;
        wrong(places > 0, format!("invariants are broken in {places} places"));
        wrongs.extend(self.broken.iter().take(5).map(Broken::to_string));
        wrongs
    }

    pub(crate) fn table(&self) -> String {
        let stats = &self.stats;
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let ms = |ms: f64| format!("{} ms", count(ms.round() as i64));
        for (what, count, meaning) in [
            ("sagas", count(stats.sagas), "a withdrawal at one bank, a deposit at the other"),
            (SagaStatus::Succeeded.as_str(), count(stats.succeeded), ""),
            (SagaStatus::Failed.as_str(), count(stats.failed), "refused by a bank; what was done is undone"),
            (SagaStatus::Stuck.as_str(), count(stats.stuck), "would need a person"),
            ("compensations", count(stats.compensations), "withdrawals and deposits undone"),
            ("retried", count(stats.retried), "after a 500, a 425, a hang or a lost connection"),
            ("rescued", count(stats.rescued), "tasks of the killed worker, taken over"),
            ("rolled back", count(self.rolled_back.cast_signed()), "never committed, so nobody was called"),
            ("p50", ms(stats.p50_ms), "from the insert to the end of a saga"),
            ("p99", ms(stats.p99_ms), ""),
            ("sagas a second", count(stats.per_second.round() as i64), "with all of this on one machine"),
        ] {
            table.add_row([what, &count, meaning]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    /// The verdict for a person: what was checked, and the result.
    pub(crate) fn verdict(&self) -> String {
        let checks = pgsaga_sql::CHECKS.len();
        let (before, after) = (count(self.money_before), count(self.money_after));
        if self.wrongs().is_empty() {
            format!(
                "money: {before} before, {after} after; every account holds what the succeeded transfers say\n\
                 invariants: {checks} checked, none broken\n\
                 all of it in {:.1} s",
                self.seconds
            )
        } else {
            format!("WRONG:\n  {}\n(seed {})", self.wrongs().join("\n  "), self.seed)
        }
    }
}
