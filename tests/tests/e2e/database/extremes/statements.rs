//! Each value by itself: every statement that reads for people, for metrics, for retention and for
//! doctor.

use pgsaga_sql::{CHECKS, query};
use pgsaga_tests::extremes::{Extreme, extremes};
use pgsaga_tests::sized;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::{KINDS, OPEN, applied, one_of_each};

/// Statements with the values that a person may give, as literals for EXECUTE; `$SAGA` is the
/// saga's id.
const READS: &[(&str, &str, &str)] = &[
    ("list", query::List::SQL, "null, false, null, null, null, null, null, null, null, 100"),
    (
        "list with filters",
        query::List::SQL,
        "null, true, 0, 1000000000000, 'default', '{tenant}', '{a}', 'shop.example:8080', null, 100",
    ),
    ("list of no progress", query::List::SQL, "null, false, null, null, null, null, null, null, 1000, 100"),
    ("show_steps", query::SHOW_STEPS, "$SAGA"),
    ("show_tasks", query::SHOW_TASKS, "$SAGA"),
    ("show_stuck", query::SHOW_STUCK, "$SAGA"),
    ("show_timeline", query::SHOW_TIMELINE, "$SAGA, 100"),
    ("show_history", query::ShowHistory::SQL, "$SAGA, -9223372036854775808, 9223372036854775807, 1000"),
    ("ui_history", query::UiHistory::SQL, "$SAGA, 9223372036854775807, 50, 100"),
    ("ui_overview", query::UI_OVERVIEW, "10000"),
    ("ui_sagas", query::UiSagas::SQL, "null, null, null, '{tenant}', '{a}', 's', 1000, 50"),
    ("ui_sagas_open", query::UiSagasOpen::SQL, "null, null, null, '{tenant}', '{a}', 's', 1000, 50, true"),
    ("ui_sagas_looked", query::UiSagasLooked::SQL, "null, 1000, true, true"),
    ("ui_stuck", query::UiStuck::SQL, "null, null, null, 50"),
    ("ui_stuck, the next page", query::UiStuck::SQL, "'-infinity', 0, '', 50"),
    ("select_open", query::SelectOpen::SQL, "'shop.example:8080', null, '{tenant}', '{a}', 0, 100"),
    ("select_stuck", query::SelectStuck::SQL, "'shop.example:8080', null, 0, 100"),
    ("sample_queues", query::SAMPLE_QUEUES, ""),
    ("sample_sagas", query::SAMPLE_SAGAS, ""),
    ("queues", query::QUEUES, ""),
    ("purge_sagas", query::PurgeSagas::SQL, "3600000000, 0, 1000000, 100"),
    ("purge_history", query::PurgeHistory::SQL, "3600000000, 0, 0, 0, 1000000, 100"),
];
/// For people; the other views are read by the statements and by the checks.
const VIEWS: [&str; 2] = ["saga_timeline", "queue_stats"];

/// Whether doctor must name a row with this value.
fn is_out_of_range(extreme: &Extreme) -> bool {
    let value = extreme.value.as_str();
    let (is_end, is_negative) =
        (value.contains("2147483") || value.contains("3276"), value.starts_with("(-"));
    let is_far = value.contains("infinity") || value.contains("290000") || value.contains("4713");
    match (extreme.table, extreme.column.as_str()) {
        ("task", "run_at" | "deadline") | ("saga", "created_at" | "deadline") => is_far,
        ("saga", "run_at") => is_far && !value.contains("4713"),
        ("task", "epoch" | "counted" | "lost" | "lost_isolated" | "bytes")
        | ("saga", "version" | "bytes") => is_end || is_negative,
        ("task", "attempt" | "step" | "lane") => is_end || is_negative || value.starts_with("(0)"),
        ("saga", "retry_limit" | "compensate_retry_limit") => is_end || is_negative,
        ("saga", "retry_interval" | "request_timeout" | "timeout_to_fail") => !value.starts_with("null"),
        ("saga", "steps") => true,
        ("saga", "headers") => !value.starts_with("null") && !value.starts_with("'{}'"),
        ("saga", "fresh_keys") => !value.starts_with("null") && !value.starts_with("'{}'"),
        ("saga", "progress") => !value.starts_with("null"),
        ("stuck", "unreadable") => value.contains("true"),
        _ => false,
    }
}

/// What EXECUTE runs, by name.
fn executions(saga_id: i64) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for (number, (name, _, values)) in READS.iter().enumerate() {
        let values = values.replace("$SAGA", &saga_id.to_string());
        let values = if values.is_empty() { values } else { format!("({values})") };
        all.push((name, format!("execute read_{number}{values}")));
    }
    all.extend(VIEWS.map(|view| (view, format!("select * from pgsaga.{view}"))));
    let checks = CHECKS.iter().enumerate();
    all.extend(checks.map(|(number, check)| (check.name, format!("execute check_{number}"))));
    all
}

async fn prepare(connection: &mut PgConnection) {
    let mut sql = "set jit = off; set plan_cache_mode = force_generic_plan;".to_owned();
    for (number, (_, read, _)) in READS.iter().enumerate() {
        sql += &format!("prepare read_{number} as {read}\n;");
    }
    for (number, check) in CHECKS.iter().enumerate() {
        sql += &format!("prepare check_{number} as {}\n;", check.sql);
    }
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// Runs everything, and answers what the check of rows names. What cannot be decoded here, the
/// commands decode.
async fn read_all(connection: &mut PgConnection, saga_id: i64) -> Result<Vec<String>, String> {
    let gid: String = sqlx::query_scalar("select gid from pgsaga.saga where id = $1")
        .bind(saga_id)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let saga = sqlx::query(query::SHOW_SAGA).bind(gid).bind(true).fetch_optional(&mut *connection).await;
    if saga.map_err(|error| format!("show_saga: {error}"))?.is_none() {
        return Err("show_saga finds no saga".to_owned());
    }
    let all = executions(saga_id);
    // In one go, which is faster; then one by one, to find out which failed.
    connection.execute("savepoint reading").await.unwrap();
    let script: String = all.iter().map(|(_, sql)| format!("{sql};")).collect();
    if connection.execute(sqlx::raw_sql(AssertSqlSafe(script))).await.is_err() {
        connection.execute("rollback to savepoint reading").await.unwrap();
        for (name, sql) in &all {
            let result = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await;
            result.map_err(|error| format!("{name}: {error}"))?;
        }
        return Err("only all of them together fail".to_owned());
    }
    connection.execute("rollback to savepoint reading").await.unwrap();
    let list = &all[0].1;
    let listed = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(list.clone()))).await.unwrap().len();
    if listed != KINDS.len() {
        return Err(format!("list: found {listed} sagas; allowed: {}", KINDS.len()));
    }
    let check = CHECKS.iter().position(|check| check.name == "rows_can_be_read").unwrap();
    let execute = format!("execute check_{check}");
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(execute))).await.unwrap();
    let read = |row: &PgRow| {
        Ok(format!("{}: {}", row.try_get::<String, _>("gid")?, row.try_get::<String, _>("found")?))
    };
    rows.iter()
        .map(read)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|error| format!("rows_can_be_read: {error}"))
}

/// Each value of each column of each kind of saga.
#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_row_ends_a_statement_that_people_or_metrics_read_with() {
    let (db, sagas) = one_of_each().await;
    let all = extremes(db.pool()).await;
    let parts = sagas.into_iter().map(|(kind, saga_id)| {
        let (url, all) = (db.url().to_owned(), all.clone());
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            prepare(&mut connection).await;
            let mut wrong = Vec::new();
            let mut taken = 0;
            for extreme in &all {
                connection.execute("begin").await.unwrap();
                if applied(&mut connection, extreme, saga_id).await {
                    taken += 1;
                    match read_all(&mut connection, saga_id).await {
                        Err(error) => wrong.push(format!("{kind}: {extreme}: {error}")),
                        Ok(named) if named.is_empty() && OPEN.contains(&kind) && is_out_of_range(extreme) => {
                            wrong.push(format!("{kind}: {extreme}: doctor does not name it"));
                        }
                        Ok(_) => {}
                    }
                }
                connection.execute("rollback").await.unwrap();
            }
            (kind, taken, wrong)
        })
    });
    let mut wrong = Vec::new();
    for part in parts.collect::<Vec<_>>() {
        let (kind, taken, found) = part.await.unwrap();
        assert!(taken >= sized(30, 100), "{kind}: only {taken} values were taken");
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn doctor_names_the_row_the_column_the_value_and_what_is_allowed() {
    let (db, sagas) = one_of_each().await;
    let check = CHECKS.iter().find(|check| check.name == "rows_can_be_read").unwrap();
    let saga = |kind| sagas.iter().find(|(of, _)| *of == kind).unwrap().1;
    for (change, says) in [
        (
            format!("update pgsaga.task set run_at = 'infinity' where saga_id = {}", saga("sequential")),
            "run_at: found infinity; allowed: from 1970 to 9999",
        ),
        (
            format!("update pgsaga.saga set steps = '[{{\"action\": 7}}]' where id = {}", saga("sequential")),
            "steps[1]: found {\"action\": 7}; allowed: an object with a string action",
        ),
        (
            format!("update pgsaga.saga set headers = '7' where id = {}", saga("stuck")),
            "headers: found 7; allowed: nothing, or an object of strings",
        ),
        (
            format!("update pgsaga.stuck set unreadable = true where saga_id = {}", saga("stuck")),
            "stuck step a: unreadable: found a: retry limit; allowed: a row that workers can read",
        ),
    ] {
        let mut session = PgConnection::connect(db.url()).await.unwrap();
        let mut changed = session.begin().await.unwrap();
        changed.execute(AssertSqlSafe(change.clone())).await.unwrap();
        let found: Vec<(String, String)> = sqlx::query_as(check.sql).fetch_all(&mut *changed).await.unwrap();
        assert!(found.iter().any(|(_, what)| what.contains(says)), "{change}: {found:?}");
        changed.rollback().await.unwrap();
    }
}
