//! The sagas of a run: the nth of a seed is always the same, and its participants do always the
//! same with it.

use std::time::Duration;

use pgsaga_tests::Behaviour::{
    self, CloseAfter, CloseBefore, Flood, Hang, Late, Ok, Ongoing, Refuse, Sequence, Slow, Status, Unknown,
};
use pgsaga_tests::Call;
use pgsaga_tests::oracle::Fate;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor, Postgres};

/// The second queue; it is paused now and then.
pub(crate) const SIDE_QUEUE: &str = "side";
/// Accounts of a bank; every tenth is frozen.
const ACCOUNTS: u32 = 100;

/// Where the participants are.
pub(crate) struct Places {
    pub(crate) open: String,
    pub(crate) closed: String,
    pub(crate) banks: [String; 2],
}

/// A saga before it is inserted.
pub(crate) struct Draft {
    gid: String,
    parts: Vec<Part>,
    columns: Vec<(&'static str, String)>,
    submission: Submission,
}

/// How it is inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Submission {
    /// By itself.
    Plain,
    /// In a transaction with a COMMIT of its own, whose reply can be lost.
    Transaction,
    /// And the application changes its mind.
    RolledBack,
}

struct Part {
    name: String,
    place: Place,
    action: Behaviour,
    /// `None`: nothing to undo.
    compensate: Option<Behaviour>,
    /// Further keys.
    keys: Vec<(&'static str, Value)>,
}

enum Place {
    Open,
    Closed,
    Bank(usize),
}

/// The gid of the nth saga. Every fourth moves money.
pub(crate) fn gid(n: u64) -> String {
    if n % 4 == 3 { format!("transfer-{n}") } else { format!("chaos-{n}") }
}

/// What a participant does with a call: the same whenever it comes.
pub(crate) fn behaviour(seed: u64, call: &Call) -> Behaviour {
    let number = call.gid.strip_prefix("chaos-").and_then(|n| n.parse().ok());
    let part =
        number.and_then(|n| Draft::nth(seed, n).parts.into_iter().find(|part| part.name == call.branch_id));
    match (part, call.op.as_str()) {
        (Some(part), "compensate") => part.compensate.unwrap_or(Ok),
        (Some(part), _) => part.action,
        (None, _) => Slow(Duration::from_millis(20)),
    }
}

impl Draft {
    /// The nth saga of a seed.
    pub(crate) fn nth(seed: u64, n: u64) -> Draft {
        let mut random = StdRng::seed_from_u64(seed.rotate_left(32) ^ n);
        let submission = match random.random_range(0..20) {
            0 => Submission::RolledBack,
            1..7 => Submission::Transaction,
            _ => Submission::Plain,
        };
        let mut columns = vec![("retry_interval", "'50 milliseconds'".to_owned())];
        if random.random_ratio(1, 5) {
            columns.push(("queue", format!("'{SIDE_QUEUE}'")));
        }
        if random.random_ratio(1, 6) {
            let timeout = random.random_range(50..2000);
            columns.push(("timeout_to_fail", format!("'{timeout} milliseconds'")));
        }
        let parts = if n % 4 == 3 {
            columns.push(("request_timeout", "'500 milliseconds'".to_owned()));
            transfer(&mut random)
        } else {
            columns.push(("request_timeout", "'400 milliseconds'".to_owned()));
            if random.random_ratio(1, 10) {
                columns.push(("retry_limit", random.random_range(0..3).to_string()));
            }
            if random.random_ratio(1, 10) {
                columns.push(("compensate_retry_limit", "1".to_owned()));
            }
            steps(&mut random)
        };
        Draft { gid: gid(n), parts, columns, submission }
    }

    /// One that nothing keeps from succeeding.
    pub(crate) fn tail(n: u64) -> Draft {
        let place = if n.is_multiple_of(2) { Place::Open } else { Place::Closed };
        let part = Part { name: "pay".to_owned(), place, action: Ok, compensate: None, keys: Vec::new() };
        Draft {
            gid: format!("tail-{n}"),
            parts: vec![part],
            columns: Vec::new(),
            submission: Submission::Plain,
        }
    }

    /// Inserts it, and says what the client knows then.
    pub(crate) async fn submit(&self, pool: &PgPool, places: &Places) -> Fate {
        if self.submission == Submission::Plain {
            // What was never sent is not there.
            let Result::Ok(mut connection) = pool.acquire().await else { return Fate::RolledBack };
            return match self.insert(&mut *connection, places).await {
                Result::Ok(()) => Fate::Committed,
                Err(error) => {
                    let class = error.as_database_error().and_then(|error| error.code());
                    let bad = class.is_some_and(|class| class.starts_with("22") || class.starts_with("23"));
                    assert!(!bad, "the draft of {} is wrong: {error}", self.gid);
                    Fate::Unknown
                }
            };
        }
        // Without a COMMIT nothing is committed, whatever breaks.
        let Result::Ok(mut transaction) = pool.begin().await else { return Fate::RolledBack };
        if self.insert(&mut *transaction, places).await.is_err() {
            return Fate::RolledBack;
        }
        if self.submission == Submission::RolledBack {
            drop(transaction.rollback().await);
            return Fate::RolledBack;
        }
        transaction.commit().await.map_or(Fate::Unknown, |()| Fate::Committed)
    }

    /// Inserts it.
    pub(crate) async fn insert(
        &self,
        into: impl Executor<'_, Database = Postgres>,
        places: &Places,
    ) -> Result<(), sqlx::Error> {
        let names: String = self.columns.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String = self.columns.iter().map(|(_, literal)| format!(", {literal}")).collect();
        let insert = format!("insert into pgsaga.saga (gid, steps{names}) values ($1, $2{values})");
        let steps = Value::Array(self.parts.iter().map(|part| part.body(&self.gid, places)).collect());
        sqlx::query(AssertSqlSafe(insert)).bind(&self.gid).bind(steps).execute(into).await.map(drop)
    }
}

impl Part {
    fn body(&self, gid: &str, places: &Places) -> Value {
        let (action, undo) = match self.place {
            Place::Open => (format!("{}/{gid}/{}", places.open, self.name), ""),
            Place::Closed => (format!("{}/{gid}/{}", places.closed, self.name), ""),
            Place::Bank(bank) => (format!("{}/{}", places.banks[bank], self.name), "/undo"),
        };
        let mut body = json!({"name": self.name, "action": action});
        if self.compensate.is_some() {
            body["compensate"] = json!(format!("{action}{undo}"));
        }
        for (key, value) in &self.keys {
            body[*key] = value.clone();
        }
        body
    }
}

/// Money from an account of one bank to one of the other. Amounts are small: after hours no account
/// is near its end, where undoing a deposit would have to wait for the next one.
fn transfer(random: &mut StdRng) -> Vec<Part> {
    let from = random.random_range(0..2);
    let fate = random.random_range(0..100);
    let account =
        |random: &mut StdRng| 10 * random.random_range(0..ACCOUNTS / 10) + random.random_range(1..10);
    let (payer, mut payee) = (account(random), account(random));
    if fate < 5 {
        payee = payee.next_multiple_of(10);
    }
    let amount = if (5..8).contains(&fate) { 1_000_000 } else { random.random_range(1..6) };
    let part = |name: &str, bank, account| Part {
        name: name.to_owned(),
        place: Place::Bank(bank),
        action: Ok,
        compensate: Some(Ok),
        keys: vec![("payload", json!({"account": account, "amount": amount}))],
    };
    vec![part("withdraw", from, payer), part("deposit", 1 - from, payee)]
}

fn steps(random: &mut StdRng) -> Vec<Part> {
    let count = random.random_range(1..6);
    let parallel = random.random_ratio(1, 2);
    let pivot = (!parallel && random.random_ratio(1, 6)).then(|| random.random_range(0..count));
    let mut parts: Vec<Part> = Vec::new();
    for step in 0..count {
        let past_pivot = pivot.is_some_and(|pivot| pivot < step);
        let mut keys = Vec::new();
        if parallel {
            let mut after: Vec<String> = Vec::new();
            after.extend(
                (0..step).filter(|_| random.random_ratio(1, 2)).map(|before| format!("step-{before}")),
            );
            keys.push(("after", json!(after)));
        } else if step > 0 && random.random_ratio(1, 5) {
            keys.push((
                "payload",
                json!({"told": {"$from": format!("step-{}", step - 1), "path": "/dtm_result"}}),
            ));
        }
        if pivot == Some(step) {
            keys.push(("pivot", json!(true)));
        }
        let action = if past_pivot { forward_only(random) } else { action(random) };
        // What comes after the pivot cannot be undone, and some other steps have nothing to undo.
        let is_undone = pivot.is_none_or(|pivot| step <= pivot) && !random.random_ratio(1, 20);
        let compensate = is_undone.then(|| compensation(random));
        let place = if random.random_ratio(1, 2) { Place::Open } else { Place::Closed };
        parts.push(Part { name: format!("step-{step}"), place, action, compensate, keys });
    }
    parts
}

fn no() -> Behaviour {
    Refuse("no".to_owned())
}

/// What an action does, most of them well.
fn action(random: &mut StdRng) -> Behaviour {
    match random.random_range(0..100) {
        0..5 => no(),
        5..7 => Sequence(vec![Status(500), no(), no()]),
        // It was done, and yet it says no: undone all the same.
        7..9 => Sequence(vec![CloseAfter, no(), no()]),
        _ => mishap(random),
    }
}

/// After the pivot a refusal is for a person.
fn forward_only(random: &mut StdRng) -> Behaviour {
    if random.random_ratio(1, 10) { Sequence(vec![no()]) } else { mishap(random) }
}

/// A refusal makes the saga stuck.
fn compensation(random: &mut StdRng) -> Behaviour {
    match random.random_range(0..100) {
        0..4 => Sequence(vec![no()]),
        4..7 => Sequence(vec![Status(500), CloseAfter, Status(500)]),
        _ => mishap(random),
    }
}

/// What goes well in the end.
fn mishap(random: &mut StdRng) -> Behaviour {
    let once = |behaviour| Sequence(vec![behaviour]);
    match random.random_range(0..100) {
        0..4 => Unknown(random.random_range(1..3)),
        4..6 => Ongoing(random.random_range(1..3)),
        6..9 => once(CloseAfter),
        9..12 => once(CloseBefore),
        12..14 => once(Hang),
        14..17 => once(Late),
        17..19 => once(Behaviour::retry_after(429, 0)),
        19..20 => once(Behaviour::retry_after(429, 1)),
        20..22 => once(Behaviour::retry_after(503, 0)),
        22..24 => once(Status(400)),
        24..26 => once(Behaviour::redirect(307, "/elsewhere")),
        26..28 => once(Behaviour::garbage(500)),
        28..30 => Behaviour::garbage(200),
        30..32 => Status(200),
        32 => once(Flood(200, 10 * 1024 * 1024)),
        33 => once(Flood(500, 10 * 1024 * 1024)),
        34..50 => Slow(Duration::from_millis(random.random_range(1..300))),
        _ => Ok,
    }
}
