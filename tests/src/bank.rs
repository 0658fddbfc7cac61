//! The demo's two banks: participants that are processes of their own, each behind the barrier in its own schema.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use sqlx::postgres::PgPool;
use tokio::task::spawn_blocking;

use crate::child::{self, Spawned};
use crate::ledger::{Folder, Keeps, Source};
use crate::oracle::{Account, Money};
use crate::{Database, pgsaga};

const BANKS: [&str; 2] = ["bank_a", "bank_b"];
/// What an account holds at first, and how many a bank has: `worker/src/commands/demo/bank.rs`.
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

    /// What their accounts hold, and what the succeeded sagas in the same database say that they should.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn money(&self) -> Money {
        let accounts: Vec<(String, i64, i64)> = sqlx::query_as(
            "with moved as (
               select split_part(e.body ->> 'action', '/', 3) as host, (e.body -> 'payload' ->> 'account')::int as id,
                 sum((e.body -> 'payload' ->> 'amount')::bigint * case e.body ->> 'name' when 'withdraw' then -1 else 1 end)::bigint as moved
               from pgsaga.saga s cross join lateral jsonb_array_elements(s.steps) as e (body)
               where s.status = 'succeeded' and e.body ->> 'name' in ('withdraw', 'deposit')
               group by 1, 2
             ), account as (
               select 'bank_a' as bank, $1 as host, id, balance from bank_a.account
               union all
               select 'bank_b', $2, id, balance from bank_b.account
             )
             select bank || '/' || a.id, balance, coalesce(moved, 0) from account a left join moved using (host, id)",
        )
        .bind(self.banks[0].host())
        .bind(self.banks[1].host())
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let account = |(name, balance, moved)| Account { name, balance, moved };
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
