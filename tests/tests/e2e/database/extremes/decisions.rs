//! Each value by itself: what people decide about a saga with it.

use pgsaga_tests::extremes::extremes;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::{OPEN, applied, one_of_each};

const DECISIONS: [(&str, &str); 7] = [
    ("force", "pgsaga.force(gid, 'why')"),
    ("resolve as succeeded", "pgsaga.resolve(gid, 'succeeded', 'why')"),
    ("resolve as failed", "pgsaga.resolve(gid, 'failed', 'why')"),
    ("retry", "pgsaga.retry(gid, 'why')"),
    ("retry with a fresh key", "pgsaga.retry(gid, 'why', true)"),
    ("abort", "pgsaga.abort(gid, 'why')"),
    ("skip", "pgsaga.skip(gid, 'a', 'why')"),
];

/// What a decision came to: a complaint, where it neither worked nor said why not.
async fn decide(connection: &mut PgConnection, name: &str, call: &str, saga_id: i64) -> Result<(), String> {
    let ends = name.starts_with("force") || name.starts_with("resolve");
    let call = format!("select {call} from (select gid from pgsaga.saga where id = {saga_id}) s");
    match connection.fetch_all(AssertSqlSafe(call)).await {
        Err(error) => {
            let error = error.into_database_error().unwrap();
            let code = error.code().unwrap_or_default().into_owned();
            let is_in_our_words = ["P0002", "55000", "22023"].contains(&code.as_str());
            if ends || !is_in_our_words { Err(format!("{name}: {code} {}", error.message())) } else { Ok(()) }
        }
        Ok(_) => {
            let stands: (bool, bool, i64, bool) = sqlx::query_as(
                "select finished_at is not null, status = 'stuck', version::bigint, exists (select from pgsaga.task where saga_id = s.id)
                 from pgsaga.saga s where id = $1",
            )
            .bind(saga_id)
            .fetch_one(connection)
            .await
            .unwrap();
            match stands {
                (false, ..) if ends => Err(format!("{name}: the saga is not over")),
                (false, true, ..) if name.starts_with("retry") => Err(format!("{name}: it is still stuck")),
                // A stuck saga that is to roll back already stays as it is.
                (false, false, _, false) => Err(format!("{name}: nothing is queued")),
                _ => Ok(()),
            }
        }
    }
}

/// Force and resolve end every such saga. The others work, or say what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_about_any_row_works_or_says_why_not() {
    let (db, sagas) = one_of_each().await;
    let all = extremes(db.pool()).await;
    let sagas = sagas.into_iter().filter(|(kind, _)| OPEN.contains(kind));
    let parts = sagas.map(|(kind, saga_id)| {
        let (url, all) = (db.url().to_owned(), all.clone());
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let mut wrong = Vec::new();
            for extreme in &all {
                connection.execute("begin").await.unwrap();
                if applied(&mut connection, extreme, saga_id).await {
                    for (name, call) in DECISIONS {
                        connection.execute("savepoint deciding").await.unwrap();
                        if let Err(error) = decide(&mut connection, name, call, saga_id).await {
                            wrong.push(format!("{kind}: {extreme}: {error}"));
                        }
                        connection.execute("rollback to savepoint deciding").await.unwrap();
                    }
                }
                connection.execute("rollback").await.unwrap();
            }
            wrong
        })
    });
    let mut wrong = Vec::new();
    for part in parts.collect::<Vec<_>>() {
        wrong.extend(part.await.unwrap());
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// What a stuck step does not say is as the definition and the history have it.
#[tokio::test]
async fn a_retry_mends_what_a_stuck_step_says_wrongly() {
    let (db, sagas) = one_of_each().await;
    let (_, saga_id) = sagas.into_iter().find(|(kind, _)| *kind == "stuck").unwrap();
    let change = "update pgsaga.stuck set position = null, op = null, attempt = 2147483647, unknown_before = null, epoch = 2147483647,
                  last_outcome = 'x' where saga_id = $1";
    sqlx::query(change).bind(saga_id).execute(db.pool()).await.unwrap();
    db.pool().execute("select pgsaga.retry('stuck')").await.unwrap();
    let task: (i16, String, i32, bool, i32, Option<String>, String) = sqlx::query_as(
        "select step, op, attempt, unknown_before, epoch, last_outcome, participant from pgsaga.task where saga_id = $1",
    )
    .bind(saga_id)
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(task, (1, "action".into(), 2, true, 0, None, "shop.example:8080".into()));
    assert_eq!(pgsaga_tests::scene::broken(db.pool()).await, Vec::<String>::new());
}
