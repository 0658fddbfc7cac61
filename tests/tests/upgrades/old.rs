//! A database as an older release left it.

use std::path::PathBuf;

use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Participant, binary};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _};

/// Stands in the fixtures for a participant's address, and is as long.
const PLACEHOLDER: &str = "participant:443";

/// Where the fixture of a version is.
pub(crate) fn fixture(version: i64) -> PathBuf {
    PathBuf::from(format!("{}/fixtures/schema_{version}.sql", env!("CARGO_MANIFEST_DIR")))
}

/// What `pgsaga migrate --print` prints, with further flags.
pub(crate) fn printed(flags: &[&str]) -> String {
    let script = binary::command()
        .args(["migrate", "--print"])
        .args(flags)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
    String::from_utf8(script.stdout).unwrap()
}

/// A database of just this version, empty, with the bookkeeping of its migrations.
pub(crate) async fn at(version: i64) -> Scene {
    let scene = Scene::new().await;
    let script = printed(&[]);
    let mut versions = pgsaga_sql::MIGRATIONS.iter().map(|migration| migration.version);
    let until = match versions.find(|next| *next > version) {
        None => &*script,
        Some(next) => {
            script
                .split_once(&format!("\n-- migration {next}:"))
                .expect("the script is not cut where it should be")
                .0
        }
    };
    sqlx::raw_sql("drop schema pgsaga cascade").execute(scene.pool()).await.unwrap();
    // On a connection of its own, for it may end in another role.
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(until.to_owned())).execute(&mut session).await.unwrap();
    session.close().await.unwrap();
    assert_eq!(self::version(scene.pool()).await, version);
    scene
}

/// The same with what the fixture holds.
pub(crate) async fn with_rows(version: i64) -> Scene {
    let scene = at(version).await;
    load(scene.pool(), version, &scene.participant).await;
    scene
}

/// The triggers have done their work when the rows were made.
async fn load(pool: &PgPool, version: i64, participant: &Participant) {
    let address = participant.address().to_string();
    assert_eq!(address.len(), PLACEHOLDER.len(), "{address}: sizes of definitions are stored");
    let rows = std::fs::read_to_string(fixture(version)).unwrap().replace(PLACEHOLDER, &address);
    let script =
        format!("set session_replication_role = replica;\n{rows}\nset session_replication_role = origin;");
    let mut session = pool.acquire().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *session).await.unwrap();
    // Its temporary functions go with it.
    session.close().await.unwrap();
}

/// The newest migration that is applied.
pub(crate) async fn version(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select max(version) from pgsaga.migration where success")
        .fetch_one(pool)
        .await
        .unwrap()
}
