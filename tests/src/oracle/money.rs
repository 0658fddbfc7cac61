//! Balances.

/// Accounts after a run, and what the sagas that succeeded ought to have moved.
#[derive(Clone, Debug)]
pub struct Money {
    /// What each account held at first.
    pub opening: i64,
    /// All accounts of all banks.
    pub accounts: Vec<Account>,
}

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its bank and number.
    pub name: String,
    /// What it holds.
    pub balance: i64,
    /// The sum of what the sagas that succeeded, and no others, brought and took.
    pub moved: i64,
}

impl Money {
    /// The sum is what it was; stronger: money that moved twice, or to the wrong account, would
    /// leave that alone.
    pub fn judge(&self) -> Vec<String> {
        let mut found = Vec::new();
        let before = self.opening * i64::try_from(self.accounts.len()).unwrap();
        let after: i64 = self.accounts.iter().map(|account| account.balance).sum();
        if before != after {
            found.push(format!("the sum of all balances was {before} and is {after}"));
        }
        for account in &self.accounts {
            let expected = self.opening + account.moved;
            if account.balance != expected {
                found.push(format!(
                    "account {} holds {} instead of {expected}",
                    account.name, account.balance
                ));
            }
        }
        found
    }
}
