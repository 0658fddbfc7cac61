//! A person who decides about sagas at random: aborts and retries some of the latest, and sees to
//! those that are stuck.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::postgres::PgPool;
use tokio::sync::watch;

const EVERY: Duration = Duration::from_millis(150);

/// Decides until it is told to stop. Returns how often each decision was taken.
///
/// # Panics
/// When a decision is refused for another reason than the saga's state.
pub(crate) async fn operate(
    seed: u64,
    pool: PgPool,
    stopped: watch::Receiver<bool>,
) -> BTreeMap<&'static str, usize> {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut decisions = BTreeMap::new();
    while !*stopped.borrow() {
        // Balances tell nothing of a transfer that a person ended as it stood: transfers are
        // aborted and retried only.
        let (decision, statement) = match random.random_range(0..20) {
            0..8 => (
                "abort",
                "select pgsaga.abort(gid, 'chaos') from (select gid from pgsaga.saga order by id desc offset $1 limit 1) s",
            ),
            8..10 => (
                "retry",
                "select pgsaga.retry(gid) from (select gid from pgsaga.saga where finished_at is null and status <> 'stuck' order by id desc offset $1 limit 1) s",
            ),
            10..17 => (
                "retry stuck",
                "select pgsaga.retry(gid, 'chaos') from (select gid from pgsaga.stuck join pgsaga.saga s on s.id = saga_id order by saga_id offset $1 % 2 limit 1) s",
            ),
            17 => (
                "skip",
                "select pgsaga.skip(gid, step, 'chaos') from (select gid, step from pgsaga.stuck join pgsaga.saga s on s.id = saga_id where gid like 'chaos-%' order by saga_id offset $1 % 2 limit 1) s",
            ),
            18 => (
                "resolve",
                "select pgsaga.resolve(gid, 'failed', 'chaos') from (select gid from pgsaga.stuck join pgsaga.saga s on s.id = saga_id where gid like 'chaos-%' order by saga_id offset $1 % 2 limit 1) s",
            ),
            _ => (
                "force",
                "select pgsaga.force(gid, 'chaos') from (select gid from pgsaga.saga where gid like 'chaos-%' order by id desc offset $1 limit 1) s",
            ),
        };
        let back = random.random_range(0..40_i64);
        match sqlx::query(statement).bind(back).fetch_optional(&pool).await {
            Ok(Some(_)) => *decisions.entry(decision).or_default() += 1,
            Ok(None) => {}
            Err(error) => {
                let code =
                    error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
                // The saga's state does not allow it, or Postgres is away in one of its ways.
                let fine = code.as_deref().is_none_or(|code| {
                    code == "55000"
                        || ["57P", "53", "08", "25P", "40"].iter().any(|class| code.starts_with(class))
                });
                assert!(fine, "{decision}: {error}");
            }
        }
        tokio::time::sleep(EVERY.mul_f64(random.random_range(0.1..2.0))).await; // a pace, not a wait for something
    }
    decisions
}

/// Tries again whatever is stuck, and skips what cannot even be sent: past its pivot, a step that
/// refers to an answer which was none.
///
/// # Errors
/// When Postgres does not answer.
pub(crate) async fn retry_stuck(pool: &PgPool) -> Result<(), sqlx::Error> {
    for statement in [
        "select pgsaga.skip(gid, step, 'the tail') from pgsaga.stuck k join pgsaga.saga s on s.id = saga_id where k.reason like '%: not sent: %'",
        "select pgsaga.retry(gid, 'the tail') from pgsaga.saga where status = 'stuck' and id in (select saga_id from pgsaga.stuck)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}
