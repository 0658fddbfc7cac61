//! One transfer of money between the banks.

use std::time::Duration;

use pgsaga_producer::{Invalid, Saga, Step};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use super::bank::{ACCOUNTS, FROZEN_EVERY, Name};

/// More money than any account ever holds.
const TOO_MUCH: i64 = 1_000_000;
/// Short, because the demo would mostly wait otherwise.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The cost of a hanging call. A bank under load needs less time.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Money to move from an account of one bank to one of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) gid: String,
    pub(crate) from: Account,
    pub(crate) to: Account,
    pub(crate) amount: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) bank: Name,
    pub(crate) number: i32,
}

/// The payload of both ops, at both banks.
#[derive(Serialize)]
struct Movement {
    account: i32,
    amount: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Urls {
    pub(crate) bank_a: String,
    pub(crate) bank_b: String,
}

impl Urls {
    pub(crate) fn of(&self, bank: Name) -> &str {
        match bank {
            Name::BankA => &self.bank_a,
            Name::BankB => &self.bank_b,
        }
    }
}

impl Transfer {
    /// The nth transfer of a seed. A few transfers exceed the balance, and a few go to a frozen
    /// account.
    pub(crate) fn nth(seed: u64, n: u64) -> Transfer {
        let mut random = StdRng::seed_from_u64(seed.rotate_left(32) ^ n);
        let (from, to) =
            if random.random() { (Name::BankA, Name::BankB) } else { (Name::BankB, Name::BankA) };
        let fate = random.random_range(0..100);
        let open = |random: &mut StdRng| loop {
            let account = random.random_range(1..=ACCOUNTS);
            if account % FROZEN_EVERY != 0 {
                return account;
            }
        };
        let from = Account { bank: from, number: open(&mut random) };
        let frozen = FROZEN_EVERY * random.random_range(1..=ACCOUNTS / FROZEN_EVERY);
        let to = Account { bank: to, number: if fate < 5 { frozen } else { open(&mut random) } };
        let amount = if (5..8).contains(&fate) { TOO_MUCH } else { random.random_range(1..=200) };
        Transfer { gid: format!("transfer-{n}"), from, to, amount }
    }

    /// The saga that withdraws the money and then deposits it.
    pub(crate) fn saga(&self, urls: &Urls) -> Result<Saga, Invalid> {
        let step = |name: &str, account: Account| {
            let url = format!("{}/{name}", urls.of(account.bank));
            Step::new(name)
                .compensate(format!("{url}/undo"))
                .action(url)
                .payload(&Movement { account: account.number, amount: self.amount })
        };
        Ok(Saga::new()
            .gid(self.gid.as_str())?
            .step(step("withdraw", self.from))
            .step(step("deposit", self.to))
            .retry_interval(RETRY_INTERVAL)
            .request_timeout(REQUEST_TIMEOUT)
            .label("producer", "crate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_transfers_and_every_fate() {
        let transfers: Vec<Transfer> = (0..1000).map(|n| Transfer::nth(7, n)).collect();
        assert_eq!(transfers[5], Transfer::nth(7, 5));
        assert_ne!(transfers[5], Transfer { gid: transfers[5].gid.clone(), ..Transfer::nth(8, 5) });
        let frozen = transfers.iter().filter(|transfer| transfer.to.number % FROZEN_EVERY == 0).count();
        let too_much = transfers.iter().filter(|transfer| transfer.amount == TOO_MUCH).count();
        assert!(
            (20..100).contains(&frozen) && (10..60).contains(&too_much),
            "{frozen} frozen, {too_much} too much"
        );
        assert!(transfers.iter().all(|transfer| transfer.from.number % FROZEN_EVERY != 0));
        assert!(transfers.iter().all(|transfer| transfer.from.bank != transfer.to.bank));
    }
}
