//! A release after this one, made up: what it changes comes whole or not at all, and today's
//! `pgsaga` leaves it alone.

use pgsaga_sql::schema::{self, ApplyError, Function, Kind, Release, SchemaVersion};
use pgsaga_sql::{RELEASE, SCHEMA_VERSION};
use pgsaga_tests::command::run;
use pgsaga_tests::dump::dump;
use pgsaga_tests::eventually;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::old::{self, BASELINE, printed};

const NEXT: i64 = SCHEMA_VERSION + 1;
const TABLE: SchemaVersion = SchemaVersion {
    version: NEXT,
    name: "expand_made_up",
    sql: "alter table pgsaga.paused_queue add column made_up text;",
};

fn leak(sql: String) -> &'static str {
    Box::leak(sql.into_boxed_str())
}

/// A function of this text, which a version changes.
fn function(name: &'static str, head: &str, sql: &str) -> Function {
    Function::new(name, leak(format!("-- version {head}\n{sql}")))
}

/// Today's functions, and these instead of those that have their names or behind them.
fn release(versions: &[SchemaVersion], functions: &[Function]) -> Release {
    let versions = [RELEASE.versions, versions].concat();
    let mut all = RELEASE.functions.to_vec();
    for function in functions {
        match all.iter_mut().find(|known| known.name == function.name) {
            Some(known) => *known = *function,
            None => all.push(*function),
        }
    }
    Release { versions: versions.leak(), functions: all.leak() }
}

fn today(name: &str) -> Function {
    *RELEASE.functions.iter().find(|function| function.name == name).unwrap()
}

/// A column, a function that uses it, another text of one function, and other arguments of another
/// one.
fn next(change: &str) -> Release {
    let pause = today("pause");
    let body = pause.sql.split_once('\n').unwrap().1.replace("no saga was ever in", "nobody has used");
    assert_ne!(body, pause.sql.split_once('\n').unwrap().1);
    let resume = today("resume").sql.split_once('\n').unwrap().1;
    let changed =
        resume.replace("pgsaga.resume(queue text)", "pgsaga.resume(queue text, loudly boolean default true)");
    assert_ne!(changed, resume);
    let made_up = "create or replace function pgsaga.made_up(q pgsaga.paused_queue) returns text
        language plpgsql set search_path = pg_catalog, pg_temp as $$ begin return q.made_up; end $$;
        revoke all on function pgsaga.made_up from public;
        grant execute on function pgsaga.made_up to pgsaga_operator;\n";
    let head = format!("{NEXT}: {change}");
    release(
        &[TABLE],
        &[
            function("pause", &head, &body),
            function("resume", &head, &format!("drop function if exists pgsaga.resume(text);\n{changed}")),
            function("made_up", &head, made_up),
        ],
    )
}

/// The one after that needs the made-up function no more.
fn after_next() -> Release {
    let drop = "drop function if exists pgsaga.made_up(pgsaga.paused_queue);\n";
    let head = format!("{}: expands", NEXT + 1);
    let next = next("expands");
    let functions = next.functions.iter().map(|known| match known.name {
        "made_up" => function("made_up", &head, drop),
        _ => *known,
    });
    Release { functions: functions.collect::<Vec<_>>().leak(), ..next }
}

async fn apply(scene: &Scene, release: &Release) -> Result<Vec<Kind>, ApplyError> {
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    session.execute("set role pgsaga_owner").await.unwrap();
    let applied = schema::apply(&mut session, release).await;
    session.close().await.unwrap();
    applied
}

/// Each function with what it is made of, and the transaction that did.
async fn functions(scene: &Scene) -> Vec<(String, String)> {
    let functions =
        "select proname::text, xmin || ' ' || pg_get_functiondef(oid) || coalesce(proacl::text, '')
        from pg_proc where pronamespace = 'pgsaga'::regnamespace order by oid";
    sqlx::query_as(functions).fetch_all(scene.pool()).await.unwrap()
}

async fn may_execute(scene: &Scene, role: &str, function: &str) -> bool {
    let may = "select has_function_privilege($1, to_regproc($2)::oid, 'execute')";
    sqlx::query_scalar(may).bind(role).bind(function).fetch_one(scene.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_release_changes_what_it_must_and_keeps_every_right() {
    let scene = old::with_rows(BASELINE).await;
    let before = functions(&scene).await;
    // A person's own.
    scene.pool().execute("grant execute on function pgsaga.pause to pg_monitor").await.unwrap();

    let applied = apply(&scene, &next("expands")).await.unwrap();
    let changed = ["pause", "resume", "made_up"];
    assert_eq!(
        applied,
        [&[Kind::Version(NEXT, "expand_made_up")][..], &changed.map(Kind::Function)].concat()
    );
    assert_eq!(old::version(scene.pool()).await, NEXT);
    let after = functions(&scene).await;
    let others = |functions: &[(String, String)]| -> Vec<(String, String)> {
        functions.iter().filter(|(name, _)| !changed.contains(&name.as_str())).cloned().collect()
    };
    assert_eq!(others(&after), others(&before), "an unchanged function is left alone");
    assert!(after.iter().any(|(name, text)| name == "pause" && text.contains("nobody has used")));
    let resumes: Vec<&String> =
        after.iter().filter(|(name, _)| name == "resume").map(|(_, text)| text).collect();
    assert!(resumes.len() == 1 && resumes[0].contains("loudly boolean"), "{resumes:?}");
    for function in changed.map(|name| format!("pgsaga.{name}")) {
        assert!(may_execute(&scene, "pgsaga_operator", &function).await, "{function}");
        assert!(!may_execute(&scene, "pgsaga_producer", &function).await, "{function} is for everybody");
    }
    assert!(may_execute(&scene, "pg_monitor", "pgsaga.pause").await, "a right that a person has given");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
    assert_eq!(apply(&scene, &next("expands")).await.unwrap(), [], "a second time there is nothing to do");

    let applied = apply(&scene, &after_next()).await.unwrap();
    assert_eq!(applied, [Kind::Version(NEXT + 1, "expand_functions"), Kind::Function("made_up")]);
    assert!(!functions(&scene).await.iter().any(|(name, _)| name == "made_up"), "it is dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_and_one_that_was_upgraded_hold_the_same() {
    let upgraded = old::at(BASELINE).await;
    apply(&upgraded, &next("expands")).await.unwrap();
    apply(&upgraded, &after_next()).await.unwrap();
    let skipped = old::at(BASELINE).await;
    apply(&skipped, &after_next()).await.unwrap();
    let new = old::without_schema().await;
    apply(&new, &after_next()).await.unwrap();
    let expected = dump(new.pool()).await;
    assert!(expected.contains("made_up"));
    assert_eq!(dump(upgraded.pool()).await, expected);
    assert_eq!(dump(skipped.pool()).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_migrate_changes_nothing_in_a_newer_database() {
    let scene = old::with_rows(BASELINE).await;
    apply(&scene, &next("expands")).await.unwrap();
    let before = (dump(scene.pool()).await, functions(&scene).await);
    let said = run(&scene.db, &["migrate"]);
    assert_eq!(said.code, Some(3), "{}", said.err);
    let words = format!("the schema of this database is at version {NEXT}, and this pgsaga");
    assert!(said.err.contains(&words) && said.err.contains("use that release"), "{}", said.err);

    for from in [0, SCHEMA_VERSION] {
        let script = printed(&["--from", &from.to_string()]);
        let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
        let error = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut session).await.unwrap_err();
        let words = format!(
            "the schema pgsaga: found version {NEXT}; allowed: {from}, which this script starts from"
        );
        assert!(error.to_string().contains(&words), "{error}");
    }
    assert_eq!((dump(scene.pool()).await, functions(&scene).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_is_named_and_leaves_nothing_of_the_steps_before_it() {
    let scene = old::with_rows(BASELINE).await;
    let before = (dump(scene.pool()).await, functions(&scene).await);
    let next = next("expands");
    let broken_function = function("broken", &format!("{NEXT}: expands"), "select pgsaga.nothing();");
    let functions_of_next = [next.functions, &[broken_function]].concat();
    let broken_release = Release { functions: functions_of_next.leak(), ..next };
    let error = apply(&scene, &broken_release).await.unwrap_err().to_string();
    assert!(error.starts_with("migrate failed at function broken: "), "{error}");
    assert!(
        error.contains("pgsaga.nothing()") && error.contains("nothing of the database was changed"),
        "{error}"
    );
    assert_eq!((dump(scene.pool()).await, functions(&scene).await), before);

    let broken_version = SchemaVersion { version: NEXT + 1, name: "expand_broken", sql: "select 1 / 0;" };
    let error = apply(&scene, &release(&[TABLE, broken_version], &[])).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("migrate failed at schema version {}: expand_broken: ", NEXT + 1)),
        "{error}"
    );
    assert_eq!((dump(scene.pool()).await, functions(&scene).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_arguments_or_another_result_without_a_drop_are_refused_with_what_to_do() {
    let scene = old::at(BASELINE).await;
    let resume = today("resume").sql.split_once('\n').unwrap().1;
    for other in [
        resume.replace("pgsaga.resume(queue text)", "pgsaga.resume(queue text, loudly boolean)"),
        resume.replace("pgsaga.resume(queue text) returns void", "pgsaga.resume(queue text) returns text"),
        resume.replace("pgsaga.resume(queue text)", "pgsaga.resume(name text)"),
    ] {
        assert_ne!(other, resume);
        let changed = function("resume", &format!("{NEXT}: contracts"), &other);
        let error = apply(&scene, &release(&[], &[changed])).await.unwrap_err().to_string();
        assert!(error.starts_with("migrate failed at function resume: "), "{error}");
        assert!(error.contains("the file must first drop the function as it was"), "{error}");
        assert_eq!(old::version(scene.pool()).await, SCHEMA_VERSION);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_beside_functions_that_expand_and_stops_beside_those_that_contract() {
    let scene = Scene::with_worker().await;
    let worker = &scene.workers[0];
    apply(&scene, &next("expands")).await.unwrap();
    worker.wait_for_log("lets workers of this release go on", PATIENCE).await;
    scene.saga("beside").step("a").insert().await;
    scene.expect("beside", "succeeded", None, &["a action"]).await;
    assert_eq!(worker.get("/readyz").await.unwrap().0, 200);

    // Only a function changes, and no table.
    let pause = today("pause").sql.split_once('\n').unwrap().1;
    let contracted = function("pause", &format!("{}: contracts", NEXT + 1), pause);
    let mut functions = next("expands").functions.to_vec();
    functions.retain(|function| function.name != "pause");
    let applied = apply(&scene, &release(&[TABLE], &[&functions[..], &[contracted]].concat())).await.unwrap();
    assert_eq!(applied[0], Kind::Version(NEXT + 1, "contract_functions"));
    let (_, said) = eventually(PATIENCE, "the worker is not ready", async || {
        worker.get("/readyz").await.ok().filter(|(status, _)| *status == 503)
    })
    .await;
    assert_eq!(said, "not ready: a newer pgsaga has migrated the database: upgrade this worker\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_beside_a_function_that_contracted_in_a_release_that_was_left_out() {
    let scene = Scene::with_worker().await;
    let pause = today("pause").sql.split_once('\n').unwrap().1;
    let head = format!("{}: expands, contracted in {NEXT}", NEXT + 1);
    let applied = apply(&scene, &release(&[], &[function("pause", &head, pause)])).await.unwrap();
    assert_eq!(
        applied,
        [
            Kind::Version(NEXT, "contract_functions"),
            Kind::Version(NEXT + 1, "expand_functions"),
            Kind::Function("pause")
        ]
    );
    eventually(PATIENCE, "the worker is not ready", async || {
        scene.workers[0].get("/readyz").await.ok().filter(|(status, _)| *status == 503)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_migrations_at_once_one_applies_everything_and_the_others_nothing() {
    let scene = old::with_rows(BASELINE).await;
    let next = next("expands");
    let (one, two, three) = tokio::join!(apply(&scene, &next), apply(&scene, &next), apply(&scene, &next));
    let mut applied = [one, two, three].map(|applied| applied.unwrap().len());
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 4]);
}
