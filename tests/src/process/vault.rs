//! A vault: an application whose worker calls transactional handlers, as a real process.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sqlx::postgres::PgPool;

use crate::{binary, pgsaga};

/// A running `tests/src/bin/vault.rs`. Dropping it kills it.
#[derive(Debug)]
pub struct Vault(Child);

/// Accounts of the vault.
const ACCOUNTS: i32 = 8;
/// No account has this number.
const NO_ACCOUNT: i32 = 999;

impl Vault {
    /// Starts one. With a fail point it dies there once the file exists.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(database_url: &str, dies: Option<(&str, &Path)>) -> Vault {
        let vault = &binary::failing().vault;
        let mut command: Command = binary::tied(pgsaga(), vault);
        command.arg(database_url).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some((at, when)) = dies {
            command.env("FAIL_AT", at).env("FAIL_WHEN", when);
        }
        Vault(command.spawn().unwrap())
    }

    /// Waits for its end, which it does not come to by itself.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn died(mut self) {
        self.0.wait().unwrap();
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Makes the vault's tables.
    ///
    /// # Panics
    /// When they cannot be made.
    pub async fn found(pool: &PgPool) {
        let tables = format!(
            "create table account (id int primary key, balance bigint not null);
             create table entry (gid text not null, key text not null, amount bigint not null);
             insert into account select n, 0 from generate_series(1, {ACCOUNTS}) n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(tables)).execute(pool).await.unwrap();
    }

    /// Inserts sagas that each move an amount from one account to another. Every fourth finds no
    /// second account, and undoes what it took from the first.
    ///
    /// # Panics
    /// When they cannot be inserted.
    pub async fn insert(pool: &PgPool, name: &str, sagas: i32, wait_ms: u64) {
        for nth in 1..=sagas {
            let to = if nth % 4 == 0 { NO_ACCOUNT } else { nth % ACCOUNTS + 1 };
            let movement =
                |account: i32, amount: i32| json!({"account": account, "amount": amount, "wait_ms": wait_ms});
            let from = movement((nth + 3) % ACCOUNTS + 1, -nth);
            let steps = json!([
                {"name": "from", "action": "participant:vault/add", "compensate": "participant:vault/add", "payload": from},
                {"name": "to", "action": "participant:vault/add", "payload": movement(to, nth)},
            ]);
            sqlx::query(
                "insert into pgsaga.saga (gid, steps, retry_interval) values ($1, $2, '50 milliseconds')",
            )
            .bind(format!("{name}-{nth}"))
            .bind(steps)
            .execute(pool)
            .await
            .unwrap();
        }
    }

    /// Whatever happened, no money was made or lost, and each op took effect once.
    ///
    /// # Panics
    /// Where something took effect twice, by half, or without its record.
    pub async fn audit(pool: &PgPool) {
        let wrong: Vec<String> = sqlx::query_scalar(
            "select 'the balances sum up to ' || sum(balance) from account having sum(balance) <> 0
             union all
             select 'the account ' || a.id || ' has ' || a.balance || ' instead of ' || coalesce(e.sum, 0)
             from account a
             left join (
               select (s.steps -> step -> 'payload' ->> 'account')::int as account, sum(e.amount) as sum
               from entry e join pgsaga.saga s on s.gid = e.gid
               cross join lateral (select case when e.key like '%/to/%' then 1 else 0 end as step) i group by 1
             ) e on e.account = a.id
             where a.balance <> coalesce(e.sum, 0)
             union all
             select key || ' took effect ' || count(*) || ' times' from entry group by key having count(*) > 1
             union all
             select s.gid || ' is ' || s.status || ' with ' || count(e.key) || ' entries'
             from pgsaga.saga s left join entry e on e.gid = s.gid
             group by s.gid, s.status having s.status not in ('succeeded', 'failed') or count(e.key) <> 2",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
