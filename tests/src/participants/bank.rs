//! The demo's two banks: participants that are processes of their own, each behind the barrier in
//! its own schema.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use sqlx::postgres::PgPool;
use tokio::task::spawn_blocking;

use crate::child::{self, Spawned};
use crate::ledger::{Folder, Keeps, Source};
use crate::oracle::{Account, Money};
use crate::{Database, pgsaga};

const BANKS: [&str; 2] = ["bank_a", "bank_b"];
/// What an account holds at first, and how many a bank has: `worker/cli/src/demo/bank.rs`.
const OPENING: i64 = 1_000;

/// Both banks; dropping them kills them.
#[derive(Debug)]
pub struct Banks {
    banks: Vec<Bank>,
    folder: Folder,
    pool: PgPool,
}

#[derive(Debug)]
struct Bank {
    process: Spawned,
    url: String,
}

impl Banks {
    /// Opens both in this database. They mistreat calls as the seed says.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn open(db: &Database, seed: u64) -> Self {
        let folder = Folder::new();
        let mut banks = Vec::new();
        // One after the other: both make the barrier's schema.
        for name in BANKS {
            let ledger = folder.file(name).to_string_lossy().into_owned();
            let (url, seed) = (db.url().to_owned(), seed.to_string());
            banks.push(spawn_blocking(move || Bank::open(&url, name, &seed, &ledger)).await.unwrap());
        }
        Self { banks, folder, pool: db.pool().clone() }
    }

    /// Where each listens.
    pub fn urls(&self) -> [&str; 2] {
        [&self.banks[0].url, &self.banks[1].url]
    }

    /// Their ledgers.
    pub fn ledgers(&self) -> [Source; 2] {
        BANKS.map(|name| Source { file: self.folder.file(name), keeps: Keeps::Table })
    }

    /// They live.
    ///
    /// # Panics
    /// When one ended; with the end of its log.
    pub fn assert_running(&mut self) {
        for bank in &mut self.banks {
            let ended = bank.process.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "a bank ended with {ended:?}: {:?}",
                bank.process.log.lock().unwrap().last()
            );
        }
    }

    /// Their database: the accounts, and the barrier's table.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// What their accounts hold, and what the succeeded sagas of this database say that they
    /// should.
    ///
    /// # Panics
    /// When a database does not answer.
    pub async fn money(&self, sagas: &PgPool) -> Money {
        let moved: Vec<(String, i32, i64)> = sqlx::query_as(
            "select split_part(e.body ->> 'action', '/', 3), (e.body -> 'payload' ->> 'account')::int,
               sum((e.body -> 'payload' ->> 'amount')::bigint * case e.body ->> 'name' when 'withdraw' then -1 else 1 end)::bigint
             from pgsaga.saga s cross join lateral jsonb_array_elements(s.steps) as e (body)
             where s.status = 'succeeded' and e.body ->> 'name' in ('withdraw', 'deposit')
             group by 1, 2",
        )
        .fetch_all(sagas)
        .await
        .unwrap();
        let moved: HashMap<(String, i32), i64> =
            moved.into_iter().map(|(host, id, moved)| ((host, id), moved)).collect();
        let accounts: Vec<(String, String, i32, i64)> = sqlx::query_as(
            "select 'bank_a', $1, id, balance from bank_a.account
             union all
             select 'bank_b', $2, id, balance from bank_b.account",
        )
        .bind(self.banks[0].host())
        .bind(self.banks[1].host())
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let account = |(bank, host, id, balance)| Account {
            name: format!("{bank}/{id}"),
            balance,
            moved: moved.get(&(host, id)).copied().unwrap_or(0),
        };
        Money { opening: OPENING, accounts: accounts.into_iter().map(account).collect() }
    }
}

impl Bank {
    fn open(database_url: &str, name: &str, seed: &str, ledger: &str) -> Self {
        #[rustfmt::skip]
        let args = [
            "demo-bank", "--database-url", database_url, "--log-level", "warn", "--name", name, "--seed", seed,
            "--ledger", ledger,
        ];
        let mut process = child::spawn(pgsaga(), &args, &[], Stdio::piped());
        let mut url = String::new();
        let stdout = process.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        assert!(!url.is_empty(), "{name} did not start: {:?}", process.log.lock().unwrap());
        Self { process, url: url.trim_end().to_owned() }
    }

    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        drop(self.process.child.kill());
        drop(self.process.child.wait());
    }
}
