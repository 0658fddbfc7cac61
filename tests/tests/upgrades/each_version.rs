//! What a database of each schema version held is finished by today's worker.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use pgsaga_sql::schema::Function;
use pgsaga_sql::{RELEASE, SCHEMA_VERSION};
use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::{Call, eventually, tool};
use sqlx::Row as _;
use sqlx::postgres::PgPool;

use crate::cast::{self, CAST, End, Role};
use crate::old::{self, BASELINE, fixture, printed, script};

/// The versions that have files. A version of functions alone needs no fixture.
fn versions() -> impl Iterator<Item = i64> {
    RELEASE.versions.iter().map(|file| file.version)
}

#[test]
fn every_schema_version_has_a_fixture() {
    let missing: Vec<i64> = versions().filter(|version| !fixture(*version).is_file()).collect();
    assert!(
        missing.is_empty(),
        "no tests/fixtures/schema_N.sql for version {missing:?}: make it with tests/fixtures/make.py, and test it here"
    );
    let scripts: Vec<i64> =
        versions().filter(|version| *version < SCHEMA_VERSION && !script(*version).is_file()).collect();
    assert!(
        scripts.is_empty(),
        "no tests/fixtures/script_N.sql for version {scripts:?}: it is what `pgsaga migrate --print` of that release printed"
    );
    let folder = fixture(BASELINE).parent().unwrap().to_owned();
    let fixtures = std::fs::read_dir(folder)
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("schema_"));
    assert_eq!(fixtures.count(), RELEASE.versions.len(), "a fixture of a version that is none");
}

#[test]
fn every_version_is_tested_and_every_role_is_played() {
    let source = include_str!("each_version.rs");
    let rows: String = versions()
        .map(|version| {
            let name = if version == BASELINE { "BASELINE".to_owned() } else { version.to_string() };
            assert!(source.contains(&format!("finish({name},")), "version {version} is not tested");
            std::fs::read_to_string(fixture(version)).unwrap()
        })
        .collect();
    for Role { gid, .. } in CAST {
        assert!(rows.contains(&format!("'{gid}'")), "no fixture has the saga {gid}");
    }
}

/// Functions that claim to be as old as the script, whose text the script does not have.
fn changed_in_silence(script: &str, version: i64, functions: &[Function]) -> Vec<&'static str> {
    let claim = functions.iter().filter(|function| function.version <= version);
    claim.filter(|function| !script.contains(function.sql)).map(|function| function.name).collect()
}

/// An older `pgsaga migrate` would overwrite such a function: it knows no number but the version.
#[test]
fn a_function_that_changed_since_a_release_names_a_new_version() {
    let scripts = versions().filter(|version| *version < SCHEMA_VERSION);
    for (version, text) in scripts.map(|version| (version, std::fs::read_to_string(script(version)).unwrap()))
    {
        let silent = changed_in_silence(&text, version, RELEASE.functions);
        assert!(
            silent.is_empty(),
            "raise the version in the first lines of {silent:?}: they differ from version {version}'s"
        );
    }
    let today = printed(&[]);
    assert!(changed_in_silence(&today, SCHEMA_VERSION, RELEASE.functions).is_empty());
    let [silent, said] = [SCHEMA_VERSION, SCHEMA_VERSION + 1].map(|version| Function {
        version,
        sql: "-- another text",
        ..RELEASE.functions[0]
    });
    assert_eq!(changed_in_silence(&today, SCHEMA_VERSION, &[silent, said]), [silent.name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_of_the_baseline_are_finished() {
    finish(BASELINE, &migrate).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn sagas_of_the_baseline_are_finished_after_the_printed_script() {
    finish(BASELINE, &by_psql(BASELINE)).await;
}

fn migrate(scene: &Scene) {
    let said = run(&scene.db, &["migrate"]).fine();
    assert!(said.ends_with(&format!("the schema pgsaga is at version {SCHEMA_VERSION}\n")), "{said}");
}

/// As a person does it where only a person may change the schema.
fn by_psql(from: i64) -> impl Fn(&Scene) {
    move |scene: &Scene| {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script.sql");
        std::fs::write(&script, printed(&["--from", &from.to_string()])).unwrap();
        let done = Command::new(tool("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-d", scene.db.url(), "-f"])
            .arg(&script)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Upgrades a database of this version and has everything in it finished.
async fn finish(version: i64, upgrade: &dyn Fn(&Scene)) {
    let mut scene = old::with_rows(version).await;
    cast::play(&scene.participant);
    let before = Before::read(scene.pool()).await;
    upgrade(&scene);
    assert_eq!(old::version(scene.pool()).await, SCHEMA_VERSION);
    scene.healthy().await;
    assert_eq!(digests(scene.pool()).await, before.digests, "the upgrade changed what was over");
    let applied: Vec<String> =
        sqlx::query_scalar("select name from pgsaga.function").fetch_all(scene.pool()).await.unwrap();
    for name in applied {
        let known = RELEASE.functions.iter().any(|function| function.name == name);
        assert!(known, "the file of {name} is gone: it must stay and drop the function");
    }

    scene.start_worker(&[]).await;
    settled(&scene, &before).await;
    for (gid, role) in &before.roles {
        let (status, reason) = scene.status(gid).await.unwrap();
        match role.end {
            End::Retried(..) => {
                assert_eq!((status.as_str(), &reason), ("stuck", &before.reasons[gid]), "{gid}");
                assert!(scene.participant.calls_for(gid).is_empty(), "{gid} was stuck and is called");
            }
            End::StuckThenFailed(why, _) => {
                assert_eq!((status.as_str(), reason.as_deref()), ("stuck", Some(why)), "{gid}");
            }
            _ => continue,
        }
        run(&scene.db, &["retry", gid, "--comment", "after the upgrade"]).fine();
    }
    if before.roles.values().any(|role| role.end == End::Resumed) {
        assert!(
            scene.participant.calls_for("paused").is_empty(),
            "a paused queue is paused after the upgrade too"
        );
        run(&scene.db, &["resume", "frozen"]).fine();
    }
    ended(&scene, &before).await;

    for (gid, role) in &before.roles {
        ended_as(&scene, gid, role, &before).await;
    }
    answers_are_used(&scene, &before).await;
    assert_eq!(digests(scene.pool()).await, before.digests, "what was over has changed");
    assert_eq!(broken(scene.pool()).await, Vec::<String>::new());
    let workers: i64 =
        sqlx::query_scalar("select count(*) from pgsaga.worker").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(workers, 1, "the dead of the old release are buried");
}

/// What the fixture holds.
struct Before {
    roles: BTreeMap<String, &'static Role>,
    reasons: HashMap<String, Option<String>>,
    /// Of sagas that were over.
    digests: Vec<String>,
    /// Tries so far by key without a fresh one's suffix, with those that are lost in flight.
    tries: HashMap<String, i64>,
    succeeded: Vec<String>,
    fresh: HashMap<String, String>,
}

impl Before {
    async fn read(pool: &PgPool) -> Before {
        let rows: Vec<(String, Option<String>)> =
            sqlx::query_as("select gid, reason from pgsaga.saga").fetch_all(pool).await.unwrap();
        let roles = rows.iter().map(|(gid, _)| {
            let role = CAST.iter().find(|role| role.gid == gid);
            (gid.clone(), role.unwrap_or_else(|| panic!("the cast has no {gid}")))
        });
        let key = "s.gid || '/' || coalesce(s.steps -> (h.step - 1) ->> 'name', lpad(h.step::text, 2, '0')) || '/' || h.op";
        let tries = format!(
            "select {key} as key, count(*) as tries, bool_or(done) as done from (
               select saga_id, step, op, outcome = 'success' as done from pgsaga.history where op is not null
               union all select saga_id, step, op, false from pgsaga.task where worker is not null) h
             join pgsaga.saga s on s.id = h.saga_id group by 1"
        );
        let tries = sqlx::query(sqlx::AssertSqlSafe(tries)).fetch_all(pool).await.unwrap();
        let fresh = "select s.gid || '/' || (s.steps -> (split_part(k.key, '/', 1)::int - 1) ->> 'name') || '/' || split_part(k.key, '/', 2), '/' || k.value
            from pgsaga.saga s cross join lateral jsonb_each_text(s.fresh_keys) k";
        let fresh: Vec<(String, String)> = sqlx::query_as(fresh).fetch_all(pool).await.unwrap();
        Before {
            roles: roles.collect(),
            reasons: rows.iter().cloned().collect(),
            digests: digests(pool).await,
            tries: tries.iter().map(|row| (row.get("key"), row.get("tries"))).collect(),
            succeeded: tries.iter().filter(|row| row.get("done")).map(|row| row.get("key")).collect(),
            fresh: fresh.into_iter().collect(),
        }
    }
}

/// Finished sagas with their history, without columns that only later versions have.
async fn digests(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select gid || ' ' || status || ' ' || coalesce(reason, '') || ' ' || created_at || ' ' || finished_at || ' ' || steps || ' ' || coalesce(result::text, '')
           || (select string_agg(concat_ws(' ', h.seq, h.at, h.worker, h.kind, h.step, h.op, h.attempt, h.outcome, h.status_code, h.duration_us, h.message), E'\\n' order by h.seq)
               from pgsaga.history h where h.saga_id = s.id)
         from pgsaga.saga s where gid = any ($1) and finished_at is not null order by id",
    )
    .bind(CAST.iter().filter(|role| role.end == End::Unchanged).map(|role| role.gid).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Waits until nothing is left but what needs a person or its time.
async fn settled(scene: &Scene, before: &Before) {
    let left = before.roles.values().filter(|role| matches!(role.end, End::Resumed | End::Waits));
    wait(scene, left.map(|role| role.gid).collect()).await;
}

async fn ended(scene: &Scene, before: &Before) {
    let left = before.roles.values().filter(|role| role.end == End::Waits);
    wait(scene, left.map(|role| role.gid).collect()).await;
}

async fn wait(scene: &Scene, left: Vec<&'static str>) {
    let open = "select gid || ' ' || status from pgsaga.saga where finished_at is null and status <> 'stuck' and gid <> all ($1)";
    let started = std::time::Instant::now();
    eventually(PATIENCE, "every saga ends", async || {
        let open: Vec<String> = sqlx::query_scalar(open).bind(&left).fetch_all(scene.pool()).await.unwrap();
        if started.elapsed() > PATIENCE - std::time::Duration::from_secs(1) {
            eprintln!("still open: {open:?}");
        }
        open.is_empty().then_some(())
    })
    .await;
}

async fn ended_as(scene: &Scene, gid: &str, role: &Role, before: &Before) {
    let (status, reason) = scene.status(gid).await.unwrap();
    let expected = match role.end {
        End::Unchanged => {
            return assert!(scene.participant.calls_for(gid).is_empty(), "{gid} was over and is called");
        }
        End::Waits => ("submitted", None),
        End::Resumed => ("succeeded", None),
        End::As(status, reason) => (status, reason.map(str::to_owned)),
        End::Retried(status, reason) => (status, reason.map(str::to_owned)),
        End::StuckThenFailed(_, why) => ("failed", Some(why.to_owned())),
    };
    assert_eq!((status.as_str(), reason), expected, "{gid}");

    let calls = scene.participant.calls_for(gid);
    let undone = |call: &Call| if call.op == "compensate" { "-" } else { "" };
    let mut asked: Vec<String> =
        calls.iter().map(|call| format!("{}{}", undone(call), call.branch_id)).collect();
    let mut expected: Vec<&str> = role.calls.split_whitespace().collect();
    if gid.contains("parallel") {
        asked.sort();
        expected.sort_unstable();
    }
    assert_eq!(asked, expected, "calls of {gid}");
    let mut next: HashMap<String, i64> = HashMap::new();
    for call in &calls {
        let key = format!("{gid}/{}/{}", call.branch_id, call.op);
        let fresh = before.fresh.get(&key).map_or("", String::as_str);
        assert_eq!(call.key, format!("{key}{fresh}"), "the key of the old release");
        assert!(!before.succeeded.contains(&key), "{key} had succeeded and runs again");
        let attempt = next.entry(key.clone()).or_insert_with(|| before.tries.get(&key).copied().unwrap_or(0));
        *attempt += 1;
        assert_eq!(call.header("saga-attempt"), attempt.to_string(), "{key}");
    }
}

/// Payloads and results that refer to answers of before the upgrade.
async fn answers_are_used(scene: &Scene, before: &Before) {
    let body = |gid: &str, step: &str| {
        let calls = scene.participant.calls_for(gid);
        String::from_utf8(calls.iter().find(|call| call.branch_id == step).unwrap().body.to_vec()).unwrap()
    };
    if before.roles.contains_key("refers") {
        assert_eq!(body("refers", "b"), r#"{"from_a": 4711, "literal": {"$from": "x"}}"#);
        let result: String = sqlx::query_scalar("select result::text from pgsaga.saga where gid = 'refers'")
            .fetch_one(scene.pool())
            .await
            .unwrap();
        assert_eq!(result, r#"{"a": {"id": 4711}, "c": "c"}"#);
    }
    if before.roles.contains_key("refers-aborting") {
        assert_eq!(body("refers-aborting", "a"), r#"{"undo": 12}"#);
    }
    if before.roles.contains_key("untouched-columns") {
        let first = &scene.participant.calls_for("untouched-columns")[0];
        assert_eq!((first.header("x-tenant").as_str(), first.header("x-step").as_str()), ("t1", "a"));
        assert_eq!(first.header("saga-timeout-ms"), "1500");
        assert_eq!(body("untouched-columns", "c"), r#"[12345678901234567000, "ü", null]"#);
    }
}
