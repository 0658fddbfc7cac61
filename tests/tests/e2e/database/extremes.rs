//! Rows with extreme and unreadable values: what people read and decide with goes on, and says
//! which rows they are.
//!
//! No worker runs here. Each kind of saga is written down as a worker would leave it, and each
//! column of its rows is given each value of [`pgsaga_tests::extremes`] that the database takes.

mod commands;
mod decisions;
mod statements;
mod work;

use pgsaga_tests::Database;
use pgsaga_tests::extremes::{Extreme, apply, extremes};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Executor as _};

/// Sagas as workers leave them: `$KIND` is one of these.
pub(crate) const KINDS: [&str; 5] = ["sequential", "parallel", "stuck", "stuck_parallel", "finished"];

/// Kinds that are open.
pub(crate) const OPEN: [&str; 4] = ["sequential", "parallel", "stuck", "stuck_parallel"];

/// The saga `gid` of a kind, with its task, its history and what is stuck of it.
pub(crate) fn written(kind: &str, gid: &str) -> String {
    let url = "http://shop.example:8080/pay";
    let step = |name: &str, more: &str| {
        format!(
            r#"{{"name": "{name}", "action": "{url}", "compensate": "{url}", "payload": {{"n": 1}}, "retry_limit": 3{more}}}"#
        )
    };
    let after = if kind.ends_with("parallel") { r#", "after": []"# } else { "" };
    let steps = format!("[{}, {}]", step("a", ""), step("b", after));
    let saga = format!("(select id from pgsaga.saga where gid = '{gid}')");
    let tried = |step: i16, outcome: &str| {
        format!(
            "insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us, message)
             values ({saga}, {step}, 'action', 1, '{outcome}', 200, 1000, 'said');"
        )
    };
    let mut sql = format!(
        "insert into pgsaga.saga (gid, steps, labels, headers, timeout_to_fail)
         values ('{gid}', '{steps}', '{{\"tenant\": \"a\"}}', '{{\"x\": \"y\"}}', '1 hour');"
    );
    if kind == "finished" {
        sql += &tried(1, "success");
        sql += &tried(2, "success");
        sql += &format!(
            "delete from pgsaga.task where saga_id = {saga};
             update pgsaga.saga set status = 'succeeded', finished_at = clock_timestamp(), result = '{{\"ok\": true}}' where gid = '{gid}';"
        );
        return sql;
    }
    sql += &tried(1, "unknown");
    sql += &format!(
        "update pgsaga.task set attempt = 2, counted = 1, unknown_before = true, last_outcome = 'unknown',
           run_at = clock_timestamp() + interval '1 hour' where saga_id = {saga} and step = 1;"
    );
    if kind.starts_with("stuck") {
        sql += &format!(
            "delete from pgsaga.task where saga_id = {saga} and step = 1;
             insert into pgsaga.stuck (saga_id, step, reason, position, op, attempt, unknown_before, last_outcome, epoch)
             values ({saga}, 'a', 'a: retry limit', 1, 'action', 2, true, 'unknown', 3);
             update pgsaga.saga set status = 'stuck', reason = 'a: retry limit', progress = 's' || substr(progress, 2) where gid = '{gid}';"
        );
    }
    sql
}

/// Writes the saga `gid` of this kind down.
pub(crate) async fn write(pool: &PgPool, kind: &str, gid: &str) -> i64 {
    pool.execute(sqlx::raw_sql(AssertSqlSafe(written(kind, gid)))).await.unwrap();
    sqlx::query_scalar("select id from pgsaga.saga where gid = $1").bind(gid).fetch_one(pool).await.unwrap()
}

/// A database with one saga of each kind, by their kinds.
pub(crate) async fn one_of_each() -> (Database, Vec<(&'static str, i64)>) {
    let db = Database::new().await;
    let mut sagas = Vec::new();
    for kind in KINDS {
        sagas.push((kind, write(db.pool(), kind, kind).await));
    }
    (db, sagas)
}

/// Gives a saga's rows the value inside the open transaction. What was refused leaves nothing
/// behind.
pub(crate) async fn applied(transaction: &mut PgConnection, extreme: &Extreme, saga_id: i64) -> bool {
    transaction.execute("savepoint applying").await.unwrap();
    let taken = apply(&mut *transaction, extreme.table, &extreme.column, &extreme.value, saga_id).await;
    if !taken {
        transaction.execute("rollback to savepoint applying").await.unwrap();
    }
    taken
}

/// Rows that are checked before they are written are of usual values: what doctor finds is the
/// values' doing.
#[tokio::test]
async fn without_an_extreme_value_the_sagas_are_well() {
    let (db, _) = one_of_each().await;
    assert_eq!(pgsaga_tests::scene::broken(db.pool()).await, Vec::<String>::new());
    let all = extremes(db.pool()).await;
    for table in ["saga", "task", "history", "stuck"] {
        assert!(all.iter().any(|extreme| extreme.table == table), "{table}");
    }
}
