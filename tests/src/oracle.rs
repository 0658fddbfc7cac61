//! The judge of a run: what the database says, against what the participants wrote down themselves.
//!
//! The rules are plain functions of plain data ([`Case`], [`Money`], [`Tail`]), each shown able to
//! fail in `tests.rs`; [`Oracle`] reads that data from the database and from the ledgers' files.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use sqlx::postgres::PgPool;

use crate::ledger::Source;
use crate::scene;

mod case;
mod evidence;
mod money;
mod rules;
mod tail;
#[cfg(test)]
mod tests;

pub use case::{Call, Case, Event, Fate, Row, Saga, Step};
pub use money::{Account, Money};
pub use rules::{RULES, Rule};
pub use tail::{Tail, WorkerTail};

/// Cases that are in memory at once: a run of hours has many more.
const CASES_MAX: usize = 20_000;
/// Findings of each rule that are shown; one fault breaks many sagas.
const SHOWN_MAX: usize = 5;

/// What a run is judged by. Ask it when all has ended.
#[derive(Debug)]
pub struct Oracle {
    pool: PgPool,
    ledgers: Vec<Source>,
    tables: Vec<PgPool>,
    told: HashMap<String, Fate>,
    money: Option<Money>,
    tail: Option<Tail>,
}

impl Oracle {
    /// For the sagas of this database.
    pub fn new(pool: &PgPool) -> Self {
        let (ledgers, tables) = (Vec::new(), Vec::new());
        Self { pool: pool.clone(), ledgers, tables, told: HashMap::new(), money: None, tail: None }
    }

    /// The ledger of a participant that was called. All of them have to be given.
    #[must_use]
    pub fn ledger(mut self, ledger: Source) -> Self {
        self.ledgers.push(ledger);
        self
    }

    /// A database with the barrier's table of participants whose ledger
    /// [`crate::ledger::Keeps::Table`].
    #[must_use]
    pub fn barrier(mut self, pool: &PgPool) -> Self {
        self.tables.push(pool.clone());
        self
    }

    /// What whoever inserted them knows of the sagas. One that it does not name may be there or
    /// not.
    #[must_use]
    pub fn told(mut self, told: impl IntoIterator<Item = (String, Fate)>) -> Self {
        self.told.extend(told);
        self
    }

    /// Balances, and what ought to have moved.
    #[must_use]
    pub fn money(mut self, money: Money) -> Self {
        self.money = Some(money);
        self
    }

    /// How it went on after the last fault.
    #[must_use]
    pub fn tail(mut self, tail: Tail) -> Self {
        self.tail = Some(tail);
        self
    }

    /// Judges by every rule.
    ///
    /// # Panics
    /// When the database or a ledger cannot be read.
    pub async fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.found("checks", "", scene::broken(&self.pool).await);
        evidence::each_case(self, |case| verdict.case(case)).await;
        verdict.found("money_is_conserved", "", self.money.iter().flat_map(Money::judge));
        verdict.found("the_tail_is_alive", "", self.tail.iter().flat_map(Tail::judge));
        verdict
    }
}

/// What the oracle says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Sagas by status.
    pub sagas: BTreeMap<String, usize>,
    /// Calls in the ledgers.
    pub calls: usize,
    /// Rules that do not hold, and where.
    pub broken: Vec<Broken>,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: &'static str,
    /// In which saga; empty where it is not of one.
    pub gid: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.gid, self.found)
    }
}

impl Verdict {
    fn case(&mut self, case: &Case) {
        self.calls += case.calls.len();
        if let Some(saga) = &case.saga {
            *self.sagas.entry(saga.status.clone()).or_default() += 1;
        }
        for (name, rule) in RULES {
            self.found(name, &case.gid, rule(case));
        }
    }

    fn found(&mut self, rule: &'static str, gid: &str, found: impl IntoIterator<Item = String>) {
        self.broken.extend(found.into_iter().map(|found| Broken { rule, gid: gid.to_owned(), found }));
    }

    /// Every rule holds.
    ///
    /// # Panics
    /// With the rules that do not.
    pub fn holds(&self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut shown = String::new();
        for broken in &self.broken {
            let count = counts.entry(broken.rule).or_default();
            *count += 1;
            if *count <= SHOWN_MAX {
                shown.push_str(&format!("\n  {broken}"));
            }
        }
        assert!(self.broken.is_empty(), "rules that do not hold, and how often: {counts:?}{shown}");
    }
}
