//! Many values at once: the commands and the web page, which decode what the statements answer.

use std::collections::HashMap;

use pgsaga_tests::command::{Said, run};
use pgsaga_tests::extremes::{Extreme, apply, extremes};
use pgsaga_tests::{Database, Ui, sized, worker};
use sqlx::{AssertSqlSafe, Executor as _};

use super::{KINDS, applied, write, written};

/// One saga of each kind for each value, with just that value: those that the database took.
async fn one_for_each_value(db: &Database, all: &[Extreme]) -> Vec<(String, i64)> {
    let mut chosen: Vec<(String, &str, &Extreme)> = Vec::new();
    for kind in KINDS {
        for (number, extreme) in all.iter().enumerate() {
            let is_of_it = match extreme.table {
                "task" => !kind.ends_with("d") && kind != "stuck",
                "stuck" => kind.starts_with("stuck"),
                _ => true,
            };
            // The statements read each value elsewhere: here a third of them for each kind, all of
            // them for two.
            if is_of_it && (["sequential", "stuck"].contains(&kind) || number % 3 == 0) {
                chosen.push((format!("{kind}-{number}"), kind, extreme));
            }
        }
    }
    let mut changes = db.pool().begin().await.unwrap();
    let script: String = chosen.iter().map(|(gid, kind, _)| written(kind, gid)).collect();
    changes.execute(sqlx::raw_sql(AssertSqlSafe(script))).await.unwrap();
    let ids: HashMap<String, i64> = sqlx::query_as("select gid, id from pgsaga.saga")
        .fetch_all(&mut *changes)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let mut sagas = Vec::new();
    for (gid, kind, extreme) in chosen {
        if applied(&mut changes, extreme, ids[&gid]).await {
            sagas.push((format!("{kind}: {extreme}"), ids[&gid]));
        }
    }
    changes.commit().await.unwrap();
    sagas
}

/// As many values as the column with the most of them has.
const VALUES_MAX: usize = 12;

/// It ended as it should, and did not panic.
#[track_caller]
fn assert_fine(said: &Said, what: &str) {
    assert!(matches!(said.code, Some(0 | 1)), "{what}: {:?}\n{}{}", said.code, said.out, said.err);
    assert!(!said.err.contains("panicked"), "{what}: {}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_and_the_page_read_every_value() {
    let db = Database::new().await;
    let all = extremes(db.pool()).await;
    let sagas = one_for_each_value(&db, &all).await;
    assert!(sagas.len() > sized(150, 500), "only {} values were taken", sagas.len());
    write(db.pool(), "sequential", "unharmed").await;

    for args in [
        &["list", "--limit", "10000"][..],
        &["list", "--limit", "10000", "--json"],
        &["list", "--limit", "10000", "--participant", "shop.example:8080", "--no-progress", "1s"],
        &["queues"],
        &["queues", "--json"],
        &["abort", "--open", "--label", "tenant=a", "--reason", "x", "--dry-run"],
        &["retry", "--stuck", "--dry-run"],
        &["doctor"],
        &["doctor", "--json"],
    ] {
        let said = run(&db, args);
        assert_fine(&said, &args.join(" "));
        if args[0] == "list" && !args.contains(&"--participant") {
            assert!(said.out.contains("unharmed"), "{args:?} lists the others");
            assert!(said.out.lines().count() >= sagas.len(), "{args:?} lists them all");
            assert!(!said.out.contains('\x1b'), "{args:?} writes no control characters");
        }
        if args[0] == "doctor" {
            assert_eq!(said.code, Some(1), "{args:?}");
            assert!(said.out.contains("found infinity; allowed: from 1970 to 9999"), "{args:?} names them");
            assert!(
                !said.out.contains("the check could not run"),
                "{args:?}: {:?}",
                said.lines_with("could not run")
            );
        }
        if args.contains(&"--json") {
            for line in said.out.lines() {
                assert!(line.starts_with('{') && line.ends_with('}'), "{args:?}: {line}");
            }
        }
    }

    // The page reads a saga by the same words as `pgsaga show`.
    let ui = Ui::read_only(db.url());
    let address = ui.address().await;
    let get = async |path: &str| worker::get(address, path).await.unwrap();
    for path in
        ["/", "/live", "/sagas", "/sagas?status=open", "/sagas?status=stuck", "/stuck", "/queues", "/workers"]
    {
        let (status, page) = get(path).await;
        assert_eq!(status, 200, "{path}: {page}");
    }
    let mut wrong = Vec::new();
    for (what, saga_id) in &sagas {
        let gid: String = sqlx::query_scalar("select gid from pgsaga.saga where id = $1")
            .bind(saga_id)
            .fetch_one(db.pool())
            .await
            .unwrap();
        // No gid is empty or has control characters, and the page says so.
        let is_gid = !gid.is_empty() && !gid.contains(char::is_control);
        let url = reqwest::Url::parse_with_params("http://x/saga", [("gid", &gid)]).unwrap();
        let (status, page) = get(&format!("/saga?{}", url.query().unwrap())).await;
        if status != 200 && (is_gid || status >= 500) {
            wrong.push(format!("{what}: {status}: {}", page.chars().take(2000).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// The nth value of every column at once, as many of them as the database takes.
#[tokio::test(flavor = "multi_thread")]
async fn show_reads_rows_with_many_such_values() {
    let db = Database::new().await;
    let all = extremes(db.pool()).await;
    for kind in ["sequential", "stuck_parallel", "finished"] {
        for nth in 0..sized(VALUES_MAX / 3, VALUES_MAX) {
            let gid = format!("{kind}-{nth}");
            let saga_id = write(db.pool(), kind, &gid).await;
            let mut columns: Vec<(&str, &str)> = Vec::new();
            for extreme in &all {
                let column = (extreme.table, extreme.column.as_str());
                // These say which saga it is.
                if !columns.contains(&column) && !["gid", "saga_id", "id"].contains(&column.1) {
                    columns.push(column);
                }
            }
            for (table, column) in columns {
                let values: Vec<&Extreme> =
                    all.iter().filter(|extreme| extreme.table == table && extreme.column == column).collect();
                let value = &values[nth % values.len()].value;
                apply(db.pool(), table, column, value, saga_id).await;
            }
            for flags in [&[][..], &["--json"], &["--mermaid"]] {
                let mut args = vec!["show", &gid];
                args.extend(flags);
                let said = run(&db, &args);
                assert_fine(&said, &args.join(" "));
                assert!(said.out.contains(&gid), "{args:?}: {}{}", said.out, said.err);
                if flags.contains(&"--json") {
                    let json: Result<&serde_json::value::RawValue, _> = serde_json::from_str(&said.out);
                    assert!(json.is_ok(), "{args:?}: {json:?}");
                }
            }
        }
    }
    assert_fine(&run(&db, &["list", "--json"]), "list --json");
    assert_fine(&run(&db, &["doctor"]), "doctor");
}

/// A check that cannot run is a finding, and the others have their turn.
#[tokio::test]
async fn a_check_that_fails_is_a_finding_and_the_others_go_on() {
    let db = Database::new().await;
    write(db.pool(), "sequential", "open").await;
    db.pool().execute("update pgsaga.task set run_at = 'infinity'").await.unwrap();
    // Two of the checks read this view.
    let broken = "create or replace view pgsaga.step_order as
        select s.id as saga_id, (1 / (s.id - s.id))::int as step, 0 as waits_for from pgsaga.saga s";
    db.pool().execute(broken).await.unwrap();
    let said = run(&db, &["doctor"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    let failed = said.lines_with("the check could not run: ");
    assert!(
        failed
            .iter()
            .any(|line| line.starts_with("steps_run_in_order: ") && line.contains("division by zero")),
        "{}",
        said.out
    );
    assert_eq!(said.lines_with("rows_can_be_read: saga open: task ").len(), 1, "{}", said.out);
}
